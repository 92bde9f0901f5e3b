"""Who is told of an alert, once and in time, and what an attacker or a wrong value finds."""

from __future__ import annotations

import email
import email.policy
import hashlib
import json
import re
import shlex
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
import testinfra
from clients import caller
from monitoring import assert_changed_one_after_another, assert_stopped_at_the_first
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


def heard(bank: Host, mark: str) -> list[dict[str, Any]]:
    """Return all that anybody was told about the alerts of a mark, in order."""
    lines = bank.run("cat /root/notifications.ndjson").stdout.splitlines()
    return [json.loads(line) for line in lines if mark in line]


def notifications(bank: Host, mark: str) -> list[dict[str, Any]]:
    """Return what the bank and the chat were told about the alerts of a mark, in order."""
    found = [entry for entry in heard(bank, mark) if entry["path"] in {"/api/webhook/alert", "/chat"}]
    for entry in found:
        entry["alerts"] = [alert for alert in entry["body"]["alerts"] if alert["labels"].get("mark") == mark]
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
        "annotations": {
            "summary": f"{name} happens",
            "description": "of which there is much to say",
            "runbook_url": f"docs/runbooks/availability.md#{name.lower()}",
            "dashboard_url": "/d/overview",
        },
        "startsAt": (now - timedelta(seconds=30)).isoformat(),
        "endsAt": ends.isoformat(),
    }


def send(ask: Ask, *alerts: dict[str, Any]) -> None:
    """Tell both members, as Prometheus does."""
    for name in (ONE, TWO):
        assert ask(name, "/api/v2/alerts", list(alerts)) == (200, "")


def test_members_form_a_cluster(ask: Ask) -> None:
    def clusters() -> list[tuple[str, int]]:
        found = [json.loads(ask(name, "/api/v2/status")[1])["cluster"] for name in (ONE, TWO)]
        return [(cluster["status"], len(cluster["peers"])) for cluster in found]

    # A member that was just started settles first.
    end = time.monotonic() + 60
    while (found := clusters()) != [("ready", 2)] * 2:
        assert time.monotonic() < end, found
        time.sleep(1)


@dataclass(frozen=True)
class Page:
    """An urgent alert that began and ended: what was told when it had lasted for a while, and in the end."""

    mark: str
    begun: float
    meanwhile: list[dict[str, Any]]
    after: list[dict[str, Any]]

    def told(self, path: str) -> list[dict[str, Any]]:
        """Return what was told to whoever is behind a path."""
        return [entry["body"] for entry in self.after if entry["path"].startswith(path)]


# As many ways as a P1 takes besides tickets, which are followed up by a program.
WAYS = ["/api/webhook/alert", "/chat", "/slack/", "/teams/", "/v2/enqueue", "mail", "/hook/"]


@pytest.fixture(scope="session")
def page(ask: Ask, bank: Host) -> Page:
    """Have an urgent alert begin and end, once for all tests about what is told of it."""
    mark = uuid.uuid4().hex[:12]
    begun = time.time()
    send(ask, alert(mark, "AllApiDown", "p1"))
    told(bank, mark, "/api/webhook/alert")
    # The other member would tell it after some 15 s if it had not heard that it was told.
    time.sleep(20)
    meanwhile = heard(bank, mark)
    send(ask, alert(mark, "AllApiDown", "p1", over=True))
    end = time.monotonic() + 90
    while len(after := heard(bank, mark)) < 2 * len(WAYS) and time.monotonic() < end:
        time.sleep(0.5)
    return Page(mark, begun, meanwhile, after)


def test_urgent_alert_is_told_once_in_seconds_and_so_is_its_end(page: Page, secrets: dict[str, str]) -> None:
    first = [entry for entry in page.meanwhile if entry["path"] == "/api/webhook/alert"]
    assert len(first) == 1
    seconds = first[0]["at"] - page.begun
    print(f"told after {seconds:.1f} s")
    # group_wait is 5 s; the bank must hear of a P1 within a minute.
    assert seconds < 30
    assert first[0]["token"] == f"Bearer {secrets['vault_bank_webhook_secret']}"
    assert first[0]["body"]["version"] == "4"
    assert [body["status"] for body in page.told("/api/webhook/alert")] == ["firing", "resolved"]


@pytest.mark.parametrize("way", WAYS)
def test_every_kind_of_receiver_hears_of_the_beginning_and_the_end_once(page: Page, way: str) -> None:
    assert [entry["path"].startswith(way) for entry in page.meanwhile].count(True) == 1
    assert len(page.told(way)) == 2


def secret_of(secrets: dict[str, str], algorithm: str) -> str:
    """Return a secret of the receivers, made of one that every scenario has."""
    return hashlib.new(algorithm, secrets["vault_pushgateway_push_password"].encode()).hexdigest()


def texts(page: Page, way: str) -> list[tuple[str, str]]:
    """Return title and text of each message, as people see them."""
    found = []
    for body in page.told(way):
        if way == "/slack/":
            found.append((body["attachments"][0]["title"], body["attachments"][0]["text"]))
        elif way == "/teams/":
            found.append(tuple(block["text"] for block in body["attachments"][0]["content"]["body"]))
        else:
            message = email.message_from_string(body, policy=email.policy.default)
            assert [part.get_content_type() for part in message.iter_parts()] == ["text/plain"]
            found.append((message["Subject"], message.get_body().get_content().replace("\r\n", "\n")))
    return found


@pytest.mark.parametrize("way", ["/slack/", "/teams/", "mail"])
def test_people_read_what_where_since_when_and_what_to_do_on_a_phone(page: Page, way: str) -> None:
    (title, text), (title_of_end, text_of_end) = texts(page, way)
    print(title, text, title_of_end, text_of_end, sep="\n")
    assert title == f"[P1 1] AllApiDown {page.mark}"
    assert title_of_end == f"[over] AllApiDown {page.mark}"
    wanted = (
        r"AllApiDown happens\nof which there is much to say\nsince \d\d:\d\d UTC\n"
        r"what to do: docs/runbooks/availability\.md#allapidown\nsee: /d/overview\s*"
    )
    assert re.fullmatch(wanted, text), text
    assert re.fullmatch(r"over since \d\d:\d\d UTC: AllApiDown happens\s*", text_of_end), text_of_end
    # A phone's lock screen shows no more.
    assert len(title) < 60


def test_each_receiver_is_shown_its_secret(page: Page, secrets: dict[str, str]) -> None:
    for way in ("/slack/", "/teams/", "/hook/"):
        paths = {entry["path"] for entry in page.after if entry["path"].startswith(way)}
        assert paths == {way + secret_of(secrets, "sha256")}
    assert {body["routing_key"] for body in page.told("/v2/enqueue")} == {secret_of(secrets, "md5")}
    # The mail receiver takes mails after a log-in over TLS alone.
    assert {tuple(entry["to"]) for entry in page.after if entry["path"] == "mail"} == {
        ("on-call@bank.internal", "bank@bank.internal")
    }


def test_pager_is_told_which_incident_ends(page: Page) -> None:
    begin, end = page.told("/v2/enqueue")
    assert (begin["event_action"], end["event_action"]) == ("trigger", "resolve")
    assert begin["dedup_key"] == end["dedup_key"]
    assert begin["payload"]["summary"] == f"[P1 1] AllApiDown {page.mark}"


def test_ticket_is_opened_and_closed(page: Page, bank: Host) -> None:
    command = "curl --silent --fail --cacert /etc/pki/bank/receiver/ca.crt"
    listed = json.loads(bank.check_output(f"{command} https://alertmanager-bank.bank.internal:8444/incidents"))
    found = [entry for entry in listed if page.mark in entry["short_description"]]
    assert [(entry["short_description"], entry["urgency"], entry["state"]) for entry in found] == [
        (f"AllApiDown {page.mark}", "1", "6")
    ]
    assert found[0]["description"].splitlines() == [
        "firing: AllApiDown happens",
        "of which there is much to say",
        "docs/runbooks/availability.md#allapidown",
        "/d/overview",
    ]
    assert found[0]["close_notes"].startswith("resolved: AllApiDown happens")


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
        ("severity=p1", "bank,chat,slack,teams,on-call,mail,hook,tickets"),
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
    for name in ("vault_bank_webhook_secret", "vault_alertmanager_web_password", "vault_pushgateway_push_password"):
        assert secrets[name] not in shown
    for algorithm in ("sha256", "md5"):
        assert secret_of(secrets, algorithm) not in shown
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


NO_OTHER = {"alertmanager_severity_receivers": {"p1": ["chat"], "p2": [], "p3": [], "p4": []}}


@pytest.mark.parametrize(
    ("variables", "sentence"),
    [
        ({"alertmanager_watchdog_receiver": "pager"}, "has no receiver named pager"),
        ({"alertmanager_severity_receivers": {"p1": []}}, "must name p1, p2, p3 and p4"),
        ({"alertmanager_secrets": {}}, "alertmanager_secrets lacks chat"),
        ({"alertmanager_receivers": [{"name": "bank"}, {"name": "chat"}]}, "needs a name of its own"),
        ({"vault_alertmanager_web_password": "short"}, "needs 16 to 72 bytes"),
        ({"alertmanager_receivers": [{"name": "chat", "pigeon_configs": []}], **NO_OTHER}, "pigeon_configs not found"),
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


def test_all_that_is_wrong_with_receivers_is_said_at_once(servers: dict[str, Host], apply: Apply) -> None:
    before = state(servers[ONE])
    receiver = {
        "name": "chat",
        "pagerduty_configs": [{"routing_key": "key"}],
        "slack_configs": [{"api_url": "https://chat.example.com/secret"}],
        "email_configs": [{"to": "on-call@example.com"}],
    }
    answer = apply(
        None,
        "--limit",
        ONE,
        alertmanager_receivers=[receiver],
        alertmanager_secrets={},
        alertmanager_smtp={"user": "alerts"},
        **NO_OTHER,
    )
    assert answer.failed
    for sentence in (
        "alertmanager_receivers holds secrets: routing_key, api_url. Put each into alertmanager_secrets",
        "name /etc/alertmanager/secrets/NAME in routing_key_file, api_url_file.",
        "A receiver sends mail, and alertmanager_smtp names no server: set its smarthost and from.",
        "alertmanager_smtp logs in as alerts, and alertmanager_secrets lacks smtp, its password",
    ):
        assert sentence in answer.words
    assert state(servers[ONE]) == before


def test_receiver_that_left_leaves_with_its_secret_and_no_restart(servers: dict[str, Host], apply: Apply) -> None:
    process = "systemctl show --property=MainPID --value alertmanager"
    before = {name: server.check_output(process) for name, server in servers.items()}
    nobody = {"alertmanager_severity_receivers": {f"p{number}": [] for number in range(1, 5)}}
    answer = apply(alertmanager_receivers=[], alertmanager_secrets={}, alertmanager_smtp={}, **nobody)
    assert not answer.failed, answer.output
    for name, server in servers.items():
        assert server.check_output("ls /etc/alertmanager/secrets") == "bank_webhook"
        assert "chat" not in server.check_output(f"cat {CONFIGURATION}")
        assert server.check_output(process) == before[name]
    answer = apply()
    assert not answer.failed, answer.output
    wanted = ["bank_webhook", "chat", "hook", "pager", "slack", "smtp", "teams", "tickets"]
    assert servers[ONE].check_output("ls /etc/alertmanager/secrets").split() == wanted


@pytest.fixture(scope="session")
def questions(secrets: dict[str, str]) -> dict[str, Callable[[], object]]:
    """Return how to learn of each member whether it serves."""
    login = f"operator:{secrets['vault_alertmanager_web_password']}"
    return {name: partial(caller(name, "alertmanager", 9093, login), "/-/ready") for name in (ONE, TWO)}


def test_members_are_changed_one_after_another(apply: Apply, questions: dict[str, Callable[[], object]]) -> None:
    assert_changed_one_after_another(
        apply, "alertmanager", questions, alertmanager_arguments=["--alerts.gc-interval=29m"]
    )


def test_setting_that_cannot_work_stops_at_the_first_member(
    apply: Apply, questions: dict[str, Callable[[], object]]
) -> None:
    bad = {"alertmanager_arguments": ["--no-such-flag"], "release_binary_load_seconds": 10}
    assert_stopped_at_the_first(apply, "alertmanager", questions, state, **bad)
    # The next run mends it, and gives both what they had before these tests.
    assert_changed_one_after_another(apply, "alertmanager", questions)
