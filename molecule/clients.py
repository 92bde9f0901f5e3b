"""How tests ask the servers of a scenario."""

from __future__ import annotations

import base64
import json
import ssl
import urllib.parse
import urllib.request
from collections.abc import Callable
from typing import Any

import testinfra


def caller(name: str, service: str, port: int, user_and_password: str | None = None) -> Callable[..., Any]:
    """Return a function that asks a service over the network, with this log-in unless told otherwise."""
    host = testinfra.get_host(f"docker://{name}")
    address = host.check_output("hostname --ip-address").split()[0]
    context = ssl.create_default_context(cadata=host.file(f"/etc/pki/bank/{service}/ca.crt").content_string)

    def call(
        path: str, login: str | None = user_and_password, scheme: str = "https", **query: str
    ) -> dict | list | str:
        url = f"{scheme}://{address}:{port}{path}?{urllib.parse.urlencode(query)}"
        headers = {"Authorization": f"Basic {base64.b64encode(login.encode()).decode()}"} if login else {}
        with urllib.request.urlopen(
            urllib.request.Request(url, headers=headers), context=context, timeout=10
        ) as answer:
            text = answer.read().decode()
        if path.startswith("/api/v1/"):
            return json.loads(text)["data"]
        return json.loads(text) if path.startswith("/api/") else text

    return call
