"""Example of a webhook receiver: one ticket for each group of alerts, followed up while it lasts and closed at its end.

Usage: python3 ticket_webhook.py SETTINGS

SETTINGS is a JSON file with
  address, port      where Alertmanager finds this program
  certificate, key   its files; without them it listens on 127.0.0.1 alone
  token_file         what Alertmanager shows as a bearer token
  desk               address of the ticket system, which speaks ServiceNow's Table API
  desk_user, desk_password_file
  desk_ca_file       authority of the ticket system's certificate; without it, those that the host trusts

The standard library is all it needs. It keeps nothing: the ticket of a group is found by its correlation_id.
"""

import base64
import hashlib
import hmac
import http.server
import json
import ssl
import sys
import threading
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any

LARGEST_BYTES = 1 << 20
DESK_SECONDS = 10
URGENCY = {"p1": "1", "p2": "2"}
NOT_URGENT = "3"
RESOLVED = "6"
# Resolved, closed and cancelled.
ENDED = "6,7,8"


class Desk:
    """The ticket system."""

    def __init__(self, settings: dict[str, Any]) -> None:
        """Take its address and its log-in from the settings."""
        self.url = settings["desk"].rstrip("/") + "/api/now/table/incident"
        password = Path(settings["desk_password_file"]).read_text(encoding="utf-8").strip()
        login = base64.b64encode(f"{settings['desk_user']}:{password}".encode()).decode()
        self.headers = {"Authorization": f"Basic {login}", "Content-Type": "application/json"}
        self.context = ssl.create_default_context(cafile=settings.get("desk_ca_file"))

    def ask(self, method: str, path: str = "", fields: dict[str, str] | None = None) -> dict | list:
        """Send one request and return its result.

        Raises:
            OSError: the ticket system is out of reach or refuses.
            ValueError: its answer is none of the Table API.
        """
        data = json.dumps(fields).encode() if fields is not None else None
        request = urllib.request.Request(self.url + path, data=data, headers=self.headers, method=method)
        context = self.context if self.url.startswith("https:") else None
        with urllib.request.urlopen(request, timeout=DESK_SECONDS, context=context) as answer:
            document = json.load(answer)
        if not isinstance(document, dict) or "result" not in document:
            raise ValueError("the ticket system's answer has no result")
        return document["result"]

    def follow(self, group: str, fields: dict[str, str], note: str, *, over: bool) -> str:
        """Open, follow up or close the ticket of a group; return which of them was done.

        Raises:
            OSError: the ticket system is out of reach or refuses.
            ValueError: its answer is none of the Table API.
        """
        query = {
            "sysparm_query": f"correlation_id={group}^stateNOT IN{ENDED}",
            "sysparm_fields": "sys_id",
            "sysparm_limit": "1",
        }
        found = self.ask("GET", "?" + urllib.parse.urlencode(query))
        if found:
            path = f"/{found[0]['sys_id']}"
            if over:
                self.ask("PATCH", path, {"state": RESOLVED, "close_code": "Resolved by caller", "close_notes": note})
                return "closed"
            self.ask("PATCH", path, {"work_notes": note})
            return "followed up"
        if over:
            return "nothing to close"
        self.ask("POST", fields={"correlation_id": group, "description": note, **fields})
        return "opened"


def describe(body: dict[str, Any]) -> tuple[str, dict[str, str], str]:
    """Return what identifies the group of a notification, the fields of its ticket and what there is to say.

    Raises:
        KeyError, TypeError, AttributeError: it is no notification of Alertmanager.
    """
    group = hashlib.sha256(body["groupKey"].encode()).hexdigest()[:32]
    labels = body["commonLabels"]
    urgency = URGENCY.get(labels.get("severity", ""), NOT_URGENT)
    title = f"{body['groupLabels'].get('alertname', 'alert')} {labels.get('site', '')}".strip()
    lines = []
    for alert in body["alerts"]:
        notes = alert["annotations"]
        lines += [f"{alert['status']}: {notes.get('summary', '')}", notes.get("description", "")]
        lines += [notes[name] for name in ("runbook_url", "dashboard_url") if name in notes]
    fields = {"short_description": title[:160], "urgency": urgency, "impact": urgency}
    return group, fields, "\n".join(line for line in lines if line)


class Webhook(http.server.BaseHTTPRequestHandler):
    """Takes notifications of Alertmanager."""

    desk: Desk
    token: str
    # Two notifications of a group at once would both find no ticket.
    one_at_a_time = threading.Lock()

    def do_POST(self) -> None:
        """Do what one notification asks for. Alertmanager tries again after 5xx and gives up after 4xx."""
        shown = self.headers.get("Authorization", "")
        if not hmac.compare_digest(shown.encode(), f"Bearer {self.token}".encode()):
            self.answer(401, "wrong token")
            return
        length = self.headers.get("Content-Length", "")
        if not length.isdecimal() or int(length) > LARGEST_BYTES:
            self.answer(413, f"at most {LARGEST_BYTES} bytes are taken")
            return
        try:
            body = json.loads(self.rfile.read(int(length)))
            group, fields, note = describe(body)
            over = body["status"] == "resolved"
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            self.answer(400, f"no notification of Alertmanager: {error!r}")
            return
        try:
            with self.one_at_a_time:
                done = self.desk.follow(group, fields, note, over=over)
        except (OSError, ValueError) as error:
            self.answer(502, f"the ticket system: {error}")
            return
        self.answer(200, done)

    def answer(self, status: int, text: str) -> None:
        """Send the answer, and write one line about it."""
        print(status, text, flush=True)
        data = text.encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *words: object) -> None:
        """Write nothing more than ``answer`` does."""


def serve(settings: dict[str, Any]) -> http.server.ThreadingHTTPServer:
    """Return the server, ready to serve.

    Raises:
        OSError: a file cannot be read or the port cannot be had.
        KeyError: a setting is missing.
    """
    secure = "certificate" in settings
    handler = type("Handler", (Webhook,), {})
    handler.desk = Desk(settings)
    handler.token = Path(settings["token_file"]).read_text(encoding="utf-8").strip()
    address = settings.get("address", "") if secure else "127.0.0.1"
    server = http.server.ThreadingHTTPServer((address, settings["port"]), handler)
    if secure:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(settings["certificate"], settings["key"])
        server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    return server


if __name__ == "__main__":
    serve(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))).serve_forever()
