"""What an instance of the bank finds at APM Server, and an auditor on its host. In the lab it is a stand-in."""

import gzip
import json
import shlex
import time
from collections.abc import Callable
from typing import Any

import pytest
import testinfra
from testinfra.host import Host

TRACE = "apm-server-trace1"
NAME = f"{TRACE}.bank.internal"
CONFIGURATION = "/etc/apm-server"
UNIT = "apm-server.service"
METADATA = {"metadata": {"service": {"name": "bank", "agent": {"name": "python", "version": "6.24.0"}}}}
TRANSACTION = {
    "id": "0123456789abcdef",
    "trace_id": "0123456789abcdef0123456789abcdef",
    "type": "request",
    "name": "POST /transfers",
    "duration": 12.5,
    "span_count": {"started": 1},
}
SPAN = {
    "id": "fedcba9876543210",
    "trace_id": TRANSACTION["trace_id"],
    "parent_id": TRANSACTION["id"],
    "name": "commit",
    "type": "db",
    "duration": 3.5,
    "start": 1.0,
}

Apply = Callable[..., Any]
Send = Callable[..., tuple[int, Any]]


@pytest.fixture(scope="module")
def host() -> Host:
    """Return the host of APM Server, on which Elasticsearch runs, too."""
    return testinfra.get_host(f"docker://{TRACE}")


@pytest.fixture(scope="module")
def send(host: Host, secrets: dict[str, str]) -> Send:
    """Return a function that sends bytes as an agent does, and returns status and answer."""

    def act(path: str, body: bytes | None = None, *headers: str, token: str | None = None) -> tuple[int, Any]:
        shown = secrets["vault_apm_server_secret_token"] if token is None else token
        escaped = f"Authorization: Bearer {shown}".replace("\\", "\\\\").replace('"', '\\"')
        settings = "\n".join(
            [*(f'header = "{header}"' for header in headers), *([f'header = "{escaped}"'] if shown else [])]
        )
        command = "curl --silent --max-time 20 --cacert /etc/pki/bank/apm-server/ca.crt --config /tmp/curl.conf "
        command += "--write-out '\\n%{http_code}' "
        feed = ""
        if body is not None:
            octal = "".join(f"\\{byte:03o}" for byte in body)
            feed = f"printf '{octal}' | "
            command += "--data-binary @- "
        script = f"printf %s {shlex.quote(settings)} > /tmp/curl.conf; {feed}{command} https://{NAME}:8200{path}"
        content, _, status = host.run_expect([0], script).stdout.rpartition("\n")
        return int(status), json.loads(content) if content.startswith("{") else content

    return act


def events(*lines: dict[str, Any]) -> bytes:
    """Return the body of a request in Elastic's protocol."""
    return "\n".join(json.dumps(line) for line in (METADATA, *lines)).encode()


def taken(host: Host) -> dict[str, int]:
    """Return how many events of each kind were taken since the start."""
    stats = json.loads(host.check_output("curl --silent --fail --max-time 10 http://127.0.0.1:5069/stats"))
    return stats["apm-server"]["taken"]


def unchanged(host: Host) -> tuple[str, str]:
    """Return what tells whether configuration or process changed."""
    files = host.check_output(
        f"find {CONFIGURATION} /etc/systemd/system -type f -exec sha256sum {{}} + | sort | sha256sum"
    )
    return files, host.check_output(f"systemctl show {UNIT} --property=MainPID,NRestarts")


def wait_until_it_answers(host: Host) -> None:
    """Wait until the port is open."""
    deadline = time.monotonic() + 30
    while host.run(f"curl --silent --fail --insecure --max-time 5 https://{NAME}:8200/").rc != 0:
        assert time.monotonic() < deadline
        time.sleep(1)


def test_package_says_that_it_is_a_standin(host: Host, send: Send) -> None:
    assert "apm-server-standin" in host.check_output("rpm -qi apm-server")
    assert "stores none" in send("/")[1]["standin"]
    assert "stand-in" in host.check_output(f"journalctl --no-pager --unit={UNIT}")


def test_who_has_the_secret_learns_that_elasticsearch_takes_the_password(send: Send) -> None:
    status, answer = send("/")
    assert (status, answer["publish_ready"]) == (200, True)
    assert answer["version"].startswith("8.")
    # Others learn that it runs, and nothing else.
    assert send("/", token="") == (200, "")
    assert send("/", token="not the secret") == (200, "")


def test_traces_are_taken_with_the_secret_alone(host: Host, send: Send) -> None:
    body, before = events({"transaction": TRANSACTION}, {"span": SPAN}), taken(host)
    kind = "Content-Type: application/x-ndjson"
    assert send("/intake/v2/events", body, kind)[0] == 202
    assert send("/intake/v2/events", gzip.compress(body), kind, "Content-Encoding: gzip")[0] == 202
    status, answer = send("/intake/v2/events", body, kind, token="")
    assert status == 401
    assert "authentication failed" in answer["error"]
    assert send("/intake/v2/events", body, kind, token="x" * 32)[0] == 401
    after = taken(host)
    assert (after["transaction"] - before.get("transaction", 0), after["span"] - before.get("span", 0)) == (2, 2)
    listed = host.check_output("tail --lines=1 /var/lib/apm-server/standin-events.ndjson")
    assert json.loads(listed)["trace_id"] == TRANSACTION["trace_id"]


def test_events_that_are_wrong_are_refused_with_the_reason(send: Send) -> None:
    lacking = {key: value for key, value in TRANSACTION.items() if key != "trace_id"}
    status, answer = send("/intake/v2/events", events({"transaction": lacking}, {"span": SPAN}))
    assert (status, answer["accepted"]) == (400, 1)
    assert "trace_id" in answer["errors"][0]["message"]
    assert send("/intake/v2/events", b'{"transaction": {}}')[0] == 400
    assert send("/intake/v2/events", b"\x00\x01", "Content-Encoding: gzip")[0] == 400
    large = gzip.compress(events({"transaction": TRANSACTION | {"name": "x" * 400_000}}))
    status, answer = send("/intake/v2/events", large, "Content-Encoding: gzip")
    assert (status, answer["errors"][0]["message"]) == (400, "event exceeded the permitted size.")


def message(number: int, content: bytes) -> bytes:
    """Return one field of a protocol buffer."""
    assert len(content) < 128
    return bytes([number << 3 | 2, len(content)]) + content


def test_opentelemetry_is_taken_too(host: Host, send: Send) -> None:
    span = message(1, bytes(range(16))) + message(2, bytes(range(8))) + message(5, b"GET /")
    body, before = message(1, message(2, message(2, span))), taken(host).get("otlp_span", 0)
    kind = "Content-Type: application/x-protobuf"
    assert send("/v1/traces", body, kind)[0] == 200
    assert send("/v1/traces", body, kind, token="")[0] == 401
    assert send("/v1/traces", body[:-3], kind)[0] == 400
    assert taken(host)["otlp_span"] - before == 1


def test_nothing_is_served_without_tls(host: Host) -> None:
    assert host.run(f"curl --silent --fail --max-time 5 http://{NAME}:8200/").rc != 0
    listening = {line.split()[3] for line in host.check_output("ss -Hltn").splitlines()}
    assert {address for address in listening if address.endswith(":5069")} == {"127.0.0.1:5069"}
    assert not {"0.0.0.0:8200", "*:8200", "127.0.0.1:8200"} & listening


def test_writer_adds_traces_and_nothing_else(host: Host, secrets: dict[str, str]) -> None:
    password = secrets["vault_apm_server_elasticsearch_password"].replace("\\", "\\\\").replace('"', '\\"')
    settings = shlex.quote(f'user = "apm_server:{password}"\n')

    def ask(method: str, path: str, body: str = "") -> int:
        command = (
            f"printf %s {settings} | curl --silent --config - --cacert /etc/elasticsearch/certs/ca.crt --max-time 20 "
            f"--output /dev/null --write-out '%{{http_code}}' --request {method} "
            f"--header 'Content-Type: application/json' --data '{body}' 'https://{NAME}:9200{path}'"
        )
        return int(host.check_output(command))

    assert ask("PUT", f"/traces-apm-test/_create/{time.time_ns()}", '{"@timestamp": "2026-11-02T08:15:30Z"}') == 201
    assert ask("PUT", "/app-logs-2026.11.02/_create/1", "{}") == 403
    assert ask("GET", "/traces-apm-test/_search") == 403
    assert ask("GET", "/_security/user") == 403


def test_secrets_are_in_the_keystore_alone(host: Host, secrets: dict[str, str]) -> None:
    for name in ("vault_apm_server_secret_token", "vault_apm_server_elasticsearch_password"):
        # Its first half has no character that a file could have written otherwise.
        part = secrets[name][:20]
        assert (
            host.run(f"grep --recursive --quiet --fixed-strings {part} /etc /run /var/lib/apm-server /var/log").rc == 1
        )
        assert part not in host.check_output("cat /proc/[0-9]*/cmdline | tr '\\0' ' '")
        assert host.run(f"journalctl --no-pager | grep --fixed-strings {part}").rc == 1
    keystore = host.file(f"{CONFIGURATION}/apm-server.keystore")
    assert (keystore.user, keystore.mode) == ("apm-server", 0o600)
    assert host.file(f"{CONFIGURATION}/apm-server.yml").mode == 0o640
    left = host.check_output(f"find {CONFIGURATION} -name '*~' -o -name '*.new' -o -name '*.rpmnew'")
    assert left == ""


def test_service_is_sandboxed(host: Host) -> None:
    names = "NoNewPrivileges,ProtectSystem,PrivateDevices,ProtectHome,User,MemoryMax,CapabilityBoundingSet"
    shown = host.check_output(f"systemctl show {UNIT} --property={names}")
    properties = dict(line.split("=", 1) for line in shown.splitlines())
    assert (properties["User"], properties["ProtectSystem"]) == ("apm-server", "strict")
    assert {properties[name] for name in ("NoNewPrivileges", "PrivateDevices", "ProtectHome")} == {"yes"}
    assert (properties["CapabilityBoundingSet"], properties["MemoryMax"]) == ("", str(1024**3))
    assert "Overall exposure level" in host.check_output(f"systemd-analyze security {UNIT} --threshold=30")


def test_comes_back_after_it_was_killed(host: Host, send: Send) -> None:
    host.check_output(f"systemctl kill --signal=KILL {UNIT}")
    wait_until_it_answers(host)
    assert send("/intake/v2/events", events({"span": SPAN}))[0] == 202


def test_bad_values_are_refused(host: Host, apply: Apply) -> None:
    before = unchanged(host)
    run = apply(
        apm_server_secret_token="with a blank in it",
        apm_server_elasticsearch_password="short",
        apm_server_rum=True,
        apm_server_event_bytes=10,
        apm_server_version="8.13.0",
        apm_server_settings={"apm-server.auth.secret_token": ""},
    )
    assert run.failed
    for sentence in (
        "apm_server_secret_token (vault_apm_server_secret_token) must have 16 printable ASCII",
        "apm_server_elasticsearch_password (vault_apm_server_elasticsearch_password) is shorter than 16",
        "apm_server_rum_origins is empty",
        "apm_server_event_bytes is 10",
        "this role runs 8.14.0 and later",
        "apm_server_settings must not hold apm-server.auth.secret_token",
    ):
        assert sentence in run.words
    assert unchanged(host) == before


def test_a_wrong_password_changes_nothing(host: Host, apply: Apply, send: Send) -> None:
    before = unchanged(host)
    run = apply(apm_server_elasticsearch_password="not the right password")
    assert run.failed
    assert "answered 401 to user apm_server" in run.words
    assert "No file of the configuration was changed" in run.words
    assert unchanged(host) == before
    assert send("/")[1].get("publish_ready") is True


def test_a_broken_setting_changes_nothing(host: Host, apply: Apply) -> None:
    before = unchanged(host)
    run = apply(apm_server_settings={"apm-server.max_header_size": 1, "logging": {"level": "${NOT_THERE}"}})
    assert run.failed
    assert "missing field accessing" in run.words
    assert unchanged(host) == before
