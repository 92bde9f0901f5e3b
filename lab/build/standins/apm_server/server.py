"""The program: keystore and tests of the configuration as in the Beats family, and the server that takes traces."""

from __future__ import annotations

import hmac
import json
import ssl
import sys
import threading
import time
import uuid
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from ..shared import Account, api_key, basic, handler_of, problem_with
from .configuration import (
    ConfigurationError,
    Options,
    keystore_file,
    load,
    read,
    read_keystore,
    write_keystore,
)
from .intake import IntakeError, Taken, read_events, read_otlp, unpacked

NAME = "apm-server-standin"
VERSION_FILE = Path(__file__).parents[2] / "VERSION"
IS_A_STANDIN = (
    "This is a stand-in of the lab for APM Server: it checks its configuration, takes traces and counts them. It "
    "stores none in Elasticsearch."
)
CHECK_SECONDS = 5
MAX_BODY = 10 * 1024 * 1024
# What was taken is listed in a file for those who want to see it; it begins anew at this size.
MAX_LIST = 5 * 1024 * 1024
UNAUTHORIZED = (
    "authentication failed: missing or improperly formatted Authorization header: expected 'Authorization: Bearer "
    "secret_token' or 'Authorization: ApiKey base64(API key ID:API key)'"
)
LONG_OPTIONS = ("--path.", "--environment", "--strict.perms")


def accounts(values: dict[str, Any]) -> list[Account]:
    """Return the accounts of the output, one for each node."""
    hosts = values.get("output.elasticsearch.hosts", [])
    authority = (values.get("output.elasticsearch.ssl.certificate_authorities") or [""])[0]
    key = str(values.get("output.elasticsearch.api_key") or "")
    user = str(values.get("output.elasticsearch.username", ""))
    name = f"API key {key.partition(':')[0]}" if key else f"user {user}"
    header = api_key(key) if key else basic(user, str(values.get("output.elasticsearch.password", "")))
    return [Account(str(host), str(authority), name, header) for host in hosts]


class ApmServer:
    """Takes traces, counts them, and knows whether Elasticsearch would take them."""

    def __init__(self, values: dict[str, Any], options: Options) -> None:
        """Prepare; nothing is asked yet."""
        self.values = values
        self.token = str(values.get("apm-server.auth.secret_token") or "")
        self.largest = int(values.get("apm-server.max_event_size", 307200))
        self.version = VERSION_FILE.read_text(encoding="utf-8").strip()
        self.list = options.path("path.data") / "standin-events.ndjson"
        self.begun = time.monotonic()
        self.identifier = str(uuid.uuid4())
        self.lock = threading.Lock()
        self.counts: Counter[str] = Counter()
        self.problem: str | None = "not asked yet"

    def watch(self) -> None:
        """Ask Elasticsearch now and then; say what changed."""
        while True:
            found = [problem_with(account) for account in accounts(self.values)]
            # One node that serves is enough.
            problem = "; ".join(found) if found and all(found) else ""
            if problem != self.problem:
                say("error" if problem else "info", problem or "connection to Elasticsearch established")
                self.problem = problem
            time.sleep(CHECK_SECONDS)

    def admits(self, authorization: str | None) -> bool:
        """Return whether a request has the secret; without one in the settings everybody has."""
        wanted = f"Bearer {self.token}".encode()
        return not self.token or hmac.compare_digest(wanted, (authorization or "").encode("utf-8", "replace"))

    def keep(self, taken: Taken) -> None:
        """Count what was taken, and list it."""
        with self.lock:
            self.counts += taken.kinds
            self.counts["refused"] += len(taken.errors)
            if self.list.exists() and self.list.stat().st_size > MAX_LIST:
                self.list.unlink()
            with self.list.open("a", encoding="utf-8") as stream:
                stream.writelines(json.dumps(event) + "\n" for event in taken.events)

    def monitoring(self, path: str) -> dict[str, Any] | None:
        """Return what the interface for figures says at a path."""
        common = {"beat": "apm-server", "version": self.version, "product": NAME, "standin": IS_A_STANDIN}
        if path == "/":
            return common | {"uuid": self.identifier}
        if path != "/stats":
            return None
        uptime = int((time.monotonic() - self.begun) * 1000)
        # Nothing goes to Elasticsearch, so nothing is acknowledged.
        nothing = {
            "output": {"events": {"acked": 0, "failed": 0, "total": 0}},
            "pipeline": {"events": {"active": 0, "published": 0, "total": 0}},
        }
        info = {"info": {"uptime": {"ms": uptime}, "version": self.version}}
        return common | {"beat": info, "libbeat": nothing, "apm-server": {"taken": dict(self.counts)}}


class Handler(BaseHTTPRequestHandler):
    """Answers agents."""

    server_version = NAME
    sys_version = ""
    protocol_version = "HTTP/1.1"
    timeout = 60
    apm: ApmServer

    def log_message(self, *_words: object) -> None:
        """Stay silent."""

    def send(self, status: int, content: object = None) -> None:
        """Send one answer."""
        body = b"" if content is None else json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def body(self) -> bytes:
        """Return the body of a request, in one piece or in chunks."""
        if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
            return self.rfile.read(min(int(self.headers.get("Content-Length") or 0), MAX_BODY))
        parts, total = [], 0
        while size := int(self.rfile.readline().split(b";")[0] or b"0", 16):
            total += size
            if total > MAX_BODY:
                raise IntakeError("request body too large")
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def do_GET(self) -> None:
        """Answer the health check; who has the secret is told more."""
        if urlsplit(self.path).path != "/":
            self.send(404, {"error": "404 page not found"})
        elif self.apm.admits(self.headers.get("Authorization")) and self.apm.token:
            answer = {"publish_ready": not self.apm.problem, "version": self.apm.version}
            self.send(200, answer | {"product": NAME, "standin": IS_A_STANDIN})
        else:
            self.send(200)

    do_HEAD = do_GET

    def do_POST(self) -> None:
        """Take what an agent sends."""
        path = urlsplit(self.path).path
        try:
            body = unpacked(self.body(), self.headers.get("Content-Encoding", ""))
            if not self.apm.admits(self.headers.get("Authorization")):
                self.send(401, {"error": UNAUTHORIZED})
            elif path == "/intake/v2/events":
                taken = read_events(body, self.apm.largest)
                self.apm.keep(taken)
                if taken.errors:
                    self.send(400, {"accepted": len(taken.events), "errors": taken.errors})
                else:
                    self.send(202)
            elif path == "/v1/traces":
                self.apm.keep(read_otlp(body))
                self.send(200, {})
            elif path == "/config/v1/agents":
                self.send(403, {"error": "forbidden request: agent remote configuration is disabled"})
            else:
                self.send(404, {"error": "404 page not found"})
        except (IntakeError, ValueError) as error:
            self.send(400, {"accepted": 0, "errors": [{"message": str(error)}]})


def say(level: str, text: str) -> None:
    """Write one message as the Beats family does."""
    entry = {"log.level": level, "@timestamp": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), "message": text}
    print(json.dumps(entry | {"service.name": NAME}), file=sys.stderr, flush=True)


def serve(values: dict[str, Any], options: Options) -> None:
    """Answer agents until the process is ended."""
    apm = Handler.apm = ApmServer(values, options)
    say("info", IS_A_STANDIN)
    host, _, port = str(values.get("apm-server.host", "127.0.0.1:8200")).rpartition(":")
    server = ThreadingHTTPServer((host, int(port)), Handler)
    server.daemon_threads = True
    if values.get("apm-server.ssl.enabled"):
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(values["apm-server.ssl.certificate"], values["apm-server.ssl.key"])
        # The handshake of a slow client must not keep the others waiting.
        server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    if values.get("http.enabled"):
        address = (str(values.get("http.host", "localhost")), int(values.get("http.port", 5066)))
        figures = ThreadingHTTPServer(address, handler_of(apm.monitoring, NAME))
        threading.Thread(target=figures.serve_forever, daemon=True).start()
    threading.Thread(target=apm.watch, daemon=True).start()
    say("info", f"Listening on: {host}:{port}")
    server.serve_forever()


def test_output(values: dict[str, Any]) -> int:
    """Say how each node of the output answers, as the Beats family words it."""
    code = 0
    for account in accounts(values):
        print(f"elasticsearch: {account.url}...")
        problem = problem_with(account)
        print(f"  talk to server... {'ERROR ' + problem if problem else 'OK'}")
        code = code or int(bool(problem))
    return code


def keystore(words: list[str], options: Options) -> None:
    """Run one command of the keystore; a value to add comes by standard input."""
    try:
        values = read(options)
    except ConfigurationError:
        values = {}
    file = keystore_file(options, values)
    secrets = read_keystore(file)
    match words:
        case ["create"]:
            write_keystore(file, {})
            print("Created apm-server keystore")
        case ["list"]:
            print("\n".join(sorted(secrets)))
        case ["add", name]:
            write_keystore(file, secrets | {name: sys.stdin.read().rstrip("\n")})
            print("Successfully updated the keystore")
        case ["remove", name]:
            secrets.pop(name, None)
            write_keystore(file, secrets)
        case _:
            raise ConfigurationError(f'unknown command {" ".join(words)!r} for "apm-server keystore"')


def parse(arguments: list[str]) -> tuple[list[str], Options]:
    """Return the words and the options of the command line, which may be mixed."""
    words, options = [], Options()
    rest = iter(arguments)
    for word in rest:
        name, given, value = word.partition("=")
        if name in ("-E", "-c"):
            setting = value if given and name == "-c" else next(rest, "")
            if name == "-c":
                options.file = Path(setting)
            else:
                key, _, text = setting.partition("=")
                options.settings[key] = text
        elif name.startswith(LONG_OPTIONS):
            text = value if given else next(rest, "")
            if name.startswith("--path."):
                options.settings[name.removeprefix("--")] = text
        elif not word.startswith("-"):
            words.append(word)
    return words, options


def main() -> None:
    """Run the command line of APM Server, as far as a service and the tests of its configuration need it."""
    words, options = parse(sys.argv[1:])
    try:
        match words:
            case ["version"]:
                print(f"apm-server version {VERSION_FILE.read_text(encoding='utf-8').strip()} ({NAME})")
            case ["keystore", *rest]:
                keystore(rest, options)
            case ["test", "config"]:
                load(options)
                print("Config OK")
            case ["test", "output"]:
                sys.exit(test_output(load(options)))
            case [] | ["run"]:
                serve(load(options), options)
            case _:
                raise ConfigurationError(f'unknown command {" ".join(words)!r} for "apm-server"')
    except (ConfigurationError, OSError) as error:
        sys.exit(f"Exiting: {error}")
