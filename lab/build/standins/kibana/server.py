"""The program: checks its configuration, then answers the health check and what of Kibana's API keeps things."""

from __future__ import annotations

import json
import os
import re
import ssl
import sys
import threading
import time
import uuid
from email import policy
from email.parser import BytesParser
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from ..shared import Account, ask, basic
from .configuration import ConfigurationError, Settings, load
from .store import Refusal, Store, now

NAME = "kibana-standin"
VERSION_FILE = Path(__file__).parents[2] / "VERSION"
CHECK_SECONDS = 3
IS_A_STANDIN = (
    "This is a stand-in of the lab for Kibana: it checks its configuration and keeps what its API is given. It draws "
    "nothing and evaluates no rule."
)
NOT_READY = "Kibana server is not ready yet"
APPLICATION = "kibana-.kibana"
# What Kibana tells Elasticsearch about its privileges, reduced to the two that matter here.
ACTIONS = {name: ["api:read"] if name.endswith("read") else ["api:read", "api:write"] for name in
           ("all", "read", "space_all", "space_read")}  # fmt: skip
OK, NO_CONTENT, UNAUTHORIZED, FORBIDDEN, NOT_FOUND, UNAVAILABLE = 200, 204, 401, 403, 404, 503
MAX_BODY = 26214400


class Log:
    """Writes to standard output in words, and to the file of the settings in JSON."""

    def __init__(self, settings: Settings) -> None:
        """Find the file."""
        self.file = settings.get("logging.appenders.file.fileName")

    def write(self, level: str, logger: str, text: str) -> None:
        """Write one message."""
        print(f"[{now()}][{level:<5}][{logger}] {text}", flush=True)
        if self.file:
            entry = {"@timestamp": now(), "log": {"level": level, "logger": logger}, "message": text}
            entry |= {"service": {"name": NAME}, "process": {"pid": os.getpid()}}
            with Path(self.file).open("a", encoding="utf-8") as stream:
                stream.write(json.dumps(entry) + "\n")


class Kibana:
    """Knows whether Elasticsearch serves it, and what its users may do."""

    def __init__(self, settings: Settings, log: Log) -> None:
        """Prepare; nothing is asked yet."""
        self.settings, self.log = settings, log
        self.version = VERSION_FILE.read_text(encoding="utf-8").strip()
        self.store = Store(Path(settings.get("path.data", "/var/lib/kibana")) / "standin.json")
        self.uuid = str(uuid.uuid4())
        self.problem: str | None = "not asked yet"
        authority = (settings.listing("elasticsearch.ssl.certificateAuthorities") or [""])[0]
        token = settings.get("elasticsearch.serviceAccountToken")
        user = str(settings.get("elasticsearch.username", ""))
        header = f"Bearer {token}" if token else basic(user, str(settings.get("elasticsearch.password", "")))
        hosts = settings.listing("elasticsearch.hosts") or ["http://localhost:9200"]
        self.accounts = [Account(host.rstrip("/"), authority, user or "the service account", header) for host in hosts]

    def ask(self, method: str, path: str, body: object = None, authorization: str | None = None) -> tuple[int, Any]:
        """Return the answer of the first node that gives one.

        Raises:
            OSError: None does.
        """
        failures = []
        for account in self.accounts:
            try:
                return ask(account, method, path, body, authorization)
            except (OSError, ValueError) as error:
                failures.append(f"{account.url}: {getattr(error, 'reason', error)}")
        raise OSError("; ".join(failures))

    def trouble(self) -> str | None:
        """Return why Kibana cannot work with Elasticsearch, in its words."""
        try:
            status, content = self.ask("GET", "/")
            if status in (UNAUTHORIZED, FORBIDDEN):
                return f"Unable to retrieve version information from Elasticsearch nodes. security_exception: {status}"
            if status != OK:
                return f"Unable to retrieve version information from Elasticsearch nodes. status {status}"
            number = content["version"]["number"]
            if number.split(".")[0] != self.version.split(".")[0]:
                return (
                    f"This version of Kibana (v{self.version}) is incompatible with the following Elasticsearch nodes "
                    f"in your cluster: v{number}"
                )
            privileges = {
                APPLICATION: {
                    name: {"application": APPLICATION, "name": name, "actions": actions, "metadata": {}}
                    for name, actions in ACTIONS.items()
                }
            }
            status, content = self.ask("PUT", "/_security/privilege", privileges)
        except (OSError, KeyError, TypeError) as error:
            return f"Unable to retrieve version information from Elasticsearch nodes. {error}"
        return None if status == OK else f"Unable to register the privileges of Kibana: {json.dumps(content)}"

    def watch(self) -> None:
        """Ask Elasticsearch now and then; say what changed."""
        while True:
            found = self.trouble()
            if found != self.problem:
                if found:
                    self.log.write("ERROR", "elasticsearch-service", found)
                else:
                    self.log.write("INFO", "status", "Kibana is now available")
                self.problem = found
            time.sleep(CHECK_SECONDS)

    def user(self, authorization: str | None, resource: str, action: str) -> str:
        """Return the name of the user of a request, who may do what it asks.

        Raises:
            Refusal: There is no such user, or it may not.
        """
        if not authorization:
            raise Refusal(UNAUTHORIZED, "Unauthorized")
        wanted = {"application": APPLICATION, "resources": [resource], "privileges": [f"api:{action}"]}
        try:
            status, content = self.ask(
                "POST", "/_security/user/_has_privileges", {"application": [wanted]}, authorization
            )
        except OSError as error:
            raise Refusal(UNAVAILABLE, str(error)) from error
        if status != OK:
            raise Refusal(UNAUTHORIZED, "[security_exception]: unable to authenticate user for REST request")
        if not content["has_all_requested"]:
            raise Refusal(FORBIDDEN, f"User {content['username']} lacks the privilege api:{action} on {resource}")
        return str(content["username"])

    def status(self, authorization: str | None) -> tuple[int, dict[str, Any]]:
        """Return what the health check answers; details are for users only."""
        level = "unavailable" if self.problem else "available"
        overall = {"level": level, "summary": self.problem or "All services and plugins are available"}
        code = UNAVAILABLE if self.problem else OK
        try:
            self.user(authorization, "*", "read")
        except Refusal as refusal:
            if refusal.status != FORBIDDEN:
                return code, {"status": {"overall": {"level": level}}}
        return code, {
            "name": self.settings.get("server.name", ""),
            "uuid": self.uuid,
            "version": {"number": self.version, "build_flavor": "traditional"},
            "status": {"overall": overall, "core": {"elasticsearch": overall}, "plugins": {}},
            "metrics": {},
            "product": NAME,
            "standin": IS_A_STANDIN,
        }


def objects_of(body: bytes, content_type: str) -> list[dict[str, Any]]:
    """Return the objects of an uploaded file of lines in JSON."""
    message = BytesParser(policy=policy.HTTP).parsebytes(f"Content-Type: {content_type}\r\n\r\n".encode() + body)
    for part in message.iter_parts() if message.is_multipart() else ():
        if str(part.get_filename() or "").endswith(".ndjson"):
            lines = part.get_payload(decode=True).decode("utf-8").splitlines()
            found = [json.loads(line) for line in lines if line.strip()]
            return [line for line in found if "type" in line and "id" in line]
    raise Refusal(400, "Invalid file extension .")


class Handler(BaseHTTPRequestHandler):
    """Answers as Kibana does."""

    server_version = NAME
    sys_version = ""
    timeout = 60
    kibana: Kibana

    def log_message(self, *_words: object) -> None:
        """Stay silent."""

    def send(self, status: int, content: object, kind: str = "application/json; charset=utf-8") -> None:
        """Send one answer."""
        body = content.encode() if isinstance(content, str) else json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("kbn-name", str(self.kibana.settings.get("server.name", "")))
        self.send_header("Content-Length", "0" if status == NO_CONTENT else str(len(body)))
        self.end_headers()
        if status != NO_CONTENT:
            self.wfile.write(body)

    def answer(self) -> None:
        """Answer one request."""
        length = int(self.headers.get("Content-Length") or 0)
        body = self.rfile.read(min(length, MAX_BODY))
        address = urlsplit(self.path)
        query = {name: values[-1] for name, values in parse_qs(address.query).items()}
        try:
            if address.path == "/api/status":
                self.send(*self.kibana.status(self.headers.get("Authorization")))
            elif self.kibana.problem:
                self.send(UNAVAILABLE, NOT_READY, "text/plain")
            elif address.path in ("/", "/login", "/app/home"):
                self.send(OK, f"<!doctype html><title>{NAME}</title><p>{IS_A_STANDIN}</p>", "text/html")
            else:
                with self.kibana.store.lock:
                    self.send(*self.act(address.path, query, body))
        except Refusal as refusal:
            self.send(refusal.status, {"statusCode": refusal.status, "error": NAME, "message": str(refusal)})

    do_GET = do_POST = do_PUT = do_DELETE = answer

    def act(self, path: str, query: dict[str, str], body: bytes) -> tuple[int, Any]:
        """Do what a request asks of the API, as its user."""
        found = re.fullmatch(r"(?:/s/([^/]+))?/api/(.+)", path)
        if not found:
            raise Refusal(NOT_FOUND, "Not Found")
        space, words = found[1] or "default", [unquote(word) for word in found[2].split("/")]
        if self.command != "GET" and "kbn-xsrf" not in self.headers:
            raise Refusal(400, "Request must contain a kbn-xsrf header.")
        is_reading = self.command == "GET" or words[-1] == "_export"
        resource = "*" if words[0] == "spaces" and not is_reading else f"space:{space}"
        user = self.kibana.user(self.headers.get("Authorization"), resource, "read" if is_reading else "write")
        store = self.kibana.store
        if words[:2] == ["saved_objects", "_import"]:
            lines = objects_of(body, self.headers.get("Content-Type", ""))
            return OK, store.take(space, lines, overwrite=query.get("overwrite") == "true")
        try:
            content = json.loads(body) if body else {}
        except ValueError:
            raise Refusal(400, "Invalid request payload JSON format") from None
        match self.command, words:
            case "GET", ["spaces", "space"]:
                return OK, list(store.content["spaces"].values())
            case "POST", ["spaces", "space"]:
                return OK, store.put_space(content, None)
            case "PUT", ["spaces", "space", identifier]:
                return OK, store.put_space(content, identifier)
            case "DELETE", ["spaces", "space", identifier]:
                store.remove_space(identifier)
                return NO_CONTENT, ""
            case "POST", ["saved_objects", "_export"]:
                lines = [json.dumps(entry) for entry in store.export(space, content.get("type", []))]
                return OK, "\n".join(lines)
            case "DELETE", ["saved_objects", kind, identifier]:
                store.remove_object(space, kind, identifier)
                return OK, {}
            case "GET", ["alerting", "rules", "_find"]:
                rules = list(store.part("rules", space).values())
                size, page = int(query.get("per_page", "10")), int(query.get("page", "1"))
                shown = rules[(page - 1) * size : page * size]
                return OK, {"page": page, "per_page": size, "total": len(rules), "data": shown}
            case "GET", ["alerting", "rule", identifier]:
                return OK, store.rule(space, identifier)
            case ("POST" | "PUT") as method, ["alerting", "rule", identifier]:
                return OK, store.put_rule(space, identifier, content, user, new=method == "POST")
            case "POST", ["alerting", "rule", identifier, ("_enable" | "_disable") as verb]:
                store.switch_rule(space, identifier, on=verb == "_enable")
                return NO_CONTENT, ""
            case "DELETE", ["alerting", "rule", identifier]:
                store.remove_rule(space, identifier)
                return NO_CONTENT, ""
        raise Refusal(NOT_FOUND, "Not Found")


def main() -> None:
    """Run Kibana's program, as far as a service needs it."""
    if os.geteuid() == 0:
        sys.exit("Kibana should not be run as root.  Use --allow-root to continue.")
    try:
        settings = load()
    except ConfigurationError as error:
        print(f"\n FATAL  Error: {error}\n", file=sys.stderr, flush=True)
        sys.exit(error.code)
    log = Log(settings)
    log.write("INFO", "root", IS_A_STANDIN)
    Handler.kibana = Kibana(settings, log)
    address = (str(settings.get("server.host", "localhost")), int(settings.get("server.port", 5601)))
    try:
        server = ThreadingHTTPServer(address, Handler)
    except OSError as error:
        print(f"\n FATAL  Error: Port {address[1]}: {error.strerror}\n", file=sys.stderr, flush=True)
        sys.exit(1)
    server.daemon_threads = True
    if settings.get("server.ssl.enabled"):
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(settings.get("server.ssl.certificate"), settings.get("server.ssl.key"))
        # The handshake of a slow client must not keep the others waiting.
        server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    if pid_file := settings.get("pid.file"):
        Path(pid_file).write_text(f"{os.getpid()}\n", encoding="ascii")
    threading.Thread(target=Handler.kibana.watch, daemon=True).start()
    log.write("INFO", "http.server.Kibana", f"http server running at https://{address[0]}:{address[1]}")
    server.serve_forever()
