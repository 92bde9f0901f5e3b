"""Stands for whoever is told of alerts: writes down each notification, with its path, its token and the moment.

Runs on a host of the lab or of a scenario: python3 alert_receiver.py PORT FILE [CERTIFICATES].
"""

import http.server
import json
import ssl
import sys
import time
from pathlib import Path


class Receiver(http.server.BaseHTTPRequestHandler):
    """Takes one notification."""

    file: Path

    def do_POST(self) -> None:
        """Write it down and confirm it."""
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        entry = {"path": self.path, "token": self.headers["Authorization"], "at": time.time(), "body": body}
        with self.file.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(entry) + "\n")
        self.send_response(200)
        self.end_headers()
        # Whoever speaks as to Slack takes nothing else for success.
        self.wfile.write(b"ok")

    def log_message(self, *words: object) -> None:
        """Say nothing."""


def main() -> None:
    """Serve until the end, over TLS if a folder with a certificate is given."""
    port, file, *certificates = sys.argv[1:]
    Receiver.file = Path(file)
    Receiver.file.touch()
    server = http.server.ThreadingHTTPServer(("0.0.0.0", int(port)), Receiver)
    for folder in map(Path, certificates):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(folder / "tls.crt", folder / "tls.key")
        server.socket = context.wrap_socket(server.socket, server_side=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
