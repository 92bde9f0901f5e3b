"""What the stand-ins share: asking the real Elasticsearch, and an HTTP interface that says what they are."""

from __future__ import annotations

import base64
import json
import ssl
import urllib.error
import urllib.request
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

ANSWER_SECONDS = 5


def basic(user: str, password: str) -> str:
    """Return the header of a log-in with user and password."""
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


def api_key(key: str) -> str:
    """Return the header of a log-in with an API key as configurations hold it, id:key."""
    return "ApiKey " + base64.b64encode(key.encode()).decode()


@dataclass(frozen=True)
class Account:
    """How a product reaches Elasticsearch."""

    url: str
    authority: str
    # How messages call it, and the header of its log-in.
    name: str
    authorization: str


def ask(
    account: Account, method: str, path: str, body: object = None, authorization: str | None = None
) -> tuple[int, Any]:
    """Return status and content of Elasticsearch's answer to this account, or to another log-in.

    Raises:
        OSError: There is no answer, or no TLS connection.
    """
    context = ssl.create_default_context(cafile=account.authority or None)
    request = urllib.request.Request(
        account.url + path,
        method=method,
        data=None if body is None else json.dumps(body).encode(),
        headers={
            "Authorization": account.authorization if authorization is None else authorization,
            "Content-Type": "application/json",
        },
    )
    try:
        with urllib.request.urlopen(request, timeout=ANSWER_SECONDS, context=context) as answer:
            status, content = answer.status, answer.read()
    except urllib.error.HTTPError as error:
        status, content = error.code, error.read()
    try:
        return status, json.loads(content)
    except ValueError:
        return status, content.decode("utf-8", "replace")


def problem_with(account: Account) -> str:
    """Return why Elasticsearch would not serve this account, or nothing."""
    try:
        status, _ = ask(account, "GET", "/_security/_authenticate")
    except (OSError, ValueError) as error:
        return f"{account.url}: {getattr(error, 'reason', error)}"
    return "" if status == 200 else f"{account.url} answered {status} to {account.name}"


def handler_of(answers: Callable[[str], dict[str, Any] | None], name: str) -> type[BaseHTTPRequestHandler]:
    """Return a handler of GET requests that answers in JSON, and names the stand-in in every answer."""

    class Handler(BaseHTTPRequestHandler):
        """Answers what ``answers`` returns for a path, or 404."""

        server_version = name
        sys_version = ""

        def do_GET(self) -> None:
            """Answer one request."""
            content = answers(self.path.partition("?")[0])
            body = json.dumps(content if content is not None else {"error": "no such path"}).encode()
            self.send_response(200 if content is not None else 404)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_words: object) -> None:
            """Stay silent."""

    return Handler
