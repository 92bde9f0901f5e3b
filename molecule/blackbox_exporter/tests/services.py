"""Stands for the bank, Redis and PostgreSQL: answers HTTPS, TLS and plain TCP where they do."""

import http.server
import socketserver
import ssl
import threading
from pathlib import Path

CERTIFICATES = Path("/etc/pki/bank/services")
# While this file exists, the bank is not well.
SICK = Path("/root/sick")


class Bank(http.server.BaseHTTPRequestHandler):
    """Tells its health under the bank's name only."""

    def do_GET(self) -> None:
        """Answer."""
        is_known = self.path == "/health" and self.headers["Host"] == "bank.bank.internal"
        self.send_response(404 if not is_known else 503 if SICK.exists() else 200)
        self.end_headers()

    def log_message(self, *words: object) -> None:
        """Say nothing."""


class Silent(socketserver.BaseRequestHandler):
    """Takes a connection and ends it."""


def serve(server: socketserver.TCPServer, *, over_tls: bool) -> None:
    """Serve from now on."""
    if over_tls:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(CERTIFICATES / "tls.crt", CERTIFICATES / "tls.key")
        server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever).start()


if __name__ == "__main__":
    socketserver.ThreadingTCPServer.allow_reuse_address = True
    serve(http.server.ThreadingHTTPServer(("0.0.0.0", 443), Bank), over_tls=True)
    serve(socketserver.ThreadingTCPServer(("0.0.0.0", 6379), Silent), over_tls=True)
    serve(socketserver.ThreadingTCPServer(("0.0.0.0", 5432), Silent), over_tls=False)
