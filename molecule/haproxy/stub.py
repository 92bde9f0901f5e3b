#!/usr/bin/python3
"""Answers as an instance of the bank does where HAProxy is concerned, and tells what it was sent."""

import http.server
import json
import ssl
import sys
import time
from pathlib import Path

NAME, PORT, PKI = sys.argv[1], int(sys.argv[2]), Path(sys.argv[3])
NOT_READY = Path("/run/not-ready")


class Handler(http.server.BaseHTTPRequestHandler):
    """One request."""

    protocol_version = "HTTP/1.1"

    def answer(self) -> None:
        """Tell who answers, and what arrived."""
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        ready = self.path != "/health/ready" or not NOT_READY.exists()
        if self.path == "/slow":
            time.sleep(3)
        told = {
            "instance": NAME,
            "path": self.path,
            "headers": [[name.lower(), value] for name, value in self.headers.items()],
            "body": body.decode(),
            "client": self.connection.getpeercert()["subject"],
        }
        text = json.dumps(told).encode()
        self.send_response(200 if ready else 503)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    do_GET = do_POST = answer


context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(PKI / "tls.crt", PKI / "tls.key")
context.load_verify_locations(PKI / "ca.crt")
context.verify_mode = ssl.CERT_REQUIRED
server = http.server.ThreadingHTTPServer(("0.0.0.0", PORT), Handler)
server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
server.serve_forever()
