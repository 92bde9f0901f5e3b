"""The program: tests a configuration and ends, or serves Logstash's monitoring interface and opens no other port."""

from __future__ import annotations

import argparse
import os
import re
import socket
import ssl
import sys
import threading
import time
import uuid
from http.server import ThreadingHTTPServer
from pathlib import Path
from typing import Any

from ..shared import Account, api_key, basic, handler_of, problem_with
from .configuration import ConfigurationError, Pipeline, load, unreadable

NAME = "logstash-standin"
VERSION_FILE = Path(__file__).parents[2] / "VERSION"
CHECK_SECONDS = 10
IS_A_STANDIN = "This is a stand-in of the lab for Logstash: it checks its configuration and carries no event."


def accounts(pipeline: Pipeline) -> list[Account]:
    """Return the accounts of the pipeline's outputs to Elasticsearch, one for each node."""
    found = []
    for plugin in pipeline.plugins:
        if plugin.name == "elasticsearch":
            settings = plugin.settings
            authority = settings.get("ssl_certificate_authorities", [""])
            for host in settings.get("hosts", []):
                authority_file = authority if isinstance(authority, str) else authority[0]
                key, user = settings.get("api_key", ""), settings.get("user", "")
                name = f"API key {key.partition(':')[0]}" if key else f"user {user}"
                header = api_key(key) if key else basic(user, settings.get("password", ""))
                found.append(Account(host, authority_file, name, header))
    return found


def tls_problems(pipeline: Pipeline) -> list[str]:
    """Return why inputs could not serve TLS: a key that does not belong to its certificate."""
    problems = []
    for plugin in pipeline.plugins:
        certificate, key = plugin.settings.get("ssl_certificate"), plugin.settings.get("ssl_key")
        if certificate and key:
            try:
                ssl.create_default_context(ssl.Purpose.CLIENT_AUTH).load_cert_chain(certificate, key)
            except (OSError, ssl.SSLError) as error:
                problems.append(f"{plugin.name}: {certificate} and {key}: {error}")
    return problems


class Agent:
    """Knows how every pipeline is, and asks Elasticsearch again now and then."""

    def __init__(self, settings: dict[str, Any], pipelines: list[Pipeline]) -> None:
        """Check every pipeline once."""
        self.settings = settings
        self.pipelines = pipelines
        self.problems: dict[str, list[str]] = {}
        self.failed = {pipeline.name: unreadable(pipeline) or tls_problems(pipeline) for pipeline in pipelines}
        self.identifier = str(uuid.uuid4())
        self.begun = time.monotonic()
        self.look()

    def look(self) -> None:
        """Ask Elasticsearch as every pipeline does; say on standard error what changed."""
        asked = {account: problem_with(account) for pipeline in self.pipelines for account in accounts(pipeline)}
        for pipeline in self.pipelines:
            outputs = [asked[account] for account in accounts(pipeline)]
            # One node that serves is enough.
            refused = [problem for problem in outputs if problem] if outputs and all(outputs) else []
            found = self.failed[pipeline.name] + refused
            if found != self.problems.get(pipeline.name):
                for problem in found:
                    print(f"[ERROR][{pipeline.name}] {problem}", file=sys.stderr, flush=True)
            self.problems[pipeline.name] = found

    def status(self) -> str:
        """Return the health as Logstash words it: red if a pipeline does not run, yellow if one cannot deliver."""
        if any(self.failed.values()):
            return "red"
        return "yellow" if any(self.problems.values()) else "green"

    def answer(self, path: str) -> dict[str, Any] | None:
        """Return what Logstash's monitoring interface says at a path."""
        common = {
            "host": socket.gethostname(),
            "version": VERSION_FILE.read_text(encoding="utf-8").strip(),
            "id": self.identifier,
            "name": self.settings.get("node.name", socket.gethostname()),
            "status": self.status(),
            "product": NAME,
            "standin": IS_A_STANDIN,
        }
        running = [pipeline for pipeline in self.pipelines if not self.failed[pipeline.name]]
        if path == "/":
            return common
        if path == "/_node/pipelines":
            workers = self.settings.get("pipeline.workers", os.cpu_count())
            return common | {"pipelines": {pipeline.name: {"workers": workers} for pipeline in running}}
        if path == "/_node/stats" or path.startswith("/_node/stats/"):
            # No event is carried, so all figures stay what they are at the start.
            queue = {"type": self.settings.get("queue.type", "memory"), "events_count": 0, "queue_size_in_bytes": 0}
            most = re.fullmatch(r"(\d+)mb", str(self.settings.get("queue.max_bytes", "1024mb")))
            queue["max_queue_size_in_bytes"] = int(most[1]) * 1024**2 if most else 0
            stats = {
                "events": {"in": 0, "filtered": 0, "out": 0},
                "queue": queue,
                "dead_letter_queue": {"queue_size_in_bytes": 1, "dropped_events": 0},
            }
            uptime = int((time.monotonic() - self.begun) * 1000)
            named = {pipeline.name: stats for pipeline in running}
            return common | {"jvm": {"uptime_in_millis": uptime}, "pipelines": named}
        if path == "/_health_report":
            indicators = {
                name: {"status": "green" if not problems else "red", "symptom": "; ".join(problems) or "running"}
                for name, problems in self.problems.items()
            }
            return common | {"indicators": {"pipelines": {"status": self.status(), "indicators": indicators}}}
        return None


def serve(settings: dict[str, Any], pipelines: list[Pipeline]) -> None:
    """Answer on the monitoring interface until the process is ended."""
    agent = Agent(settings, pipelines)
    address = (str(settings.get("api.http.host", "127.0.0.1")), int(settings.get("api.http.port", 9600)))
    server = ThreadingHTTPServer(address, handler_of(agent.answer, NAME))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    print(f"[INFO] {IS_A_STANDIN}", file=sys.stderr, flush=True)
    while True:
        time.sleep(CHECK_SECONDS)
        agent.look()


def main() -> None:
    """Run the command line of Logstash, as far as a service and a test of its configuration need it."""
    parser = argparse.ArgumentParser(prog="logstash", description=IS_A_STANDIN)
    parser.add_argument("--path.settings", dest="settings", type=Path, default=Path("/usr/share/logstash/config"))
    parser.add_argument("--path.data", dest="data", type=Path)
    parser.add_argument("--log.level", dest="log_level")
    parser.add_argument("-t", "--config.test_and_exit", dest="test", action="store_true")
    source = parser.add_mutually_exclusive_group()
    source.add_argument("-f", "--path.config", dest="file", type=Path)
    source.add_argument("-e", "--config.string", dest="string")
    options = parser.parse_args()
    try:
        settings, pipelines = load(options.settings, options.file, options.string)
    except ConfigurationError as error:
        sys.exit(f"[FATAL][logstash.runner] {error}")
    if options.test:
        print("Configuration OK")
        return
    try:
        serve(settings, pipelines)
    except OSError as error:
        sys.exit(f"[FATAL][logstash.agent] the monitoring interface cannot open its port: {error.strerror}")
