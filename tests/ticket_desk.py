"""Stands for a ticket system: the part of ServiceNow's Table API that an incident's life needs.

Runs on a host of a scenario, or in a thread: python3 ticket_desk.py PORT USER PASSWORD_FILE CERTIFICATES. Shows all
incidents on GET /incidents.
"""

import base64
import http.server
import json
import re
import ssl
import sys
import urllib.parse
from pathlib import Path

TABLE = "/api/now/table/incident"
QUERY = re.compile(r"correlation_id=(\w+)\^stateNOT IN([\d,]+)")


class TicketDesk(http.server.BaseHTTPRequestHandler):
    """Keeps incidents in memory."""

    incidents: list[dict[str, str]]
    authorization: str

    def do_GET(self) -> None:
        """List incidents: all, or those that a query asks for."""
        parts = urllib.parse.urlsplit(self.path)
        if parts.path == "/incidents":
            self.answer(200, self.incidents)
        elif self.may_come_in():
            wanted = QUERY.fullmatch(urllib.parse.parse_qs(parts.query)["sysparm_query"][0])
            group, ended = wanted.groups()
            found = [
                entry
                for entry in self.incidents
                if entry["correlation_id"] == group and entry["state"] not in ended.split(",")
            ]
            self.answer(200, {"result": [{"sys_id": entry["sys_id"]} for entry in found[:1]]})

    def do_POST(self) -> None:
        """Open an incident."""
        if self.may_come_in() and self.path == TABLE:
            entry = self.fields() | {"sys_id": f"{len(self.incidents):032x}", "state": "1"}
            self.incidents.append(entry)
            self.answer(201, {"result": entry})

    def do_PATCH(self) -> None:
        """Change an incident; notes are added to those that it has."""
        if self.may_come_in():
            entry = self.incidents[int(self.path.removeprefix(TABLE + "/"), 16)]
            fields = self.fields()
            if notes := fields.pop("work_notes", ""):
                fields["work_notes"] = "\n".join(filter(None, [entry.get("work_notes"), notes]))
            entry.update(fields)
            self.answer(200, {"result": entry})

    def fields(self) -> dict[str, str]:
        """Return the body of the request."""
        return json.loads(self.rfile.read(int(self.headers["Content-Length"])))

    def may_come_in(self) -> bool:
        """Check the log-in, and refuse what has none."""
        known = self.headers["Authorization"] == self.authorization
        if not known:
            self.answer(401, {"error": {"message": "User Not Authenticated"}})
        return known

    def answer(self, status: int, document: object) -> None:
        """Send the answer."""
        data = json.dumps(document).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *words: object) -> None:
        """Say nothing."""


def serve(port: int, user: str, password: str) -> http.server.ThreadingHTTPServer:
    """Return a desk of its own, ready to serve."""
    login = base64.b64encode(f"{user}:{password}".encode()).decode()
    handler = type("Handler", (TicketDesk,), {"incidents": [], "authorization": f"Basic {login}"})
    return http.server.ThreadingHTTPServer(("", port), handler)


if __name__ == "__main__":
    number, name, file, folder = sys.argv[1:]
    desk = serve(int(number), name, Path(file).read_text(encoding="utf-8").strip())
    protection = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    protection.load_cert_chain(Path(folder) / "tls.crt", Path(folder) / "tls.key")
    desk.socket = protection.wrap_socket(desk.socket, server_side=True)
    desk.serve_forever()
