"""Headers on every answer, and what is believed of those that come in."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from flask import abort, request
from werkzeug.middleware.proxy_fix import ProxyFix

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable
    from ipaddress import IPv4Address, IPv6Address
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

    from flask import Flask, Response

HEADERS = {
    # No scripts at all, no inline style, nothing from elsewhere.
    "Content-Security-Policy": (
        "default-src 'none'; style-src 'self'; img-src 'self'; font-src 'self'; form-action 'self'; "
        "base-uri 'none'; frame-ancestors 'none'; object-src 'none'"
    ),
    "Strict-Transport-Security": "max-age=31536000; includeSubDomains",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    # The origin check of forms needs the referrer within the site.
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
}
SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})


class TrustedProxies:
    """Believes the last hop of X-Forwarded-For and -Proto if a known load balancer sent the request."""

    def __init__(self, app: WSGIApplication, addresses: Collection[IPv4Address | IPv6Address]) -> None:
        self._direct = app
        self._behind_proxy = ProxyFix(app, x_for=1, x_proto=1, x_host=0, x_port=0, x_prefix=0)
        self._addresses = frozenset(str(address) for address in addresses)

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Hand the request on with the caller's address."""
        environ["bank.forwarded"] = "HTTP_X_FORWARDED_FOR" in environ or "HTTP_FORWARDED" in environ
        if environ.get("REMOTE_ADDR") in self._addresses:
            environ["bank.proxied"] = True
            return self._behind_proxy(environ, start_response)
        return self._direct(environ, start_response)


def came_through_proxy() -> bool:
    """Tell whether this request was forwarded, so that it may come from anybody."""
    return bool(request.environ.get("bank.forwarded"))


def protect(app: Flask) -> None:
    """Refuse forms that other sites send, and put the headers on every answer, errors and files included."""

    @app.before_request
    def same_origin() -> None:
        origin = request.headers.get("Origin")
        if request.method not in SAFE_METHODS and origin is not None and urlsplit(origin).netloc != request.host:
            abort(400, "This form was sent from another site.")

    @app.after_request
    def headers(response: Response) -> Response:
        response.headers.update(HEADERS)
        if request.endpoint != "static" or response.status_code >= 400:  # noqa: PLR2004
            response.headers["Cache-Control"] = "no-store"
        return response
