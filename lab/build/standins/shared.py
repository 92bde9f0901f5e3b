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


@dataclass(frozen=True)
class Account:
    """How a product reaches Elasticsearch."""

    url: str
    authority: str
    user: str
    password: str


def problem_with(account: Account) -> str:
    """Return why Elasticsearch would not serve this account, or nothing."""
    try:
        context = ssl.create_default_context(cafile=account.authority)
        token = base64.b64encode(f"{account.user}:{account.password}".encode()).decode()
        request = urllib.request.Request(
            f"{account.url}/_security/_authenticate", headers={"Authorization": f"Basic {token}"}
        )
        urllib.request.urlopen(request, timeout=ANSWER_SECONDS, context=context).close()
    except urllib.error.HTTPError as error:
        return f"{account.url} answered {error.code} to user {account.user}"
    except (OSError, ValueError) as error:
        return f"{account.url}: {getattr(error, 'reason', error)}"
    return ""


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
