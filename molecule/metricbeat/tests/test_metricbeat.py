"""Figures of a host and its services are found with their types, and with nothing secret among them."""

import json
import shlex
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest
import testinfra
from testinfra.host import Host

if TYPE_CHECKING:
    from molecule.conftest import Apply

HOST = "metricbeat-all1"
SETTINGS = "/etc/metricbeat/metricbeat.yml"
DATASETS = {
    "system.cpu",
    "system.load",
    "system.memory",
    "system.network",
    "system.process",
    "system.process.summary",
    "system.socket.summary",
    "system.filesystem",
    "system.fsstat",
    "system.diskio",
    "system.uptime",
    "postgresql.database",
    "postgresql.bgwriter",
    "postgresql.activity",
    "haproxy.stat",
    "redis.info",
    "elasticsearch.node",
    "elasticsearch.node.stats",
}

Search = Callable[..., dict[str, Any]]


@pytest.fixture(scope="session")
def host() -> Host:
    """Return the host of the scenario."""
    return testinfra.get_host(f"docker://{HOST}")


@pytest.fixture(scope="session")
def search(host: Host, secrets: dict[str, str]) -> Search:
    """Return a function that asks Elasticsearch, as its superuser."""

    def ask(path: str, body: object = None, user: str = "elastic") -> dict[str, Any]:
        password = secrets[f"vault_elasticsearch_{user}_password" if user == "elastic" else f"vault_{user}"]
        login = f"{'metricbeat' if user != 'elastic' else user}:{password}"
        settings = 'user = "' + login.replace("\\", "\\\\").replace('"', '\\"') + '"\n'
        command = "curl --silent --max-time 20 --cacert /etc/elasticsearch/certs/ca.crt --config - "
        if body is not None:
            command += f"--header 'Content-Type: application/json' --data-binary {shlex.quote(json.dumps(body))} "
        answer = host.check_output(
            f"printf %s {shlex.quote(settings)} | {command} {shlex.quote(f'https://{HOST}.bank.internal:9200{path}')}"
        )
        return json.loads(answer)

    return ask


def newest(search: Search, dataset: str, seconds: float = 15) -> dict[str, Any]:
    """Return the newest document of a dataset."""
    body = {"query": {"term": {"event.dataset": dataset}}, "size": 1, "sort": [{"@timestamp": "desc"}]}
    end = time.monotonic() + seconds
    while True:
        hits = search("/metricbeat-*/_search", body).get("hits", {}).get("hits", [])
        if hits or time.monotonic() > end:
            assert hits, f"nothing of {dataset}"
            return hits[0]
        time.sleep(0.5)


def age(search: Search, dataset: str) -> str:
    """Return the time of the newest document of a dataset."""
    return str(newest(search, dataset)["_source"]["@timestamp"])


def wait_for_new(search: Search, dataset: str, seconds: float = 30) -> bool:
    """Tell whether a newer document arrives."""
    before, end = age(search, dataset), time.monotonic() + seconds
    while time.monotonic() < end:
        if age(search, dataset) > before:
            return True
        time.sleep(0.5)
    return False


def shown(host: Host, *names: str) -> dict[str, str]:
    """Return properties of the unit as systemd has them."""
    output = host.check_output(f"systemctl show metricbeat.service --property={','.join(names)}")
    return dict(line.split("=", 1) for line in output.splitlines())


@pytest.mark.parametrize("dataset", sorted(DATASETS))
def test_every_set_of_figures_arrives(search: Search, dataset: str) -> None:
    hit = newest(search, dataset)
    source = hit["_source"]
    assert hit["_index"] == "metricbeat-" + str(source["@timestamp"])[:10].replace("-", ".")
    assert (source["host"]["name"], source["labels"]["site"]) == (HOST, "main")
    assert "error" not in source, source["error"]


def types(search: Search) -> dict[str, str]:
    """Return the type of every field that is mapped in the index of the day."""
    found: dict[str, str] = {}

    def walk(properties: dict[str, Any], path: str) -> None:
        for name, entry in properties.items():
            if "properties" in entry:
                walk(entry["properties"], f"{path}{name}.")
            else:
                found[path + name] = entry["type"]

    for index in search("/metricbeat-*/_mapping").values():
        walk(index["mappings"]["properties"], "")
    return found


def test_fields_have_their_types(search: Search) -> None:
    for dataset in DATASETS:
        newest(search, dataset)
    found = types(search)
    wanted = {
        "@timestamp": "date",
        "event.dataset": "keyword",
        "system.cpu.total.pct": "double",
        "system.load.1": "double",
        "system.load.cores": "long",
        "system.memory.actual.used.bytes": "long",
        "system.memory.actual.used.pct": "double",
        "system.network.in.bytes": "long",
        "system.filesystem.mount_point": "keyword",
        "system.filesystem.used.pct": "double",
        "system.process.memory.rss.bytes": "long",
        "system.process.cpu.start_time": "date",
        "process.name": "keyword",
        "process.pid": "long",
        "system.uptime.duration.ms": "long",
        "postgresql.database.transactions.commit": "long",
        "postgresql.database.blocks.time.read.ms": "double",
        "postgresql.database.stats_reset": "date",
        "postgresql.bgwriter.checkpoints.times.write.ms": "double",
        "haproxy.stat.status": "keyword",
        "haproxy.stat.in.bytes": "long",
        "redis.info.clients.connected": "long",
        "redis.info.cpu.used.sys": "double",
        "redis.info.memory.fragmentation.ratio": "double",
        "elasticsearch.node.name": "keyword",
        "elasticsearch.node.stats.jvm.mem.heap.used.bytes": "long",
    }
    assert {name: found.get(name) for name in wanted} == wanted
    # A figure that is a whole number the first time would be cut off later.
    assert {name: kind for name, kind in found.items() if name.endswith(("pct", "ratio")) and kind != "double"} == {}


def test_host_is_measured_and_the_sandbox_is_not(search: Search) -> None:
    assert newest(search, "system.memory")["_source"]["system"]["memory"]["total"] > 2**28
    body = {"size": 0, "aggs": {"mounts": {"terms": {"field": "system.filesystem.mount_point", "size": 100}}}}
    mounts = {bucket["key"] for bucket in search("/metricbeat-*/_search", body)["aggregations"]["mounts"]["buckets"]}
    assert "/" in mounts
    assert {mount for mount in mounts if mount.startswith(("/proc", "/sys", "/dev", "/run"))} == set()


def test_command_lines_and_statements_are_not_stored(host: Host, search: Search) -> None:
    mark = "kept-to-itself-4711"
    # Busy enough to be among the top of its host.
    program = f"import time\nwhile True: len([1] * 10**6)  # {mark}"
    host.check_output(f"systemd-run --quiet --unit=busy python3 -c {shlex.quote(program)} --password={mark}")
    statement = f"select pg_sleep(12) /* {mark} */"
    host.check_output(
        "systemd-run --quiet --unit=asking --uid=postgres psql --host=/run/postgresql --dbname=postgres "
        f"--command={shlex.quote(statement)}"
    )
    pid = host.check_output("systemctl show busy.service --property=MainPID --value")
    try:
        end = time.monotonic() + 25
        seen: dict[str, int] = {}
        while not seen or (time.monotonic() < end and not all(seen.values())):
            queries = {
                "process": {"term": {"process.pid": int(pid)}},
                "statement": {"term": {"postgresql.activity.state": "active"}},
            }
            seen = {name: search("/metricbeat-*/_count", {"query": query})["count"] for name, query in queries.items()}
            time.sleep(0.5)
        assert all(seen.values()), f"both were measured: {seen}"
    finally:
        host.check_output("systemctl stop busy.service asking.service || true")
    time.sleep(6)
    query = {"query": {"query_string": {"query": f"*{mark}*", "fields": ["*"], "lenient": True}}}
    assert search("/metricbeat-*/_count", query)["count"] == 0
    names = set(types(search))
    assert not names & {"process.args", "process.command_line", "system.process.cmdline", "postgresql.activity.query"}


def test_passwords_are_in_the_keystore_only(host: Host, secrets: dict[str, str]) -> None:
    listed = host.check_output("cd / && runuser --user=metricbeat -- metricbeat keystore list")
    assert sorted(listed.split()) == ["ELASTICSEARCH_API_KEY", "HAPROXY_PASSWORD", "REDIS_PASSWORD"]
    for name in ("vault_metricbeat_elasticsearch_password", "vault_metricbeat_redis_password"):
        # The first half has no special character; the pattern does not match itself.
        half = secrets[name][:16]
        pattern = shlex.quote(f"[{half[0]}]{half[1:]}")
        assert host.run(f"grep -rla {pattern} /etc /var/log /var/lib /run/systemd /root").stdout == ""
        assert host.run(f"cat /proc/[0-9]*/cmdline /proc/[0-9]*/environ | grep -ca {pattern}").stdout.strip() == "0"


def test_unit_runs_without_root_and_without_capabilities(host: Host) -> None:
    unit = shown(host, "User", "CapabilityBoundingSet", "AmbientCapabilities", "ProtectSystem", "MainPID", "MemoryMax")
    assert (unit["User"], unit["CapabilityBoundingSet"], unit["AmbientCapabilities"]) == ("metricbeat", "", "")
    assert (unit["ProtectSystem"], unit["MemoryMax"]) == ("strict", str(256 * 2**20))
    status = host.file(f"/proc/{unit['MainPID']}/status").content_string
    assert "CapPrm:\t0000000000000000" in status
    assert f"Uid:\t{host.check_output('id --user metricbeat')}\t" in status
    host.run_expect([0], "systemd-analyze security metricbeat.service --threshold=30 --no-pager")
    assert host.check_output("ss -Hltn sport = :5067").split()[3] == "127.0.0.1:5067"
    assert host.service("metricbeat").is_enabled


def test_users_may_do_no_more_than_they_need(host: Host, search: Search) -> None:
    sql = "select string_agg(rolname, ',') from pg_roles r where pg_has_role('metricbeat', r.oid, 'member')"
    members = host.check_output(
        f"runuser --user=postgres -- psql --host=/run/postgresql -At --command={shlex.quote(sql)}"
    )
    assert set(members.split(",")) == {
        "metricbeat",
        "pg_monitor",
        "pg_read_all_settings",
        "pg_read_all_stats",
        "pg_stat_scan_tables",
    }
    denied = search("/app-logs-*/_search", user="metricbeat_elasticsearch_password")
    assert denied["status"] == 403
    assert search("/metricbeat-*/_search", user="metricbeat_elasticsearch_password")["status"] == 403


def test_killed_service_comes_back(host: Host, search: Search) -> None:
    before = shown(host, "MainPID")["MainPID"]
    host.check_output("systemctl kill --kill-who=main --signal=SIGKILL metricbeat.service")
    end = time.monotonic() + 30
    while shown(host, "MainPID")["MainPID"] in (before, "0"):
        assert time.monotonic() < end, "systemd starts it again"
        time.sleep(0.5)
    assert wait_for_new(search, "system.uptime")


@pytest.mark.parametrize(
    ("variables", "task", "reason", "state"),
    [
        (
            {"metricbeat_elasticsearch_password": "not the right password"},
            "Keep a key of its own at Elasticsearch",
            "answered 401 to user metricbeat",
            "No file of the configuration was changed",
        ),
        (
            {"metricbeat_redis_password": "not the right password"},
            "Wait until events have arrived",
            "redis.info",
            "The previous configuration is back in place",
        ),
    ],
)
def test_wrong_password_is_taken_back(
    host: Host, apply: "Apply", search: Search, variables: dict[str, str], task: str, reason: str, state: str
) -> None:
    before = host.file(SETTINGS).sha256sum
    result = apply(**variables)
    assert result.failed
    assert f'Metricbeat on {HOST} failed at "{task}"' in result.words
    assert reason in result.words
    assert state in result.words
    assert host.file(SETTINGS).sha256sum == before
    assert wait_for_new(search, "redis.info")


def test_bad_values_are_refused_before_anything_changes(host: Host, apply: "Apply") -> None:
    before = host.file(SETTINGS).sha256sum
    result = apply(
        metricbeat_modules_extra=[{"module": "http", "metricsets": []}],
        metricbeat_period_seconds=0,
        metricbeat_redis_password="",
        metricbeat_settings={"metricbeat.modules": []},
        metricbeat_allow_older_elasticsearch=False,
    )
    assert result.failed
    for words in (
        "give metricsets to http",
        "give hosts to http",
        "metricbeat_period_seconds is 0",
        "metricbeat_redis_password (vault_metricbeat_redis_password) is empty",
        "must not hold metricbeat.modules",
        "is newer than Elasticsearch",
    ):
        assert words in result.words, result.output
    assert result.changed[HOST] == 0
    assert host.file(SETTINGS).sha256sum == before
