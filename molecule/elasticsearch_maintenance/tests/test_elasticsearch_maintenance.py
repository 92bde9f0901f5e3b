"""What expires goes and nothing else does; what was saved comes back; what fails is told and half done nowhere."""

from __future__ import annotations

import base64
import json
import re
import shlex
import ssl
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import testinfra
from testinfra.host import Host

if TYPE_CHECKING:
    from conftest import Apply

PROJECT = Path(__file__).parents[3]
SERVER = "maintenance-logs1"
UNIT = "elasticsearch-maintenance.service"
CONFIG = "/etc/elasticsearch_maintenance/config.json"
METRICS = "/var/lib/node_exporter/textfile/elasticsearch_maintenance.prom"
REPOSITORY = "/var/lib/elasticsearch-snapshots"
DEAD = "app-logs-rejected-by-elasticsearch"
TODAY = datetime.now(UTC)
# Runs the job as its own account, with a clock that goes ahead and other conditions for new indices.
AHEAD = """
import sys
sys.path.insert(0, sys.argv[1])
from datetime import datetime, timedelta
from elasticsearch_maintenance import cli, server
class Ahead(datetime):
    @classmethod
    def now(cls, zone=None):
        return datetime.now(zone) + timedelta(days=float(sys.argv[2]))
cli.datetime = Ahead
server.CONDITIONS = {"max_age": "1ms", "min_docs": 1}
sys.exit(cli.main(["--config", sys.argv[3], "run"]))
"""

Ask = Callable[..., tuple[int, Any]]


def daily(prefix: str, days: int) -> str:
    """Return the name of an index of some days ago."""
    return f"{prefix}{TODAY - timedelta(days=days):%Y.%m.%d}"


@pytest.fixture(scope="session")
def server() -> Host:
    """Return the host of the log store."""
    return testinfra.get_host(f"docker://{SERVER}")


@pytest.fixture(scope="session")
def ask(server: Host, secrets: dict[str, str]) -> Ask:
    """Return a function that sends a request as a user and returns status and answer."""
    address = server.check_output("hostname -i").split()[0]
    context = ssl.create_default_context(cadata=server.check_output("cat /etc/elasticsearch/certs/ca.crt"))
    passwords = {
        "elastic": secrets["vault_elasticsearch_elastic_password"],
        "filebeat": secrets["vault_filebeat_elasticsearch_password"],
        "maintenance": secrets["vault_elasticsearch_maintenance_password"],
    }

    def send(method: str, path: str, body: object = None, user: str = "elastic") -> tuple[int, Any]:
        login = base64.b64encode(f"{user}:{passwords[user]}".encode()).decode()
        request = urllib.request.Request(
            f"https://{address}:9200{path}",
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={"Content-Type": "application/json", "Authorization": f"Basic {login}"},
        )
        try:
            with urllib.request.urlopen(request, timeout=20, context=context) as answer:
                return answer.status, json.loads(answer.read() or b"{}")
        except urllib.error.HTTPError as error:
            return error.code, json.loads(error.read() or b"{}")

    return send


def names(ask: Ask) -> set[str]:
    """Return the names of all indices that are not the server's own."""
    return {entry["index"] for entry in ask("GET", "/_cat/indices?format=json")[1]}


def fill(ask: Ask, *indices: str, documents: int = 1) -> None:
    """Write documents to indices."""
    for index in indices:
        for number in range(documents):
            status, answer = ask("PUT", f"/{index}/_doc/{number}?refresh=true", {"message": f"document {number}"})
            assert status in (200, 201), answer


def job(server: Host, *options: str) -> tuple[int, str]:
    """Start the job by its unit, or with options by hand; return its exit code and what it said."""
    if options:
        done = server.run(f"python3 -I -B /opt/elasticsearch_maintenance/*.pyz --config {CONFIG} {' '.join(options)}")
        return done.rc, done.stdout + done.stderr
    cursor = server.check_output("journalctl --lines=0 --show-cursor --no-pager").rpartition("cursor: ")[2]
    done = server.run(f"systemctl start {UNIT}")
    said = server.check_output(f"journalctl --unit={UNIT} --after-cursor='{cursor}' --no-pager --output=cat")
    return done.rc, said


def metrics(server: Host) -> dict[str, float]:
    """Return the metrics that node_exporter reads."""
    found = {}
    for line in server.file(METRICS).content_string.splitlines():
        if not line.startswith("#"):
            match = re.fullmatch(r'([a-z_]+(?:\{[a-z]+="[a-z]+"\})?) ([0-9.e+]+)', line)
            assert match, line
            found[match[1]] = float(match[2])
    return found


def good_snapshots(ask: Ask) -> list[dict[str, Any]]:
    """Return the daily snapshots whose state is SUCCESS."""
    return [one for one in ask("GET", "/_snapshot/platform/daily-*")[1]["snapshots"] if one["state"] == "SUCCESS"]


KEPT = (
    daily("app-logs-", 0),
    daily("app-logs-", 89),
    daily("metricbeat-", 30),
    # Days that are none, names that nobody declared, and what a clock or a hostile line brought.
    "app-logs-2020.13.45",
    "app-logs-extra-2020.01.01",
    "orders-2020.01.01",
    daily("app-logs-", -3),
)
EXPIRED = (
    daily("app-logs-", 91),
    daily("app-logs-rejected-", 91),
    daily("metricbeat-", 400),
    daily("packetbeat-", 91),
)


def test_dry_run_tells_and_changes_nothing(server: Host, ask: Ask) -> None:
    fill(ask, *KEPT, *EXPIRED)
    before = names(ask)
    code, said = job(server, "run", "--dry-run")
    assert code == 0, said
    assert "would have taken a snapshot" in said
    told = set(re.findall(r"would have deleted index (\S+)", said))
    assert told == set(EXPIRED)
    assert names(ask) == before
    assert ask("GET", "/_snapshot/platform/daily-*")[1]["snapshots"] == []
    assert not server.file(METRICS).exists


def test_expired_indices_go_and_no_others(server: Host, ask: Ask) -> None:
    before = names(ask)
    code, said = job(server)
    assert code == 0, said
    assert before - names(ask) == set(EXPIRED)
    found = metrics(server)
    assert found["elasticsearch_maintenance_deleted_indices_total"] == len(EXPIRED)
    assert found["elasticsearch_maintenance_future_indices"] == 1
    assert f"{daily('app-logs-', -3)} lies in the future" in said
    assert sum(value for name, value in found.items() if "step_failed" in name) == 0


def test_snapshot_is_taken_once_a_day(server: Host, ask: Ask) -> None:
    (snapshot,) = good_snapshots(ask)
    assert snapshot["shards"]["failed"] == 0
    assert daily("app-logs-", 0) in snapshot["indices"]
    assert not [index for index in snapshot["indices"] if index.startswith(".")], "passwords stay out of it"
    code, said = job(server)
    assert code == 0, said
    assert "taken" not in said.replace("are taken by", "")
    assert [one["snapshot"] for one in good_snapshots(ask)] == [snapshot["snapshot"]]
    found = metrics(server)
    assert (
        abs(found["elasticsearch_snapshot_last_success_timestamp_seconds"] - snapshot["end_time_in_millis"] / 1000) < 1
    )
    assert found["elasticsearch_snapshot_last_size_bytes"] > 1000
    assert (found['elasticsearch_snapshots{state="good"}'], found['elasticsearch_snapshots{state="bad"}']) == (1, 0)


def test_index_is_restored_with_all_its_documents(server: Host, ask: Ask, apply: Apply) -> None:
    index, playbook = daily("app-logs-", 5), PROJECT / "playbooks/restore_elasticsearch.yml"
    fill(ask, index, documents=20)
    code, said = job(server, "run", "--snapshot-now")
    assert code == 0, said
    taken = apply(playbook, elasticsearch_restore_index=index)
    assert taken.failed
    assert f"There is an index {index} already, and nothing was changed" in taken.words
    beside = apply(playbook, elasticsearch_restore_index=index, elasticsearch_restore_as=f"restored-{index}")
    assert not beside.failed, beside.output
    assert f"restored-{index} holds 20 documents of {index}" in beside.words
    assert ask("DELETE", f"/{index}")[0] == 200
    assert not apply(playbook, elasticsearch_restore_index=index).failed
    assert ask("GET", f"/{index}/_count")[1]["count"] == 20
    unknown = apply(playbook, elasticsearch_restore_index="app-logs-1999.01.01")
    assert unknown.failed
    assert "holds the index app-logs-1999.01.01. Good ones: daily-" in unknown.words


def test_rejected_lines_roll_over_and_expire(server: Host, ask: Ask) -> None:
    assert ask("POST", f"/{DEAD}/_doc?refresh=true", {"message": "refused"}, user="filebeat")[0] == 201
    server.run_expect([0], f"printf %s {shlex.quote(AHEAD)} > /root/ahead.py")
    program = f"python3 -I -B /root/ahead.py /opt/elasticsearch_maintenance/*.pyz %s {CONFIG}"
    server.run_expect([0], program % 0)
    assert {name for name in names(ask) if name.startswith(DEAD)} == {f"{DEAD}-000001", f"{DEAD}-000002"}
    assert ask("POST", f"/{DEAD}/_doc?refresh=true", {"message": "refused"}, user="filebeat")[1]["_index"].endswith("2")

    before = names(ask)
    # A clock that runs ahead would delete everything.
    done = server.run(program % 95)
    assert done.rc == 1
    assert "set the clock (timedatectl), or see why no shipper has written since" in done.stderr
    assert before - names(ask) == set()

    fill(ask, daily("app-logs-", -95))
    server.run_expect([0], program % 95)
    gone = before - names(ask)
    assert f"{DEAD}-000001" in gone
    # Two had documents by then; a third was begun, and the second was written to until a moment ago.
    assert f"{DEAD}-000002" in gone
    assert [name for name in names(ask) if name.startswith(DEAD)] == [f"{DEAD}-000003"]
    ask("DELETE", f"/{daily('app-logs-', -95)}")
    fill(ask, daily("app-logs-", 0))
    # What it remembers is of this day again.
    assert job(server)[0] == 0


@pytest.fixture
def other_password(ask: Ask, secrets: dict[str, str]) -> Iterator[None]:
    """Give the job's user another password while a test runs."""
    path = "/_security/user/maintenance/_password"
    ask("POST", path, {"password": "another password than that"})
    yield
    ask("POST", path, {"password": secrets["vault_elasticsearch_maintenance_password"]})


@pytest.mark.usefixtures("other_password")
def test_wrong_password_is_told_and_deletes_nothing(server: Host, ask: Ask) -> None:
    fill(ask, EXPIRED[0])
    before, saved = names(ask), metrics(server)
    code, said = job(server)
    assert code == 1
    assert "does not let user maintenance in. Run playbooks/logging.yml" in said
    assert names(ask) == before
    found = metrics(server)
    assert found['elasticsearch_maintenance_step_failed{step="connect"}'] == 1
    last = "elasticsearch_snapshot_last_success_timestamp_seconds"
    assert found[last] == saved[last], "what was known stays known"
    assert (
        found["elasticsearch_maintenance_last_success_timestamp_seconds"]
        < found["elasticsearch_maintenance_last_run_timestamp_seconds"]
    )


def test_full_repository_is_told_and_the_next_run_tidies(server: Host, ask: Ask) -> None:
    before = [one["snapshot"] for one in good_snapshots(ask)]
    fill(ask, daily("metricbeat-", 0))
    free = int(server.check_output(f"df --output=avail -B1 {REPOSITORY} | tail -1"))
    server.check_output(f"fallocate -l {free} {REPOSITORY}/filler")
    try:
        code, said = job(server, "run", "--snapshot-now")
        assert code == 1, said
        assert re.search(r"snapshot: .*(the server gave it up|No space left on device|ended as)", said), said
    finally:
        server.check_output(f"rm {REPOSITORY}/filler")
    assert not [name for name in before if name not in [one["snapshot"] for one in good_snapshots(ask)]]
    code, said = job(server, "run", "--snapshot-now")
    assert code == 0, said
    listed = ask("GET", "/_snapshot/platform/daily-*")[1]["snapshots"]
    assert {one["state"] for one in listed} == {"SUCCESS"}


def test_stopped_server_is_told(server: Host, ask: Ask) -> None:
    server.check_output("systemctl stop elasticsearch.service")
    try:
        code, said = job(server)
    finally:
        server.check_output("systemctl start elasticsearch.service")
    assert code == 1
    assert "no node answers at https://maintenance-logs1.bank.internal:9200" in said
    assert metrics(server)['elasticsearch_maintenance_step_failed{step="connect"}'] == 1
    code, said = job(server)
    assert code == 0, said
    assert metrics(server)['elasticsearch_maintenance_step_failed{step="connect"}'] == 0


def test_old_and_too_many_snapshots_go(server: Host, ask: Ask) -> None:
    """With a limit of three, and a snapshot of another name that is nobody's business."""
    assert (
        ask("PUT", "/_snapshot/platform/before-upgrade?wait_for_completion=true", {"indices": daily("app-logs-", 0)})[0]
        == 200
    )
    settings = json.loads(server.file(CONFIG).content_string)
    settings["snapshots"] |= {"minimum": 1, "maximum": 3}
    server.run_expect([0], f"umask 077; printf %s {shlex.quote(json.dumps(settings))} > /root/three.json")
    command = "python3 -I -B /opt/elasticsearch_maintenance/*.pyz --config /root/three.json run --snapshot-now"
    for _ in range(2):
        server.run_expect([0], command)
    newest = good_snapshots(ask)
    assert len(newest) == 3
    assert ask("GET", "/_snapshot/platform/before-upgrade")[0] == 200
    server.check_output("rm /root/three.json")


def test_user_can_do_no_more_than_it_needs(ask: Ask) -> None:
    index = daily("app-logs-", 0)
    denied = [
        ("GET", f"/{index}/_search", None),
        ("POST", f"/{index}/_doc", {"message": "forged"}),
        ("POST", "/_snapshot/platform/before-upgrade/_restore", {"indices": index}),
        ("DELETE", "/_snapshot/platform", None),
        ("DELETE", "/orders-2020.01.01", None),
        ("GET", "/_security/user", None),
        ("PUT", "/_cluster/settings", {"persistent": {"cluster.max_shards_per_node": 7}}),
    ]
    found = {f"{method} {path}": ask(method, path, body, user="maintenance")[0] for method, path, body in denied}
    assert set(found.values()) == {403}, found


@pytest.mark.parametrize(
    ("variables", "sentences"),
    [
        (
            {"elasticsearch_maintenance_retention": {"app-logs-": 0, "": 5, "logs": True}},
            ["keeps app-logs- for 0 days", "names '': write a prefix", "names 'logs': write a prefix"],
        ),
        ({"elasticsearch_maintenance_password": "not the password of this user"}, ["does not let user maintenance in"]),
        ({"elasticsearch_maintenance_retention": {"orders-": 5}}, ["lacks delete_index on orders-2000.01.01"]),
        ({"elasticsearch_maintenance_host": "elsewhere"}, ["which is no host of group elasticsearch"]),
    ],
    ids=["days", "password", "privileges", "host"],
)
def test_bad_settings_are_refused_and_the_old_ones_stay(
    server: Host, apply: Apply, variables: dict[str, object], sentences: list[str]
) -> None:
    before = server.file(CONFIG).sha256sum
    answer = apply(**variables)
    assert answer.failed
    for sentence in sentences:
        assert sentence in answer.words, answer.output
    assert server.file(CONFIG).sha256sum == before
    assert server.service("elasticsearch-maintenance.timer").is_running


def test_timer_runs_every_hour(server: Host) -> None:
    timer = server.service("elasticsearch-maintenance.timer")
    assert timer.is_enabled
    assert timer.is_running
    shown = "systemctl show elasticsearch-maintenance.timer --property=NextElapseUSecRealtime --value"
    seconds = int(server.check_output(f'expr $(date +%s -d "$({shown})") - $(date +%s)'))
    assert 0 <= seconds <= 3600 + 180


def test_unit_is_sandboxed_and_holds_no_secret(server: Host, secrets: dict[str, str]) -> None:
    shown = server.check_output(f"systemctl show {UNIT} -p User,ProtectSystem,NoNewPrivileges,CapabilityBoundingSet")
    assert set(shown.splitlines()) == {
        "User=elasticsearch-maintenance",
        "ProtectSystem=strict",
        "NoNewPrivileges=yes",
        "CapabilityBoundingSet=",
    }
    server.run_expect([0], f"systemd-analyze security {UNIT} --threshold=20 --no-pager")
    # The first half has no special character that a log might have escaped.
    half = shlex.quote(secrets["vault_elasticsearch_maintenance_password"][:16])
    found = server.run(f"grep -rlaF {half} /etc /var/log /var/lib /run/systemd /usr/lib/systemd /opt")
    assert found.stdout.split() == [CONFIG]
    assert server.run(f"journalctl --no-pager | grep -cF {half}").stdout.strip() == "0"
    file = server.file(CONFIG)
    assert (file.user, file.group, oct(file.mode)) == ("root", "elasticsearch-maintenance", oct(0o640))
