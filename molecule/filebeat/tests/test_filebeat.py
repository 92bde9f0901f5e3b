"""What becomes of a line: found soon and with its types, whatever happens to Filebeat, its files or Elasticsearch."""

import json
import shlex
import subprocess
import time
import uuid
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest
import testinfra
from lines import LINES, Search, assert_all_arrive, count, start_writing
from testinfra.host import Host

if TYPE_CHECKING:
    from molecule.conftest import Apply

APP, LOGS = "filebeat-app1", "filebeat-logs1"
LOG = "/var/log/bank/bank.json"
REASON = "by-elasticsearch"
DATA = "/var/lib/elasticsearch"
FILLER = f"{DATA}/filler"
CLOSED = "index.blocks.read_only_allow_delete"


@pytest.fixture(scope="session")
def app() -> Host:
    """Return the host that ships."""
    return testinfra.get_host(f"docker://{APP}")


@pytest.fixture(scope="session")
def logs() -> Host:
    """Return the host of Elasticsearch."""
    return testinfra.get_host(f"docker://{LOGS}")


@pytest.fixture(scope="session")
def search(logs: Host, secrets: dict[str, str]) -> Search:
    """Return a function that asks Elasticsearch, as its superuser."""
    login = "elastic:" + secrets["vault_elasticsearch_elastic_password"]
    settings = 'user = "' + login.replace("\\", "\\\\").replace('"', '\\"') + '"\n'

    def ask(path: str, body: object = None) -> dict[str, Any]:
        command = "curl --silent --max-time 20 --cacert /etc/elasticsearch/certs/ca.crt --config - "
        if body is not None:
            command += f"--header 'Content-Type: application/json' --data-binary {shlex.quote(json.dumps(body))} "
        url = shlex.quote(f"https://{LOGS}.bank.internal:9200{path}")
        answer = logs.run(f"printf %s {shlex.quote(settings)} | {command} {url}")
        return json.loads(answer.stdout) if answer.stdout.startswith("{") else {"error": answer.stderr}

    return ask


def append(line: bytes) -> None:
    """Add one line to the bank's log, whatever bytes it holds and however long it is."""
    command = ["docker", "exec", "--interactive", APP, "sh", "-c", f"cat >> {LOG}"]
    subprocess.run(command, input=line + b"\n", check=True)


def ecs(**fields: object) -> dict[str, object]:
    """Return a line as the bank writes it."""
    now = time.time()
    stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now)) + f".{int(now * 1000) % 1000:03}Z"
    return {
        "@timestamp": stamp,
        "log.level": "info",
        "message": "transfer booked",
        "event.dataset": "bank.transaction",
        "event.id": uuid.uuid4().hex,
        "event.duration": 12_000_000,
        "bank.amount_minor": 1999,
        "source.ip": "192.0.2.7",
        "service.name": "bank",
    } | fields


def find(
    search: Search, query: dict[str, Any], index: str = "app-logs-2*", seconds: float = 10
) -> list[dict[str, Any]]:
    """Return the documents that a query finds, as soon as there is one."""
    end = time.monotonic() + seconds
    while True:
        answer = search(f"/{index}/_search", {"query": query, "size": 10})
        hits = answer.get("hits", {}).get("hits", [])
        if hits or time.monotonic() > end:
            return hits
        time.sleep(0.3)


def stats(app: Host) -> dict[str, Any]:
    """Return Filebeat's figures about itself."""
    return json.loads(app.check_output("curl --silent --max-time 5 http://127.0.0.1:5066/stats"))


def test_line_is_found_in_seconds_with_its_types(app: Host, search: Search) -> None:
    line = ecs()
    begun = time.monotonic()
    append(json.dumps(line).encode())
    hits = find(search, {"term": {"event.id": line["event.id"]}})
    seconds = time.monotonic() - begun
    assert len(hits) == 1, "not within 10 s"
    print(f"found after {seconds:.1f} s")
    hit, source = hits[0], hits[0]["_source"]
    assert hit["_id"] == line["event.id"]
    assert hit["_index"] == "app-logs-" + str(line["@timestamp"])[:10].replace("-", ".")
    assert source["@timestamp"] == line["@timestamp"]
    assert source["message"] == "transfer booked"
    assert source["bank"] == {"amount_minor": 1999}
    assert source["event"]["duration"] == 12_000_000
    assert source["host"]["name"] == APP
    assert source["labels"]["site"] == "main"
    assert source["log"]["file"]["path"] == LOG
    assert "error" not in source
    found = find(search, {"bool": {"filter": [
        {"term": {"event.id": line["event.id"]}},
        {"range": {"bank.amount_minor": {"gte": 1000, "lt": 2000}}},
        {"term": {"source.ip": "192.0.2.0/24"}},
    ]}})  # fmt: skip
    assert len(found) == 1, "numbers and addresses are searched as such"


def test_journal_is_shipped_without_what_filebeat_says(app: Host, search: Search) -> None:
    mark = uuid.uuid4().hex
    app.check_output(f"logger --tag scenario 'from the journal {mark}'")
    hits = find(search, {"match": {"message": mark}})
    assert [hit["_source"]["event"]["dataset"] for hit in hits] == ["host.journal"]
    assert find(search, {"term": {"systemd.unit": "filebeat.service"}}, seconds=0) == []


def test_haproxy_lines_of_the_journal_are_read(app: Host, search: Search) -> None:
    mark = uuid.uuid4().hex
    line = {"@timestamp": "2026-11-22T10:00:00Z", "event.dataset": "haproxy.access", "http.request.id": mark}
    line |= {"http.response.status_code": 200, "source.ip": "192.0.2.8", "haproxy.ms": {"total": 12}}
    line["@timestamp"] = str(ecs()["@timestamp"])[:19] + "Z"
    # The journal knows the unit of a process that is still there.
    program = f"echo {shlex.quote(json.dumps(line))}; sleep 2"
    app.check_output(f"systemd-run --quiet --unit=haproxy.service --wait sh -c {shlex.quote(program)}")
    hits = find(search, {"term": {"http.request.id": mark}})
    assert len(hits) == 1
    assert hits[0]["_source"]["event"]["dataset"] == "haproxy.access"
    assert hits[0]["_source"]["http"]["response"]["status_code"] == 200


def test_postgresql_is_read_without_values_of_rows(app: Host, search: Search) -> None:
    mark = uuid.uuid4().hex
    line = {
        "timestamp": time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime()) + ".123 UTC",
        "user": "bank_app",
        "dbname": "bank",
        "pid": 42,
        "error_severity": "ERROR",
        "state_code": "23505",
        "message": f"duplicate key {mark}",
        "detail": "Key (number)=(DE02120300000000202051) already exists.",
        "statement": "INSERT INTO accounts VALUES ($1)",
        "backend_type": "client backend",
    }
    path = "/var/lib/pgsql/data/log/postgresql-Sun.json"
    app.check_output(f"echo {shlex.quote(json.dumps(line))} >> {path}")
    hits = find(search, {"match": {"message": mark}})
    assert len(hits) == 1
    source = hits[0]["_source"]
    assert source["@timestamp"] == line["timestamp"].replace(" UTC", "Z").replace(" ", "T")
    assert (source["log"]["level"], source["error"]["code"], source["user"]["name"]) == ("ERROR", "23505", "bank_app")
    assert source["postgresql"]["log"]["query"] == line["statement"]
    assert "DE02120300000000202051" not in json.dumps(source)


def test_audit_trail_is_read_without_command_lines(app: Host, search: Search) -> None:
    mark = uuid.uuid4().hex
    app.check_output("mkdir -p -m 700 /var/log/audit")
    lines = [f'type=EXECVE msg=audit(1.2:3): argc=2 a0="login" a1="{mark}"', f"type=SYSCALL msg=audit(1.2:3): {mark}"]
    app.check_output(f"printf '%s\\n' {' '.join(map(shlex.quote, lines))} >> /var/log/audit/audit.log")
    hits = find(search, {"match": {"message": mark}})
    assert [hit["_source"]["message"] for hit in hits] == [lines[1]]
    assert hits[0]["_source"]["event"]["dataset"] == "host.audit"


# Each with where it ends up, and what the reason must say. MARK is replaced by an id that is searched for.
BROKEN: dict[str, tuple[bytes, str, str]] = {
    "cut off": (b'{"message": "MARK', "2*", "unexpected EOF"),
    "no JSON": (b"MARK said something", "2*", "no JSON object"),
    "binary": (b"\x01\xff\xfe\x80 MARK \x1b[31m", "2*", "no JSON object"),
    "two objects": (b'{"a": "MARK"}{"b": 1}', "2*", "multiple json elements"),
    "1 MiB": (b'{"message": "MARK ' + b"m" * 1_100_000 + b'"}', "2*", "unexpected EOF"),
    "name is value and object": (b'{"message": "MARK", "a": 1, "a.b": 2}', "2*", "conflicting key"),
    "time that is none": (b'{"message": "MARK", "@timestamp": "yesterday"}', "2*", "yesterday"),
    "time far ahead": (b'{"message": "MARK", "@timestamp": "2610-11-22T00:00:00Z"}', "2*", "2610-11-22"),
    "time far behind": (b'{"message": "MARK", "@timestamp": "2000-01-01T00:00:00Z"}', "2*", "2000-01-01"),
    "metadata that is none": (b'{"message": "MARK", "@metadata": "x"}', "2*", "@metadata"),
    "text for a number": (b'{"message": "MARK", "bank.amount_minor": "much"}', REASON, "amount_minor"),
    "text for an object": (b'{"message": "MARK", "event": "x"}', REASON, "event"),
    "object for a text": (b'{"message": {"a": "MARK"}}', REASON, "message"),
    "no address": (b'{"message": "MARK", "source.ip": "nowhere"}', REASON, "source.ip"),
    "empty name": (b'{"message": "MARK", "": 1}', REASON, "field name"),
    "dots for a name": (b'{"message": "MARK", "a": {"..": 1}}', REASON, "field name"),
    "name of Elasticsearch's own": (b'{"message": "MARK", "_id": "x"}', REASON, "_id"),
    "too deep": (
        b'{"message": "MARK", "a": ' + b'{"b": ' * 1500 + b"1" + b"}" * 1501,
        REASON,
        "Limit of mapping depth",
    ),
    "too many fields": (
        b'{"message": "MARK", ' + b", ".join(b'"f%d": 1' % number for number in range(700)) + b"}",
        REASON,
        "Limit of total fields",
    ),
}


def test_broken_lines_are_kept_with_their_reasons_and_stop_nothing(app: Host, search: Search) -> None:
    before = stats(app)["libbeat"]["output"]["events"]["dead_letter"]
    marks = {name: uuid.uuid4().hex for name in BROKEN}
    for name, (line, _, _) in BROKEN.items():
        append(line.replace(b"MARK", marks[name].encode()))
    # Bytes in a text that are none become question marks, and the line is as good as others.
    odd = uuid.uuid4().hex
    append(b'{"message": "%b \xff\xfe"}' % odd.encode())
    last = ecs()
    append(json.dumps(last).encode())
    assert find(search, {"match": {"message": odd}}, seconds=20)
    assert find(search, {"term": {"event.id": last["event.id"]}}, seconds=20), "the line after them did not arrive"
    wrong = []
    for name, (_, index, reason) in BROKEN.items():
        hits = find(search, {"match": {"message": marks[name]}}, f"app-logs-rejected-{index}")
        found = [hit["_source"] for hit in hits]
        told = [source.get("error.message") or source.get("error", {}).get("message") for source in found]
        if len(found) != 1 or reason not in told[0]:
            elsewhere = find(search, {"query_string": {"query": marks[name]}}, "app-logs-*", seconds=0)
            wrong.append(f"{name}: {told or [hit['_index'] for hit in elsewhere] or 'lost'}")
    assert wrong == [], "\n".join(wrong)
    refused = sum(index == REASON for _, index, _ in BROKEN.values())
    assert stats(app)["libbeat"]["output"]["events"]["dead_letter"] == before + refused
    assert stats(app)["libbeat"]["output"]["events"]["dropped"] == 0


def test_a_line_cannot_choose_its_index_or_replace_another(app: Host, search: Search) -> None:
    first = ecs()
    append(json.dumps(first).encode())
    assert find(search, {"term": {"event.id": first["event.id"]}})
    mark = uuid.uuid4().hex
    meta = {"_id": first["event.id"], "raw_index": "app-logs-other", "op_type": "index", "pipeline": "none"}
    append(json.dumps(ecs(**{"message": mark, "@metadata": meta, "event.dataset": "bank.app"})).encode())
    hits = find(search, {"match": {"message": mark}}, "app-logs-*")
    assert [hit["_index"][:10] for hit in hits] == ["app-logs-2"]
    assert hits[0]["_id"] != first["event.id"]
    assert find(search, {"term": {"event.id": first["event.id"]}})[0]["_source"]["message"] == "transfer booked"


def test_kill_and_rotation_lose_nothing(app: Host, search: Search) -> None:
    """Filebeat dies three times without warning, and the file is moved away twice, while lines are written."""
    run = start_writing(app, seconds=12)
    for number in range(3):
        time.sleep(2)
        app.check_output("systemctl kill --kill-who=main --signal=SIGKILL filebeat.service")
        if number < 2:
            time.sleep(0.7)
            app.check_output(f"mv {LOG} {LOG}-{run[:8]}{number}")
    assert_all_arrive(search, run, seconds=120)
    assert int(app.check_output("systemctl show filebeat.service --property=NRestarts --value")) >= 3


def test_elasticsearch_may_be_away_for_two_minutes(app: Host, logs: Host, search: Search) -> None:
    run = start_writing(app, seconds=125)
    time.sleep(2)
    logs.check_output("systemctl stop elasticsearch.service")
    time.sleep(120)
    assert app.service("filebeat").is_running
    logs.check_output("systemctl start elasticsearch.service")
    assert_all_arrive(search, run, seconds=120)


def closed(search: Search) -> set[str]:
    """Return the indices that Elasticsearch has closed for writing because its disk is full."""
    found = search("/app-logs-2*/_settings?flat_settings=true")
    return {name for name, index in found.items() if index["settings"].get(CLOSED) == "true"}


def wait_for(condition: Callable[[], bool], what: str, seconds: float = 60) -> None:
    """Wait until something is so."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"not within {seconds} s: {what}"
        time.sleep(0.5)


def test_full_disk_of_elasticsearch_loses_nothing(app: Host, logs: Host, search: Search) -> None:
    """Filled beyond the flood-stage watermark of 95 % while lines are written, and freed again."""

    def told(*names: str) -> list[int]:
        events = stats(app)["libbeat"]["output"]["events"]
        return [events[name] for name in names]

    given_up = told("dead_letter", "dropped")
    assert closed(search) == set()
    total, free = (int(size) for size in logs.check_output(f"df -B1 --output=size,avail {DATA} | tail -1").split())
    run = start_writing(app, seconds=90)
    time.sleep(2)
    logs.check_output(f"fallocate --length {free - total // 50} {FILLER}")
    try:
        wait_for(lambda: closed(search) != set(), "Elasticsearch closes its indices")
        # What was stored just before is found by then.
        time.sleep(3)
        stored, acknowledged = count(search, run)[0], told("acked")
        time.sleep(10)
        written = int(app.check_output(f"cat {LOG}* | grep -c {run}"))
        assert stored < written < LINES, "the bank goes on writing"
        assert count(search, run)[0] == stored, "nothing is stored meanwhile"
        assert told("acked") == acknowledged
        # Read, and held back.
        assert stats(app)["libbeat"]["pipeline"]["events"]["active"] > 0
        assert app.service("filebeat").is_running
    finally:
        logs.check_output(f"rm --force {FILLER}")
    wait_for(lambda: closed(search) == set(), "Elasticsearch opens its indices again")
    assert_all_arrive(search, run, seconds=150)
    assert told("dead_letter", "dropped") == given_up


def test_password_is_in_the_keystore_only(app: Host, secrets: dict[str, str]) -> None:
    # The first half has no special character that a log might have escaped.
    half = secrets["vault_filebeat_elasticsearch_password"][:16]
    # As a pattern that does not match itself.
    pattern = shlex.quote(f"[{half[0]}]{half[1:]}")
    found = app.run(f"grep -rla {pattern} /etc /var/log /var/lib /run/systemd /usr/lib/systemd /root")
    assert (found.rc, found.stdout) == (1, ""), found.stdout
    assert app.run(f"journalctl --no-pager | grep -c {pattern}").stdout.strip() == "0"
    assert app.run(f"cat /proc/[0-9]*/cmdline /proc/[0-9]*/environ | grep -ca {pattern}").stdout.strip() == "0"
    assert app.check_output("filebeat keystore list").split() == ["ELASTICSEARCH_API_KEY"]


@pytest.mark.parametrize(
    ("path", "mode"),
    [
        ("/etc/filebeat/filebeat.yml", 0o600),
        ("/var/lib/filebeat/filebeat.keystore", 0o600),
        ("/var/lib/filebeat/filebeat.keystore.seal", 0o600),
        ("/etc/pki/bank/filebeat/tls.key", 0o640),
    ],
)
def test_files_are_closed(app: Host, path: str, mode: int) -> None:
    file = app.file(path)
    assert (file.user, file.group, oct(file.mode)) == ("root", "root", oct(mode))


def test_state_is_closed_and_no_copy_is_left(app: Host) -> None:
    assert app.check_output("find /var/lib/filebeat -type f -perm /077") == ""
    assert app.check_output("find /etc/filebeat /var/lib/filebeat /etc/systemd/system -name '*~'") == ""


def test_figures_are_for_this_host_alone(app: Host) -> None:
    assert app.check_output("ss -Hltn sport = :5066").split()[3] == "127.0.0.1:5066"


def test_unit_is_sandboxed(app: Host) -> None:
    switches = ("ProtectHome", "PrivateTmp", "NoNewPrivileges", "PrivateDevices", "MemoryDenyWriteExecute")
    names = ",".join((*switches, "ProtectSystem", "CapabilityBoundingSet", "MainPID"))
    shown = app.check_output(f"systemctl show filebeat.service -p {names}")
    properties = dict(line.split("=", 1) for line in shown.splitlines())
    assert properties["ProtectSystem"] == "strict"
    assert {properties[name] for name in switches} == {"yes"}
    assert properties["CapabilityBoundingSet"] == "cap_dac_override"
    assert "NoNewPrivs:\t1" in app.file(f"/proc/{properties['MainPID']}/status").content_string
    app.run_expect([0], "systemd-analyze security filebeat.service --threshold=30 --no-pager")
    assert app.service("filebeat").is_enabled


def test_bad_values_are_refused_before_anything_changes(app: Host, apply: "Apply") -> None:
    before = app.file("/etc/filebeat/filebeat.yml").sha256sum
    inputs = [{"id": "bank", "type": "log", "paths": ["/var/log/x"]}, {"id": "empty", "type": "filestream"}]
    result = apply(
        filebeat_inputs_extra=inputs,
        filebeat_elasticsearch_password="short",
        filebeat_allow_older_elasticsearch=False,
        filebeat_queue_mb=1,
        filebeat_settings={"output.file.path": "/tmp"},
    )
    assert result.failed
    for words in (
        "correct the type of bank",
        "Two inputs have the same id",
        "give paths to empty",
        "shorter than 16 characters",
        "is newer than Elasticsearch",
        "no queue below 10",
        "must not hold output.file.path",
    ):
        assert words in result.words, result.output
    assert result.changed == {APP: 0, LOGS: 0} or result.changed[APP] == 0
    assert app.file("/etc/filebeat/filebeat.yml").sha256sum == before


def test_output_without_hosts_is_refused(apply: "Apply") -> None:
    result = apply(filebeat_output="logstash")
    assert result.failed
    assert "the group logstash has no host: add one" in result.words


def test_input_that_cannot_start_is_taken_back(app: Host, apply: "Apply", search: Search) -> None:
    before = app.file("/etc/filebeat/filebeat.yml").sha256sum
    bad = {"id": "bad", "type": "filestream", "paths": ["/var/log/x"], "settings": {"harvester_limit": "many"}}
    result = apply(filebeat_inputs_extra=[bad])
    assert result.failed
    assert "Failed to start crawler" in result.words
    assert "The previous configuration is back in place" in result.words
    assert app.file("/etc/filebeat/filebeat.yml").sha256sum == before
    line = ecs()
    append(json.dumps(line).encode())
    assert find(search, {"term": {"event.id": line["event.id"]}}, seconds=15)
