"""Who is told of an alert, once and in time, and what an attacker or a wrong value finds."""

from __future__ import annotations

import json
import shlex
import time
import uuid
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
import testinfra
from testinfra.host import Host

if TYPE_CHECKING:
    from conftest import Apply

ONE, TWO, BANK = "alertmanager-one", "alertmanager-two", "alertmanager-bank"
AMTOOL = "/opt/alertmanager/current/bin/amtool"
CONFIGURATION = "/etc/alertmanager/alertmanager.yml"

Ask = Callable[..., tuple[int, str]]


@pytest.fixture(scope="session")
def servers() -> dict[str, Host]:
    """Connect to the hosts of Alertmanager."""
    return {name: testinfra.get_host(f"docker://{name}") for name in (ONE, TWO)}


@pytest.fixture(scope="session")
def bank() -> Host:
    """Connect to the host that is told."""
    return testinfra.get_host(f"docker://{BANK}")


@pytest.fixture(scope="session")
def ask(servers: dict[str, Host], secrets: dict[str, str]) -> Ask:
    """Return a function that asks a member as the operator: the status and the answer."""

    def call(
        name: str, path: str, body: object = None, password: str | None = None, scheme: str = "https"
    ) -> tuple[int, str]:
        login = "operator:" + (secrets["vault_alertmanager_web_password"] if password is None else password)
        settings = 'user = "' + login.replace("\\", "\\\\").replace('"', '\\"') + '"\n' if login[-1] != ":" else ""
        command = "curl --silent --max-time 10 --cacert /etc/pki/bank/alertmanager/ca.crt --config - "
        command += "--write-out '\\n%{http_code}'"
        if body is not None:
            command += f" --header 'Content-Type: application/json' --data-binary {shlex.quote(json.dumps(body))}"
        answer = servers[name].run(
            f"printf %s {shlex.quote(settings)} | {command} {scheme}://{name}.bank.internal:9093{path}"
        )
        text, _, code = answer.stdout.rpartition("\n")
        return int(code), text

    return call


def notifications(bank: Host, mark: str) -> list[dict[str, Any]]:
    """Return what the bank and the chat were told about the alerts of a mark, in order."""
    lines = bank.run("cat /root/notifications.ndjson").stdout.splitlines()
    found = []
    for line in lines:
        entry = json.loads(line)
        entry["alerts"] = [alert for alert in entry["body"]["alerts"] if alert["labels"].get("mark") == mark]
        if entry["alerts"]:
            found.append(entry)
    return found


def told(bank: Host, mark: str, path: str, count: int = 1, seconds: float = 40) -> list[dict[str, Any]]:
    """Return the notifications of a path, as soon as there are so many."""
    end = time.monotonic() + seconds
    while True:
        found = [entry for entry in notifications(bank, mark) if entry["path"] == path]
        if len(found) >= count or time.monotonic() > end:
            return found
        time.sleep(0.5)


def alert(mark: str, name: str, severity: str, *, over: bool = False, **labels: str) -> dict[str, Any]:
    """Return an alert as Prometheus sends it."""
    now = datetime.now(UTC)
    ends = now - timedelta(seconds=1) if over else now + timedelta(minutes=5)
    return {
        "labels": {"alertname": name, "severity": severity, "site": mark, "mark": mark} | labels,
        "annotations": {"summary": f"{name} happens", "description": "of which there is much to say"},
        "startsAt": (now - timedelta(seconds=30)).isoformat(),
        "endsAt": ends.isoformat(),
    }


def send(ask: Ask, *alerts: dict[str, Any]) -> None:
    """Tell both members, as Prometheus does."""
    for name in (ONE, TWO):
        assert ask(name, "/api/v2/alerts", list(alerts)) == (200, "")


def test_members_form_a_cluster(ask: Ask) -> None:
    for name in (ONE, TWO):
        cluster = json.loads(ask(name, "/api/v2/status")[1])["cluster"]
        assert (cluster["status"], len(cluster["peers"])) == ("ready", 2)


def test_urgent_alert_is_told_once_in_seconds_and_so_is_its_end(ask: Ask, bank: Host, secrets: dict[str, str]) -> None:
    mark = uuid.uuid4().hex
    begun = time.time()
    send(ask, alert(mark, "AllApiDown", "p1"))
    first = told(bank, mark, "/api/webhook/alert")
    assert len(first) == 1
    seconds = first[0]["at"] - begun
    print(f"told after {seconds:.1f} s")
    # group_wait is 5 s; the bank must hear of a P1 within a minute.
    assert seconds < 30
    assert first[0]["token"] == f"Bearer {secrets['vault_bank_webhook_secret']}"
    assert first[0]["body"]["version"] == "4"
    assert len(told(bank, mark, "/chat")) == 1
    # The other member would tell it after some 15 s if it had not heard that it was told.
    time.sleep(20)
    assert [entry["path"] for entry in notifications(bank, mark)].count("/api/webhook/alert") == 1
    send(ask, alert(mark, "AllApiDown", "p1", over=True))
    both = told(bank, mark, "/api/webhook/alert", count=2, seconds=90)
    assert [entry["body"]["status"] for entry in both] == ["firing", "resolved"]


def test_alert_that_another_explains_is_not_told(ask: Ask, bank: Host) -> None:
    mark = uuid.uuid4().hex
    # On one site customers reach nothing, because its database is down; on another an objective is missed by far.
    # An alert that began longer ago than its group waits is told at once, so what explains it must be known before.
    send(
        ask,
        alert(mark, "PostgresqlDown", "p1", instance="db1", site=f"{mark}-south"),
        alert(mark, "ErrorBudgetBurn", "p1", slo="availability", site=f"{mark}-north"),
    )
    time.sleep(1)
    send(
        ask,
        alert(mark, "ApiCapacityReduced", "p2", instance="app1"),
        alert(mark, "InstanceDown", "p3", instance="db1", job="node"),
        alert(mark, "ApiInstanceDown", "p2", instance="app1"),
        alert(mark, "PostgresqlDown", "p2", instance="db1", job="postgresql"),
        alert(mark, "HaproxyExporterDown", "p2", instance="lb1", job="haproxy"),
        alert(mark, "BankWithoutServer", "p1", site=f"{mark}-south"),
        alert(mark, "ErrorBudgetBurn", "p1", slo="availability", site=f"{mark}-south"),
        # Missed by far says that it is missed by a little, too; the other objective is another matter.
        alert(mark, "ErrorBudgetBurn", "p2", slo="availability", site=f"{mark}-north"),
        alert(mark, "ErrorBudgetBurn", "p2", slo="latency", site=f"{mark}-north"),
    )
    told(bank, mark, "/api/webhook/alert", count=6, seconds=100)
    # What is told wrongly may come a moment later.
    time.sleep(5)
    names = {
        (found["labels"]["alertname"], found["labels"]["site"].removeprefix(mark), found["labels"].get("slo"))
        for entry in notifications(bank, mark)
        for found in entry["alerts"]
    }
    assert names == {
        ("ApiCapacityReduced", "", None),
        ("HaproxyExporterDown", "", None),
        ("InstanceDown", "", None),
        ("PostgresqlDown", "-south", None),
        ("ErrorBudgetBurn", "-north", "availability"),
        ("ErrorBudgetBurn", "-north", "latency"),
    }
    north = {
        (found["labels"]["severity"], found["labels"]["slo"])
        for entry in notifications(bank, mark)
        for found in entry["alerts"]
        if entry["path"] == "/api/webhook/alert" and found["labels"]["site"] == f"{mark}-north"
    }
    assert north == {("p1", "availability"), ("p2", "latency")}
    # P3 waits for business hours everywhere but in the bank's list.
    chat = {
        entry["alerts"][0]["labels"]["alertname"] for entry in notifications(bank, mark) if entry["path"] == "/chat"
    }
    assert chat == {"ApiCapacityReduced", "HaproxyExporterDown", "PostgresqlDown", "ErrorBudgetBurn"}


@pytest.mark.parametrize(
    ("labels", "receivers"),
    [
        ("severity=p1", "bank,chat"),
        ("severity=p2", "bank,chat"),
        ("severity=p3", "bank,chat"),
        ("severity=p4", "bank"),
        ("severity=p9", "bank"),
        ("alertname=Watchdog severity=p4", "nobody"),
    ],
)
def test_severity_decides_who_is_told(servers: dict[str, Host], labels: str, receivers: str) -> None:
    command = f"{AMTOOL} config routes test --config.file={CONFIGURATION} --verify.receivers={receivers} {labels}"
    answer = servers[ONE].run(command)
    assert answer.rc == 0, answer.stdout + answer.stderr


def test_strangers_are_refused(ask: Ask) -> None:
    for path in ("/api/v2/alerts", "/api/v2/status", "/metrics", "/-/reload", "/"):
        assert ask(ONE, path, password="")[0] == 401
        assert ask(ONE, path, password="wrong")[0] == 401
    assert ask(ONE, "/metrics", scheme="http")[0] == 400


def test_member_without_a_certificate_is_refused(servers: dict[str, Host]) -> None:
    connect = "openssl s_client -connect alertmanager-two.bank.internal:9094 -CAfile /etc/pki/bank/alertmanager/ca.crt"
    stranger = servers[ONE].run(f"echo | timeout 5 {connect} -tls1_2 2>&1")
    assert "handshake failure" in stranger.stdout or "bad certificate" in stranger.stdout, stranger.stdout
    key = "-cert /etc/pki/bank/alertmanager/tls.crt -key /etc/pki/bank/alertmanager/tls.key"
    assert "Verify return code: 0" in servers[ONE].run(f"echo | timeout 5 {connect} -tls1_2 {key} 2>&1").stdout


def test_secrets_are_nowhere_to_be_read(ask: Ask, servers: dict[str, Host], secrets: dict[str, str]) -> None:
    server = servers[ONE]
    shown = json.loads(ask(ONE, "/api/v2/status")[1])["config"]["original"]
    shown += server.check_output("systemctl cat alertmanager; ps -eo args; journalctl --no-pager -o cat")
    for name in ("vault_bank_webhook_secret", "vault_alertmanager_web_password"):
        assert secrets[name] not in shown
    assert server.check_output("find /etc/alertmanager /etc/pki/bank/alertmanager/tls.key -type f -perm /007") == ""
    assert (
        server.check_output("stat --format='%a %U %G' /etc/alertmanager/secrets/bank_webhook")
        == "640 root alertmanager"
    )


def test_sandbox_is_effective(servers: dict[str, Host]) -> None:
    properties = {
        "CapabilityBoundingSet": "",
        "NoNewPrivileges": "yes",
        "ProtectSystem": "strict",
        "ReadWritePaths": "/var/lib/alertmanager",
        "User": "alertmanager",
    }
    for name, value in properties.items():
        assert servers[ONE].check_output(f"systemctl show --property={name} --value alertmanager") == value, name
    assert servers[ONE].run("systemd-analyze security --threshold=15 alertmanager.service").rc == 0


def state(server: Host) -> str:
    """Return what the role may change on a host, and the running process."""
    return server.check_output(
        "find /etc/alertmanager /etc/systemd/system/alertmanager.service -type f -exec sha256sum {} + | sort;"
        " systemctl show --property=MainPID,ActiveState alertmanager"
    )


@pytest.mark.parametrize(
    ("variables", "sentence"),
    [
        ({"alertmanager_watchdog_receiver": "pager"}, "has no receiver named pager"),
        ({"alertmanager_severity_receivers": {"p1": []}}, "must name p1, p2, p3 and p4"),
        ({"alertmanager_secrets": {}}, "alertmanager_secrets lacks chat"),
        ({"alertmanager_receivers": [{"name": "bank"}, {"name": "chat"}]}, "needs a name of its own"),
        ({"vault_alertmanager_web_password": "short"}, "needs 16 to 72 bytes"),
        ({"alertmanager_receivers": [{"name": "chat", "pigeon_configs": []}]}, "pigeon_configs not found"),
    ],
)
def test_bad_value_is_refused_and_changes_nothing(
    servers: dict[str, Host], apply: Apply, variables: dict[str, object], sentence: str
) -> None:
    before = state(servers[ONE])
    answer = apply(None, "--limit", ONE, **variables)
    assert answer.failed
    assert sentence in answer.words
    assert state(servers[ONE]) == before


def test_receiver_that_left_leaves_with_its_secret_and_no_restart(servers: dict[str, Host], apply: Apply) -> None:
    process = "systemctl show --property=MainPID --value alertmanager"
    before = {name: server.check_output(process) for name, server in servers.items()}
    nobody = {"alertmanager_severity_receivers": {f"p{number}": [] for number in range(1, 5)}}
    answer = apply(alertmanager_receivers=[], alertmanager_secrets={}, **nobody)
    assert not answer.failed, answer.output
    for name, server in servers.items():
        assert server.check_output("ls /etc/alertmanager/secrets") == "bank_webhook"
        assert "chat" not in server.check_output(f"cat {CONFIGURATION}")
        assert server.check_output(process) == before[name]
    answer = apply()
    assert not answer.failed, answer.output
    assert servers[ONE].check_output("ls /etc/alertmanager/secrets").split() == ["bank_webhook", "chat"]
