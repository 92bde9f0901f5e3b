"""A real HTTPS server that answers like Prometheus' API, or in the ways in which something that is none would."""

from __future__ import annotations

import base64
import contextlib
import json
import re
import ssl
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

USER, READER_PASSWORD = "bank", "p @:/%25?#&'\"\\$HOME`id`{x} é€"
# The selector of the page, as Prometheus would understand it.
SELECTOR = re.compile(r'\{__name__=~"([a-z_:|0-9]+)"\}')


def series(name: str, value: float | str, **labels: str) -> dict[str, Any]:
    return {"metric": {"__name__": name, "site": "main", **labels}, "value": [time.time(), str(value)]}


def alert(name: str, severity: str, since: str = "2026-11-30T10:00:00.123456789Z", **more: Any) -> dict[str, Any]:
    labels = {"alertname": name, "severity": severity, "site": "main", **more.pop("labels", {})}
    texts = {"summary": f"{name} happened", "description": "what it is", **more.pop("annotations", {})}
    return {"labels": labels, "annotations": texts, "state": "firing", "activeAt": since, "value": "1e+00", **more}


def platform_series(hosts_down: tuple[str, ...] = ()) -> list[dict[str, Any]]:
    hosts = ("app1", "app2", "db1", "lb1", "mon1")
    found = [series("up", 0 if host in hosts_down else 1, job="node", instance=host) for host in hosts]
    found += [
        series("up", 0 if host in hosts_down else 1, job="bank", instance=host) for host in hosts if "app" in host
    ]
    found += [series("up", 1, job="postgresql", instance="db1"), series("up", 1, job="prometheus", instance="mon1")]
    for probe, host in (("bank", "lb1"), ("redis", "db1")):
        found.append(series("up", 1, job="blackbox", probe=probe, instance=host))
        found.append(series("probe_success", 1, job="blackbox", probe=probe, instance=host))
    for name, left in (("availability", 0.9987), ("latency", 0.12), ("transfers", -0.5)):
        found.append(series("slo:error_budget_left:ratio", left, slo=name))
    for resource, used in (("disk", 0.61), ("processors", 0.99), ("memory", 0.934)):
        found.append(series("capacity:used:ratio", used, resource=resource, instance="db1"))
    found += [series("bank_ledger_imbalance_minor_units", 0, job="bank", instance=host) for host in ("app1", "app2")]
    found.append(series("site:bank_requests:rate5m", "12.345"))
    found.append(
        series("elasticsearch_snapshot_last_success_timestamp_seconds", time.time() - 3 * 3600, instance="mon1")
    )
    # What nobody asks for here, and Prometheus would not send.
    found.append(series("node_load1", 99, instance="db1"))
    return found


WATCHDOG = alert("Watchdog", "p4")


class FakePrometheus(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, pki: Path) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(pki / "server.crt", pki / "server.key")
        self.socket = context.wrap_socket(self.socket, server_side=True)
        self.stopped = threading.Event()
        self.reset()

    def reset(self) -> None:
        self.series, self.alerts = platform_series(), [WATCHDOG]
        self.manner = "good"
        self.questions: list[str] = []

    @property
    def url(self) -> str:
        return f"https://localhost:{self.server_address[1]}"

    def handle_error(self, request, client_address) -> None:
        """Clients that give up are what some tests are about."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: FakePrometheus

    def log_message(self, *_arguments) -> None:
        pass

    def send(self, status: int, body: bytes, **headers: str) -> None:
        self.send_response(status)
        for name, value in {"Content-Type": "application/json", "Content-Length": str(len(body)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)

    def success(self, data: Any) -> None:
        self.send(200, json.dumps({"status": "success", "data": data}).encode())

    def do_GET(self) -> None:
        asked = urlsplit(self.path)
        self.server.questions.append(asked.path)
        right = base64.b64encode(f"{USER}:{READER_PASSWORD}".encode()).decode()
        if self.headers["Authorization"] != f"Basic {right}":
            self.send(401, b"Unauthorized\n", WWW_Authenticate="Basic", Content_Type="text/plain")
        elif self.server.manner in ("good", "after a pause"):
            if self.server.manner == "after a pause":
                self.server.stopped.wait(0.3)
            self.answer(asked.path, parse_qs(asked.query))
        else:
            getattr(self, self.server.manner)()

    def answer(self, path: str, parameters: dict[str, list[str]]) -> None:
        if path == "/api/v1/alerts":
            self.success({"alerts": self.server.alerts})
        elif path == "/api/v1/query" and (selector := SELECTOR.fullmatch(parameters["query"][0])):
            names = selector[1].split("|")
            found = [item for item in self.server.series if item["metric"]["__name__"] in names]
            self.success({"resultType": "vector", "result": found})
        else:
            body = {"status": "error", "errorType": "bad_data", "error": "invalid parameter <query>"}
            self.send(400, json.dumps(body).encode())

    def silent(self) -> None:
        self.server.stopped.wait(10)

    def trickling(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "1000")
        self.end_headers()
        for _ in range(100):
            self.wfile.write(b"{")
            if self.server.stopped.wait(0.1):
                return

    def starting(self) -> None:
        self.send(503, b"Service Unavailable", Content_Type="text/plain")

    def page(self) -> None:
        self.send(200, b"<!doctype html><title>hello</title>", Content_Type="text/html")

    def redirecting(self) -> None:
        self.send(302, b"", Location="https://localhost:1/elsewhere")

    def refusing_the_question(self) -> None:
        self.answer("/api/v1/nothing", {})

    def huge(self) -> None:
        self.send(200, b" " * (9 * 1024 * 1024))

    def deep(self) -> None:
        self.send(200, b"[" * 100_000)

    def of_another_shape(self) -> None:
        self.success({"resultType": "vector", "result": [{"metric": {"a": 5}, "value": "now"}]})

    def unsuccessful(self) -> None:
        self.send(200, b'{"status": "error", "error": "too many queries"}')

    def broken(self) -> None:
        self.wfile.write(b"what do you mean\r\n\r\n")
        self.close_connection = True

    def hanging_up(self) -> None:
        self.close_connection = True


@contextlib.contextmanager
def running(pki: Path) -> Iterator[FakePrometheus]:
    server = FakePrometheus(pki)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield server
    finally:
        server.stopped.set()
        server.shutdown()
        thread.join()
        server.server_close()
