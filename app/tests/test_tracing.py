"""Traces: what leaves this process, and that nothing waits for whoever collects it."""

import gzip
import json
import socket
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from click.testing import CliRunner

from bank import tracing
from bank.app import create_app
from bank.cli import main
from bank.config import ConfigError, load_settings
from bank.permissions import public
from conftest import PASSWORD, browser, configuration_text, free_port

CANARY = "canary-41c6a2"
TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
PROXIED = {"X-Forwarded-For": "203.0.113.9", "X-Forwarded-Proto": "https"}


class Collector(ThreadingHTTPServer):
    """Takes what an agent sends, as an APM server or an OTLP collector would."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.bodies, self.headers = [], []
        threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True).start()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_address[1]}"

    @property
    def text(self):
        return b"\n".join(self.bodies).decode(errors="replace")

    def elastic(self, kind):
        lines = [json.loads(line) for body in self.bodies for line in body.splitlines()]
        return [line[kind] for line in lines if kind in line]


class _Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        self.answer(b'{"version": "8.14.3"}')

    def do_POST(self):
        body = self._chunks() if "chunked" in self.headers.get("Transfer-Encoding", "") else self.rfile.read(
            int(self.headers["Content-Length"])
        )  # fmt: skip
        self.server.bodies.append(gzip.decompress(body) if self.headers.get("Content-Encoding") == "gzip" else body)
        self.server.headers.append({name.lower(): value for name, value in self.headers.items()})
        self.answer(b"", 200 if "v1" in self.path else 202)

    def answer(self, body, status=200):
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


@pytest.fixture
def collector():
    server = Collector()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def traced_app(servers, owner, tmp_path):
    """Make an application that traces to ``url``."""
    made = []

    def make(backend, url, more="sample_rate = 1.0"):
        path = tmp_path / "bank.toml"
        tables = f'[server]\ntrusted_proxies = ["127.0.0.1"]\n[tracing]\nbackend = "{backend}"\nserver_url = "{url}"\n'
        path.write_text(configuration_text(servers, log=str(tmp_path / "bank.json"), more=tables + more))
        app = create_app(load_settings(path))
        made.append(app)
        return app

    yield make
    tracing.stop()
    for app in made:
        app.extensions["bank"].engine.dispose()


def log_lines(tmp_path):
    return [json.loads(line) for line in (tmp_path / "bank.json").read_text().splitlines()]


def a_transfer(app, make_customer):
    """Log in and transfer with a canary wherever a person can type; the transfer belongs to a caller's trace."""
    payer, payee = make_customer(10_000, name=f"Name {CANARY}"), make_customer()
    client = browser(app, "127.0.0.1")
    client.log_in(payer.email)
    fields = client.fields("/transfer")
    form = {
        "from_account": str(payer.account), "to_number": payee.number, "amount": "1.50", "reference": f"for {CANARY}",
    }  # fmt: skip
    headers = {**PROXIED, "traceparent": f"00-{TRACE}-{PARENT}-00", "User-Agent": CANARY}
    response = client.post(f"/transfer?q={CANARY}", {**fields, **form}, headers=headers)
    assert response.status_code == 303
    secrets = [CANARY, PASSWORD, payer.email, payer.number, payee.number, client.session_cookie, fields["key"]]
    return payer, secrets


def test_elastic_gets_the_span_tree_of_a_transfer(traced_app, collector, make_customer, tmp_path):
    app = traced_app("elastic", collector.url, 'sample_rate = 1.0\nsecret_token = "let-me-in"')
    payer, secrets = a_transfer(app, make_customer)
    tracing.stop()

    assert {headers["authorization"] for headers in collector.headers} == {"Bearer let-me-in"}
    service = collector.elastic("metadata")[0]["service"]
    assert (service["name"], service["environment"], service["node"]["configured_name"]) == ("bank", "test", "app-test")
    transactions = {found["name"]: found for found in collector.elastic("transaction")}
    assert "POST /login" in transactions
    found = transactions["POST /transfer"]
    assert (found["trace_id"], found["parent_id"]) == (TRACE, PARENT)
    assert (found["result"], found["outcome"], found["sampled"]) == ("HTTP 3xx", "success", True)
    assert found["context"]["user"] == {"id": str(payer.id)}
    assert found["context"]["tags"]["outcome"] == "completed"
    done = next(line for line in log_lines(tmp_path) if line["message"] == "transfer completed")
    assert found["context"]["tags"]["transfer_id"] == done["bank"]["transfer"]["id"]
    assert (done["trace"]["id"], done["transaction"]["id"]) == (TRACE, found["id"])

    spans = {span["id"]: span for span in collector.elastic("span")}
    mine = [span for span in spans.values() if span["transaction_id"] == found["id"]]
    whole = next(span for span in mine if span["name"] == "transaction")
    assert next(span for span in mine if span["name"] == "transfer")["parent_id"] == found["id"]
    assert spans[whole["parent_id"]]["name"] == "transfer"
    inside = [span["name"] for span in mine if span["parent_id"] == whole["id"]]
    assert inside == ["INSERT idempotency_keys", "fraud", "INSERT journal_entries"]
    judging = next(span for span in mine if span["name"] == "fraud")
    (asked,) = [span for span in mine if span["parent_id"] == judging["id"]]
    assert asked["name"] == "SELECT fraud_decisions"
    # A new payee, and the load balancer's address for the visitor is not that of the log-in.
    assert found["context"]["tags"]["fraud_score"] == 23
    questions = [asked, *(span for span in mine if span["parent_id"] == whole["id"] and span is not judging)]
    assert {(span["subtype"], span["context"]["db"]["type"]) for span in questions} == {("postgresql", "sql")}
    assert any(span["subtype"] == "redis" and span["name"] == "GET" for span in mine)
    login = [span["name"] for span in spans.values() if span["transaction_id"] == transactions["POST /login"]["id"]]
    assert "argon2" in login
    for secret in secrets:
        assert secret not in collector.text


def test_errors_reach_elastic_without_values(traced_app, collector, tmp_path, servers):
    app = traced_app("elastic", collector.url)

    @app.get("/explode")
    @public
    def explode():
        from sqlalchemy import text

        from bank.resources import resources

        with resources().engine.connect() as connection:
            connection.execute(text("SELECT CAST(:canary AS integer)"), {"canary": CANARY})

    client = browser(app)
    response = client.get("/explode", headers={"Cookie": f"x={CANARY}"}, query_string={"q": CANARY})
    assert response.status_code == 500
    tracing.stop()
    (error,) = collector.elastic("error")
    assert error["exception"]["message"] == "value refused"
    (transaction,) = collector.elastic("transaction")
    assert error["trace_id"] == transaction["trace_id"]
    assert transaction["outcome"] == "failure"
    assert any(span["outcome"] == "failure" for span in collector.elastic("span"))
    # What the customer reads out to the bank finds the trace and the log.
    assert transaction["trace_id"] in response.get_data(as_text=True)
    assert {line["trace"]["id"] for line in log_lines(tmp_path) if "trace" in line} == {transaction["trace_id"]}
    for secret in (CANARY, servers.app_password, servers.secret_key):
        assert secret not in collector.text


def test_opentelemetry_gets_the_same(traced_app, collector, make_customer, tmp_path):
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

    app = traced_app("opentelemetry", collector.url, 'sample_rate = 1.0\napi_key = "let-me-in"')
    payer, secrets = a_transfer(app, make_customer)
    tracing.stop()
    assert {headers["authorization"] for headers in collector.headers} == {"ApiKey let-me-in"}
    spans = {}
    for body in collector.bodies:
        for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
            assert {"service.name", "deployment.environment.name"} <= {
                item.key for item in resource.resource.attributes
            }
            spans |= {span.span_id: span for scope in resource.scope_spans for span in scope.spans}
    found = next(span for span in spans.values() if span.name == "POST /transfer")
    assert (found.trace_id.hex(), found.parent_span_id.hex()) == (TRACE, PARENT)
    attributes = {item.key: item.value for item in found.attributes}
    assert attributes["bank.outcome"].string_value == "completed"
    assert attributes["user.id"].string_value == str(payer.id)
    assert attributes["http.response.status_code"].int_value == 303
    done = next(line for line in log_lines(tmp_path) if line["message"] == "transfer completed")
    assert attributes["bank.transfer_id"].string_value == done["bank"]["transfer"]["id"]
    assert (done["trace"]["id"], done["transaction"]["id"]) == (TRACE, found.span_id.hex())
    whole = next(span for span in spans.values() if span.name == "transaction" and span.trace_id == found.trace_id)
    assert spans[whole.parent_span_id].name == "transfer"
    assert spans[whole.parent_span_id].parent_span_id == found.span_id
    inside = {span.name for span in spans.values() if span.parent_span_id == whole.span_id}
    assert inside == {"INSERT idempotency_keys", "fraud", "INSERT journal_entries"}
    assert any(span.name == "GET" and span.parent_span_id == found.span_id for span in spans.values())
    for secret in secrets:
        assert secret not in collector.text


@pytest.mark.parametrize("backend", ["elastic", "opentelemetry"])
def test_an_unsampled_request_is_the_same_in_the_log_and_nothing_to_the_tracer(
    traced_app, collector, make_customer, tmp_path, monkeypatch, backend
):
    app = traced_app(backend, collector.url, "sample_rate = 0.0")
    for name in ("begin_request", "end_request", "span", "label", "current_span"):
        monkeypatch.setattr(tracing._active, name, lambda *_: pytest.fail("the tracer was asked"))
    a_transfer(app, make_customer)
    tracing.stop()
    assert not collector.bodies
    done = next(line for line in log_lines(tmp_path) if line["message"] == "transfer completed")
    assert done["trace"]["id"] == TRACE
    assert len(done["transaction"]["id"]) == 16
    assert "span" not in done


def test_how_much_is_sampled_is_not_the_callers_choice(traced_app, collector):
    client = browser(traced_app("elastic", collector.url, "sample_rate = 0.5"), "127.0.0.1")
    for _ in range(64):
        client.get("/login", headers={**PROXIED, "traceparent": f"00-{TRACE}-{PARENT}-01"})
    tracing.stop()
    found = collector.elastic("transaction")
    assert 8 < len(found) < 56  # fails once in a hundred million runs
    assert {transaction["sample_rate"] for transaction in found} == {0.5}


def test_an_error_of_an_unsampled_request_is_sent(traced_app, collector, tmp_path):
    app = traced_app("elastic", collector.url, "sample_rate = 0.0")

    @app.get("/explode")
    @public
    def explode():
        raise ZeroDivisionError

    client = browser(app)
    assert client.get("/explode").status_code == 500
    assert client.get("/login").status_code == 200
    tracing.stop()
    (error,) = collector.elastic("error")
    assert not collector.elastic("transaction")
    line = next(line for line in log_lines(tmp_path) if line["message"] == "request failed")
    assert error["trace_id"] == line["trace"]["id"]
    assert error["transaction_id"] == line["transaction"]["id"]
    assert error["transaction"] == {"sampled": False, "type": "request", "name": "GET /explode"}


@pytest.fixture
def silent_port():
    """A port that takes connections and never answers."""
    with socket.create_server(("127.0.0.1", 0), backlog=50) as listener:
        yield listener.getsockname()[1]


@pytest.mark.parametrize("backend", ["elastic", "opentelemetry"])
@pytest.mark.parametrize("kind", ["dead", "silent"])
def test_nothing_waits_for_the_collector(traced_app, silent_port, backend, kind):
    port = free_port() if kind == "dead" else silent_port
    client = browser(traced_app(backend, f"http://127.0.0.1:{port}"))
    slowest = 0.0
    deadline = time.monotonic() + 1
    while time.monotonic() < deadline:
        started = time.perf_counter()
        assert client.get("/login").status_code == 200
        slowest = max(slowest, time.perf_counter() - started)
        time.sleep(0.02)
    assert slowest < 2.5  # waiting would take five seconds
    started = time.perf_counter()
    tracing.stop()
    assert time.perf_counter() - started < 8  # a worker's stop is bounded as well


def test_only_load_balancers_continue_a_trace(traced_app, client, app, tmp_path):
    traced = browser(traced_app("none", ""), "127.0.0.1")
    headers = {"traceparent": f"00-{TRACE}-{PARENT}-01", "X-Request-ID": "from-the-proxy-1"}
    traced.get("/nothing", headers={**headers, **PROXIED})
    client.get("/nothing", headers={**headers, **PROXIED})  # has no trusted proxies
    for wrong in (
        "",
        "00-" + "0" * 32 + f"-{PARENT}-01",
        f"ff-{TRACE}-{PARENT}-01",
        f"00-{TRACE}-{PARENT}-01\tx",
        "x" * 9000,
    ):
        traced.get("/nothing", headers={**PROXIED, "traceparent": wrong, "X-Request-ID": f'"{wrong}'})
    ids = [(line["trace"]["id"], line["http"]["request"]["id"]) for line in log_lines(tmp_path) if "trace" in line]
    assert ids[0] == (TRACE, "from-the-proxy-1")
    assert len(ids) == 7
    assert all(trace == request != TRACE and len(trace) == 32 for trace, request in ids[1:])


def test_programs_get_problem_details(app, client):
    response = client.get("/api/nothing")
    assert response.status_code == 404
    assert response.content_type == "application/problem+json"
    assert response.json["type"] == "about:blank"
    assert response.json["title"] == "Not Found"
    assert response.json["reference"] == response.headers["X-Request-ID"]
    assert response.headers["Content-Security-Policy"]


@pytest.mark.parametrize(
    ("table", "sentence"),
    [
        ('backend = "elastic"', "tracing: server_url must be an http(s) address"),
        ('backend = "elastic"\nserver_url = "https://u:p@apm"', "tracing: server_url must be"),
        ('secret_token = "a"\napi_key = "b"', "tracing: secret_token and api_key cannot be set together"),
        ("sample_rate = 1.5", "tracing.sample_rate"),
    ],
)
def test_settings_are_checked(servers, tmp_path, table, sentence):
    path = tmp_path / "bank.toml"
    path.write_text(configuration_text(servers, more=f"[tracing]\n{table}"))
    with pytest.raises(ConfigError, match=sentence.replace("(", r"\(").replace(")", r"\)")):
        load_settings(path)


def test_check_config_names_a_missing_extra(servers, tmp_path, monkeypatch):
    path = tmp_path / "bank.toml"
    path.write_text(
        configuration_text(servers, more='[tracing]\nbackend = "opentelemetry"\nserver_url = "http://c:4318"')
    )
    run = CliRunner().invoke(main, ["check-config"], env={"BANK_CONFIG": str(path)})
    assert run.exit_code == 0
    monkeypatch.setattr(tracing, "OPENTELEMETRY_PACKAGES", ("opentelemetry_not_installed.sdk",))
    run = CliRunner().invoke(main, ["check-config"], env={"BANK_CONFIG": str(path)})
    assert run.exit_code == 1
    assert "bank[opentelemetry]" in run.output
