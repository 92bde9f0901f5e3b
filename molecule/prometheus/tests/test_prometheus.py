"""What an operator and an attacker find on a Prometheus host, and what happens when its inputs change."""

from __future__ import annotations

import runpy
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
import uuid
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import testinfra
import yaml
from ansible.errors import AnsibleFilterError
from clients import caller
from monitoring import assert_changed_one_after_another, assert_stopped_at_the_first
from testinfra.host import Host

if TYPE_CHECKING:
    from conftest import Apply

HOST = "prometheus-monitor1"
REPLICA = "prometheus-monitor2"
# It has Alertmanager, too.
WATCHED = "prometheus-db1"
PROJECT = Path(__file__).parents[3]
RULES = PROJECT / "files/prometheus/rules"
RULES_ON_HOST = "/etc/prometheus/rules.yml"
# The role alone, on one of its hosts.
ROLE = (PROJECT / "molecule/prometheus/apply.yml", "--limit", HOST)


@pytest.fixture(scope="session")
def password(secrets: dict[str, str]) -> str:
    """Return the password of the operator, which holds quotes, dollars, percent signs and more."""
    return secrets["vault_prometheus_web_password"]


@pytest.fixture(scope="session")
def server() -> Host:
    """Connect to the Prometheus host."""
    return testinfra.get_host(f"docker://{HOST}")


@pytest.fixture(scope="session")
def ask(password: str) -> Callable[..., Any]:
    """Return a function that asks Prometheus over the network, as the operator unless told otherwise."""
    return caller(HOST, "prometheus", 9090, f"operator:{password}")


@pytest.fixture(scope="session")
def ask_replica(password: str) -> Callable[..., Any]:
    """Return a function that asks the other Prometheus."""
    return caller(REPLICA, "prometheus", 9090, f"operator:{password}")


@pytest.fixture(scope="session")
def watchdog(secrets: dict[str, str]) -> Callable[[], list[dict[str, Any]]]:
    """Return a function that lists the alerts named Watchdog that Alertmanager has."""
    ask_alertmanager = caller(WATCHED, "alertmanager", 9093, f"operator:{secrets['vault_alertmanager_web_password']}")
    return lambda: ask_alertmanager("/api/v2/alerts", filter='alertname="Watchdog"')


def await_answer(question: Callable[[], Any], wanted: object, seconds: float = 40) -> None:
    """Wait until a question has the answer that is wanted."""
    deadline = time.monotonic() + seconds
    while (answer := question()) != wanted and time.monotonic() < deadline:
        time.sleep(1)
    assert answer == wanted


def process(server: Host) -> str:
    return server.check_output("systemctl show --property=MainPID --value prometheus")


def state(server: Host) -> str:
    """Return what the role may change on the host, and the running process."""
    return server.check_output(
        "cd /etc/prometheus && find . -type f -exec sha256sum {} + | sort;"
        " sha256sum /etc/systemd/system/prometheus.service; systemctl show --property=MainPID,ActiveState prometheus"
    )


def alerts_in_repository() -> set[str]:
    documents = [yaml.safe_load(path.read_text(encoding="utf-8")) for path in RULES.glob("*.yml")]
    rules = [rule for document in documents for group in document["groups"] for rule in group["rules"]]
    return {rule["alert"] for rule in rules if "alert" in rule}


def alerts_loaded(ask: Callable[..., Any]) -> set[str]:
    return {rule["name"] for group in ask("/api/v1/rules", type="alert")["groups"] for rule in group["rules"]}


def test_every_host_is_read(ask: Callable[..., Any]) -> None:
    expected = {(job, host) for job in ("node", "prometheus", "blackbox_exporter") for host in (HOST, REPLICA)}
    expected |= {("node", WATCHED), ("alertmanager", WATCHED)}
    deadline = time.monotonic() + 60
    while True:
        targets = ask("/api/v1/targets", state="active")["activeTargets"]
        found = {(target["labels"]["job"], target["labels"]["instance"]): target for target in targets}
        up = {name for name, target in found.items() if target["health"] == "up"}
        if up == expected or time.monotonic() > deadline:
            break
        time.sleep(1)
    assert set(found) == expected
    assert up == expected, [target["lastError"] for target in targets]
    labels = found["node", WATCHED]["labels"]
    assert labels == {
        "job": "node",
        "instance": WATCHED,
        "group": "alertmanager,logstash",
        "role": "node",
        "site": "main",
    }


@pytest.mark.parametrize("login", [None, "operator:wrong", "someone:{password}", "operator:"])
def test_wrong_log_in_is_refused(ask: Callable[..., Any], password: str, login: str | None) -> None:
    for path in ("/api/v1/targets", "/metrics", "/-/ready", "/"):
        with pytest.raises(urllib.error.HTTPError) as refused:
            ask(path, login=login.format(password=password) if login else None)
        assert refused.value.code == 401


def test_reader_has_a_log_in_until_it_leaves_the_list(server: Host, ask: Callable[..., Any], apply: Apply) -> None:
    before = process(server)
    login = "wall:\"$HOME`id` %é'" + uuid.uuid4().hex
    name, _, password = login.partition(":")
    answer = apply(*ROLE, prometheus_readers=[{"name": name, "password": password}])
    assert not answer.failed, answer.output
    assert ask("/api/v1/query", login=login, query="up")["result"]
    answer = apply(*ROLE)
    assert not answer.failed, answer.output
    with pytest.raises(urllib.error.HTTPError) as refused:
        ask("/api/v1/query", login=login, query="up")
    assert refused.value.code == 401
    assert process(server) == before


def test_plain_http_is_refused(ask: Callable[..., Any]) -> None:
    with pytest.raises(urllib.error.HTTPError) as refused:
        ask("/metrics", scheme="http")
    assert refused.value.code == 400


def test_password_is_nowhere_to_be_read(server: Host, ask: Callable[..., Any], password: str) -> None:
    assert password not in ask("/api/v1/status/config")["yaml"]
    assert password not in server.check_output("systemctl cat prometheus; ps -eo args; journalctl --no-pager -o cat")
    assert server.check_output("find /etc/prometheus /etc/pki/bank/prometheus/tls.key -type f -perm /007") == ""
    assert server.check_output("stat --format='%a %U %G' /etc/prometheus/web_password") == "640 root prometheus"


def test_all_rules_are_loaded_and_healthy(ask: Callable[..., Any]) -> None:
    assert alerts_loaded(ask) == alerts_in_repository()
    assert [
        rule for group in ask("/api/v1/rules")["groups"] for rule in group["rules"] if rule["health"] == "err"
    ] == []


def test_watchdog_fires(ask: Callable[..., Any]) -> None:
    firing = {alert["labels"]["alertname"] for alert in ask("/api/v1/alerts")["alerts"] if alert["state"] == "firing"}
    assert "Watchdog" in firing


def test_replicas_read_each_other_and_their_alerts_are_one(
    ask: Callable[..., Any], ask_replica: Callable[..., Any], watchdog: Callable[[], list[dict[str, Any]]]
) -> None:
    names = set()
    for replica in (ask, ask_replica):

        def up(replica: Callable[..., Any] = replica) -> set[tuple[str, str]]:
            found = replica("/api/v1/query", query='up{job="prometheus"}')["result"]
            return {(sample["metric"]["instance"], sample["value"][1]) for sample in found}

        await_answer(up, {(HOST, "1"), (REPLICA, "1")})
        own = replica("/api/v1/alertmanagers")["activeAlertmanagers"]
        assert [urllib.parse.urlsplit(server["url"]).hostname for server in own] == [f"{WATCHED}.bank.internal"]
        labels = yaml.safe_load(replica("/api/v1/status/config")["yaml"])["global"]["external_labels"]
        assert labels["site"] == "main"
        names.add(labels["prometheus"])
    assert names == {HOST, REPLICA}
    # Both have told it, and it is one alert all the same.
    sent = "min(sum by (instance) (prometheus_notifications_sent_total)) > bool 0"
    await_answer(lambda: [sample["value"][1] for sample in ask("/api/v1/query", query=sent)["result"]], ["1"])
    assert [alert["labels"] for alert in watchdog()] == [{"alertname": "Watchdog", "severity": "p4", "site": "main"}]


def test_death_of_a_replica_is_noticed_and_alerts_go_on(
    server: Host,
    ask: Callable[..., Any],
    ask_replica: Callable[..., Any],
    watchdog: Callable[[], list[dict[str, Any]]],
) -> None:
    def noticed() -> list[str]:
        return [
            alert["state"]
            for alert in ask_replica("/api/v1/alerts")["alerts"]
            if alert["labels"]["alertname"] == "InstanceDown"
            and (alert["labels"]["job"], alert["labels"]["instance"]) == ("prometheus", HOST)
        ]

    try:
        server.run_expect([0], "systemctl kill --signal=KILL prometheus; systemctl stop prometheus")
        told = watchdog()[0]["updatedAt"]
        # It fires after two minutes; here it is enough that the clock runs.
        await_answer(noticed, ["pending"])
        await_answer(lambda: watchdog()[0]["updatedAt"] > told, True)
    finally:
        server.run_expect([0], "systemctl start prometheus")
    await_answer(noticed, [])
    # It is as it was when it has evaluated its rules again.
    await_answer(
        lambda: "Watchdog" in {alert["labels"]["alertname"] for alert in ask("/api/v1/alerts")["alerts"]}, True
    )


def test_links_of_alerts_begin_with_the_addresses_of_the_site(
    server: Host, ask: Callable[..., Any], apply: Apply
) -> None:
    def links() -> tuple[str, str]:
        found = [alert for alert in ask("/api/v1/alerts")["alerts"] if alert["labels"]["alertname"] == "Watchdog"]
        return (found[0]["annotations"]["runbook_url"], found[0]["annotations"]["dashboard_url"]) if found else ("", "")

    paths = ("docs/runbooks/prometheus.md#watchdog", "/d/alerts")
    assert links() == paths
    addresses = {
        "prometheus_runbook_base_url": "https://git.example.com/platform/blob/main",
        "prometheus_dashboard_base_url": "https://grafana.example.com/",
    }
    for variables, expected in (
        (addresses, (f"https://git.example.com/platform/blob/main/{paths[0]}", "https://grafana.example.com/d/alerts")),
        ({}, paths),
    ):
        answer = apply(*ROLE, **variables)
        assert not answer.failed, answer.output
        deadline = time.monotonic() + 20
        while links() != expected and time.monotonic() < deadline:
            time.sleep(1)
        assert links() == expected


def test_rules_pass_their_unit_tests(server: Host) -> None:
    server.run_expect([0], "rm -rf /root/rules && mkdir /root/rules")
    subprocess.run(["docker", "cp", f"{RULES.parent}/.", f"{HOST}:/root/rules"], check=True)
    tested = server.run("/opt/prometheus/current/bin/promtool test rules /root/rules/tests/*.yml")
    assert tested.rc == 0, tested.stdout
    assert tested.stdout.count("SUCCESS") == len(list(RULES.parent.glob("tests/*.yml")))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("CapabilityBoundingSet", ""),
        ("NoNewPrivileges", "yes"),
        ("ProtectSystem", "strict"),
        ("ProtectHome", "yes"),
        ("PrivateTmp", "yes"),
        ("PrivateDevices", "yes"),
        ("MemoryDenyWriteExecute", "yes"),
        ("ReadWritePaths", "/var/lib/prometheus"),
        ("LimitNOFILE", "65536"),
        ("Restart", "always"),
        ("User", "prometheus"),
    ],
)
def test_sandbox_is_effective(server: Host, name: str, value: str) -> None:
    assert server.check_output(f"systemctl show --property={name} --value prometheus") == value


def test_exposure_stays_low(server: Host) -> None:
    assert server.run("systemd-analyze security --threshold=15 prometheus.service").rc == 0


def test_rule_that_left_the_repository_leaves_the_host(
    server: Host, ask: Callable[..., Any], apply: Apply, tmp_path: Path
) -> None:
    before = process(server)
    server.run_expect([0], f"cp -p {RULES_ON_HOST} /root/rules.yml")
    kept = tmp_path / "prometheus.yml"
    kept.write_text((RULES / "prometheus.yml").read_text(encoding="utf-8"), encoding="utf-8")
    answer = apply(*ROLE, prometheus_rule_directories=[str(tmp_path)])
    assert not answer.failed, answer.output
    own = yaml.safe_load(kept.read_text(encoding="utf-8"))["groups"][0]["rules"]
    assert "Watchdog" in alerts_loaded(ask)
    assert alerts_loaded(ask) == {rule["alert"] for rule in own} < alerts_in_repository()
    assert process(server) == before


def test_run_that_was_cut_off_before_its_reload_is_made_good(
    server: Host, ask: Callable[..., Any], apply: Apply
) -> None:
    # As such a run would leave it: all rules are on the disk again, but Prometheus works with those of the test above.
    server.run_expect([0], f"mv /root/rules.yml {RULES_ON_HOST} && touch {RULES_ON_HOST}")
    assert alerts_loaded(ask) != alerts_in_repository()
    answer = apply(*ROLE)
    assert not answer.failed, answer.output
    assert "Reload Prometheus]" in answer.output
    assert alerts_loaded(ask) == alerts_in_repository()
    answer = apply(*ROLE)
    assert not answer.failed, answer.output
    assert "Reload Prometheus]" not in answer.output
    assert answer.changed == {HOST: 0}


def test_broken_rule_changes_nothing(server: Host, ask: Callable[..., Any], apply: Apply, tmp_path: Path) -> None:
    before = state(server)
    (tmp_path / "broken.yml").write_text(
        "groups:\n- name: broken\n  rules:\n  - alert: Broken\n    expr: sum(up\n", encoding="utf-8"
    )
    answer = apply(*ROLE, prometheus_rule_directories=[str(tmp_path)])
    assert answer.failed
    assert "parse error" in answer.output
    assert state(server) == before
    assert alerts_loaded(ask) == alerts_in_repository()


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("groups: [\n", "is not YAML"),
        ("alerts: []\n", "is not a rule file"),
        ("groups: [{rules: []}]\n", "without a name"),
    ],
)
def test_file_that_is_no_rule_file_is_named(text: str, reason: str) -> None:
    module = runpy.run_path(str(PROJECT / "roles/prometheus/filter_plugins/prometheus_rules.py"))
    with pytest.raises(AnsibleFilterError, match=f"^/rules/wrong.yml .*{reason}"):
        module["prometheus_rules"]({"/rules/wrong.yml": text})


RECEIVER = {"name": "archive", "url": f"https://{REPLICA}.bank.internal:9090/api/v1/write"}


@pytest.mark.parametrize(
    ("name", "value", "sentence"),
    [
        ("prometheus_retention_size", "900TB", "lower prometheus_retention_size or move prometheus_data_directory"),
        ("vault_prometheus_web_password", "é" * 37, "needs 16 to 72 bytes"),
        ("prometheus_readers", [{"name": "wall", "password": "short"}], "The log-in wall of Prometheus cannot work"),
        ("prometheus_readers", [{"name": "operator", "password": "x" * 32}], "name a log-in of Prometheus twice"),
        ("prometheus_runbook_base_url", "git.example.com/platform", "so that alerts name the path alone"),
        ("prometheus_replica_label", "replica", 'prometheus_external_labels has no label "replica"'),
        ("prometheus_external_labels", {"site": "main", "prometheus": "one"}, "the same value as on another host"),
        (
            "prometheus_remote_write",
            [RECEIVER | {"user": "operator"}, RECEIVER | {"url": "http://example.com/"}],
            "prometheus_remote_write: archive needs user and password both, or neither. The url of archive must begin",
        ),
        ("prometheus_remote_write", [RECEIVER | {"ca_file": "/root/none.crt"}], "names /root/none.crt, which is not"),
        ("prometheus_remote_write", [RECEIVER | {"queue": {"shards": 4}}], "shards"),
        ("prometheus_remote_write", [RECEIVER | {"relabel": [{"action": "pray"}]}], "pray"),
        (
            "prometheus_jobs_extra",
            [{"name": "slip", "group": "postgres", "port": 1}],
            "names postgres, which is",
        ),
    ],
)
def test_bad_input_is_refused(server: Host, apply: Apply, name: str, value: object, sentence: str) -> None:
    before = state(server)
    answer = apply(*ROLE, **{name: value})
    assert answer.failed
    assert sentence in answer.words
    assert state(server) == before


def test_samples_are_sent_elsewhere_until_the_receiver_leaves_the_list(
    server: Host, ask: Callable[..., Any], ask_replica: Callable[..., Any], apply: Apply, password: str
) -> None:
    before = process(server)
    receiver = RECEIVER | {
        "ca_file": "/etc/pki/bank/prometheus/ca.crt",
        "user": "operator",
        # In the words of a vault: an extra variable is a template.
        "password": "{{ vault_prometheus_web_password }}",
        "queue": {"max_shards": 4, "batch_send_deadline": "1s"},
        "relabel": [{"source_labels": ["job"], "regex": "node", "action": "keep"}],
    }
    answer = apply(*ROLE, prometheus_remote_write=[receiver])
    assert not answer.failed, answer.output
    assert answer.changed[HOST] > 0

    def received() -> set[tuple[str, str]]:
        # The label of the sender: what the receiver reads itself has none.
        found = ask_replica("/api/v1/query", query=f'up{{prometheus="{HOST}"}}')["result"]
        return {(sample["metric"]["job"], sample["metric"]["instance"]) for sample in found}

    await_answer(received, {("node", HOST), ("node", REPLICA), ("node", WATCHED)})
    queue = yaml.safe_load(ask("/api/v1/status/config")["yaml"])["remote_write"][0]["queue_config"]
    assert (queue["max_shards"], queue["batch_send_deadline"]) == (4, "1s")
    assert server.check_output("stat --format='%a %U %G' /etc/prometheus/remote_write/archive") == "640 root prometheus"
    assert password not in server.check_output("cat /etc/prometheus/prometheus.yml")
    answer = apply(*ROLE)
    assert not answer.failed, answer.output
    assert server.check_output("ls /etc/prometheus/remote_write") == ""
    assert "remote_write" not in ask("/api/v1/status/config")["yaml"]
    assert process(server) == before


def test_restart_keeps_the_data(server: Host, ask: Callable[..., Any]) -> None:
    oldest = 'min_over_time(timestamp(up{job="prometheus"})[1h:1s])'
    before = float(ask("/api/v1/query", query=oldest)["result"][0]["value"][1])
    server.run_expect([0], "systemctl restart prometheus")
    deadline = time.monotonic() + 30
    while True:
        try:
            ask("/-/ready")
            break
        except (urllib.error.URLError, ConnectionError):
            assert time.monotonic() < deadline
            time.sleep(1)
    assert float(ask("/api/v1/query", query=oldest)["result"][0]["value"][1]) == pytest.approx(before, abs=2)


@pytest.fixture(scope="session")
def questions(ask: Callable[..., Any], ask_replica: Callable[..., Any]) -> dict[str, Callable[[], object]]:
    """Return how to learn of each Prometheus whether it serves."""
    return {HOST: partial(ask, "/-/ready"), REPLICA: partial(ask_replica, "/-/ready")}


def test_replicas_are_changed_one_after_another(apply: Apply, questions: dict[str, Callable[[], object]]) -> None:
    assert_changed_one_after_another(
        apply, "prometheus", questions, prometheus_arguments=["--query.max-concurrency=19"]
    )


def test_setting_that_cannot_work_stops_at_the_first_replica(
    apply: Apply, questions: dict[str, Callable[[], object]]
) -> None:
    bad = {"prometheus_arguments": ["--no-such-flag"], "release_binary_load_seconds": 10}
    assert_stopped_at_the_first(apply, "prometheus", questions, state, **bad)
    # The next run mends it, and gives both what they had before these tests.
    assert_changed_one_after_another(apply, "prometheus", questions)
