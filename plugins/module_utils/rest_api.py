"""Speaks to REST APIs over verified TLS, for the modules of roles."""

from __future__ import annotations

import json
from http.client import HTTPException
from typing import Any
from urllib.error import HTTPError
from urllib.parse import quote

from ansible.module_utils.urls import open_url

# Argument that such modules take; the password is hidden in whatever Ansible shows or logs.
ACCESS: dict[str, Any] = {
    "type": "dict",
    "required": True,
    "options": {
        "urls": {"type": "list", "elements": "str", "required": True},
        "ca_path": {"type": "path", "required": True},
        "user": {"type": "str", "required": True},
        "password": {"type": "str", "required": True, "no_log": True},
    },
}
REASON_LENGTH = 600
# What is kept with things that the platform made in a product, so that it changes and removes no other.
OWNER = "bank platform"
# Whatever JSON can hold.
Json = Any


class ApiError(Exception):
    """The server refused or did not answer; the text is a sentence, status 0 means no answer."""

    def __init__(self, text: str, status: int = 0) -> None:
        super().__init__(text)
        self.status = status


def reason_of(content: bytes) -> str:
    """Return why the server refused, from its answer."""
    try:
        answer = json.loads(content)
    except ValueError:
        return content.decode("utf-8", "replace")[:REASON_LENGTH]
    reason = answer.get("message") or answer.get("error") if isinstance(answer, dict) else answer
    if not isinstance(reason, dict):
        return str(reason)[:REASON_LENGTH]
    reasons, cause = [str(reason.get("reason"))], reason.get("caused_by")
    while isinstance(cause, dict):
        reasons.append(str(cause.get("reason")))
        cause = cause.get("caused_by")
    return ": ".join(dict.fromkeys(reasons))[:REASON_LENGTH]


def path_of(*parts: str) -> str:
    """Return a path of the API whose parts may hold any character."""
    return "/" + "/".join(quote(part, safe="*,") for part in parts)


class Api:
    """Servers of which one is as good as another, as one user."""

    def __init__(
        self, urls: list[str], ca_path: str, user: str, password: str, headers: dict[str, str] | None = None
    ) -> None:
        """Remember where and who, and which headers a product asks for; without a user, a header must say who."""
        self.urls, self.ca_path, self.user, self.password = urls, ca_path, user, password
        self.headers = headers or {}

    def send(
        self, method: str, path: str, data: bytes | None, content_type: str = "application/json", timeout: float = 30
    ) -> bytes:
        """Return the answer of the first server that gives one.

        Raises:
            ApiError: there is none, or it is a refusal.
        """
        silent = []
        for url in self.urls:
            try:
                with open_url(
                    url + path,
                    method=method,
                    data=data,
                    headers={"Content-Type": content_type, **self.headers},
                    url_username=self.user or None,
                    url_password=self.password or None,
                    force_basic_auth=bool(self.user),
                    ca_path=self.ca_path,
                    use_proxy=False,
                    timeout=timeout,
                ) as answer:
                    return answer.read()
            except HTTPError as error:
                raise ApiError(
                    f"{method} {path} on {url} was refused with {error.code}: {reason_of(error.read())}", error.code
                ) from error
            except (OSError, HTTPException, ValueError) as error:
                silent.append(f"{url} does not answer ({error})")
        raise ApiError("; ".join(silent))

    def ask(self, method: str, path: str, body: object = None, timeout: float = 30) -> Json:
        """Return the document in the answer to one request.

        Raises:
            ApiError: there is none, or it is a refusal.
        """
        content = self.send(method, path, None if body is None else json.dumps(body).encode(), timeout=timeout)
        return json.loads(content) if content.strip() else {}

    def find(self, path: str) -> Json | None:
        """Return what is there, or nothing if the server knows no such thing.

        Raises:
            ApiError: the server refused for another reason, or does not answer.
        """
        try:
            return self.ask("GET", path)
        except ApiError as error:
            # An Elasticsearch without the feature answers 400 or 405 to its paths.
            if error.status in (400, 404, 405):
                return None
            raise

    def as_user(self, user: str, password: str) -> Api:
        """Return the same servers as another user."""
        return Api(self.urls, self.ca_path, user, password, self.headers)

    def at(self, url: str) -> Api:
        """Return another server as the same user."""
        return Api([url], self.ca_path, self.user, self.password, self.headers)


def api_of(params: dict[str, Any], headers: dict[str, str] | None = None) -> Api:
    """Return the API for the arguments of a module."""
    return Api(**params["access"], headers=headers)
