"""Speaks to Elasticsearch's REST API over verified TLS, for the modules of the role."""

from __future__ import annotations

import json
from http.client import HTTPException
from typing import Any
from urllib.error import HTTPError
from urllib.parse import quote

from ansible.module_utils.urls import open_url

# Argument that every module of the role takes; the password is hidden in whatever Ansible shows or logs.
ACCESS: dict[str, Any] = {
    "type": "dict",
    "required": True,
    "options": {
        "url": {"type": "str", "required": True},
        "ca_path": {"type": "path", "required": True},
        "user": {"type": "str", "default": "elastic"},
        "password": {"type": "str", "required": True, "no_log": True},
    },
}
REASON_LENGTH = 600


class ApiError(Exception):
    """Elasticsearch refused or did not answer; the text is a sentence, status 0 means no answer."""

    def __init__(self, text: str, status: int = 0) -> None:
        super().__init__(text)
        self.status = status


def reason_of(content: bytes) -> str:
    """Return why Elasticsearch refused, from the error in its answer."""
    try:
        error = json.loads(content)["error"]
    except (ValueError, KeyError, TypeError):
        return content.decode("utf-8", "replace")[:REASON_LENGTH]
    if not isinstance(error, dict):
        return str(error)[:REASON_LENGTH]
    reasons = [str(error.get("reason"))]
    cause = error.get("caused_by")
    while isinstance(cause, dict):
        reasons.append(str(cause.get("reason")))
        cause = cause.get("caused_by")
    return ": ".join(dict.fromkeys(reasons))[:REASON_LENGTH]


def path_of(*parts: str) -> str:
    """Return a path of the API whose parts may hold any character."""
    return "/" + "/".join(quote(part, safe="*,") for part in parts)


class Api:
    """One node of the cluster, as one user."""

    def __init__(self, url: str, ca_path: str, user: str, password: str, timeout: float = 30) -> None:
        """Remember where and who."""
        self.url, self.ca_path, self.user, self.password, self.timeout = url, ca_path, user, password, timeout

    def ask(self, method: str, path: str, body: object = None, timeout: float | None = None) -> dict[str, Any]:
        """Return the answer to one request.

        Raises:
            ApiError: there is none, or it is a refusal.
        """
        try:
            with open_url(
                self.url + path,
                method=method,
                data=None if body is None else json.dumps(body),
                headers={"Content-Type": "application/json"},
                url_username=self.user,
                url_password=self.password,
                force_basic_auth=True,
                ca_path=self.ca_path,
                use_proxy=False,
                timeout=timeout or self.timeout,
            ) as answer:
                content = answer.read()
        except HTTPError as error:
            raise ApiError(
                f"{method} {path} on {self.url} was refused with {error.code}: {reason_of(error.read())}", error.code
            ) from error
        except (OSError, HTTPException, ValueError) as error:
            raise ApiError(f"{self.url} does not answer ({error})") from error
        return json.loads(content) if content.strip() else {}

    def find(self, path: str) -> dict[str, Any] | None:
        """Return what is there, or nothing if the server knows no such thing.

        Raises:
            ApiError: the server refused for another reason, or does not answer.
        """
        try:
            return self.ask("GET", path)
        except ApiError as error:
            # A server without the feature answers 400 or 405 to its paths.
            if error.status in (400, 404, 405):
                return None
            raise


def api_of(params: dict[str, Any]) -> Api:
    """Return the API for the arguments of a module."""
    return Api(**params["access"])
