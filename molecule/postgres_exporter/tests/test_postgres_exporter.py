"""What Prometheus learns of a PostgreSQL server, and what the exporter, a stranger or a wrong value may not do."""

from __future__ import annotations

import json
import re
import shlex
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import testinfra
from testinfra.host import Host

if TYPE_CHECKING:
    from conftest import Apply

HOST = "postgres-exporter-db1"
NAME = f"{HOST}.bank.internal"
URL = f"https://{NAME}:9187/metrics"
# The role alone.
ROLE = Path(__file__).parents[2] / "shared/converge.yml"
EXPORTER = "prometheus:{vault_exporter_web_password}"

Fetch = Callable[..., tuple[int, str]]


@pytest.fixture(scope="session")
def server() -> Host:
    """Connect to the database's host."""
    return testinfra.get_host(f"docker://{HOST}")


@pytest.fixture(scope="session")
def fetch(server: Host, secrets: dict[str, str]) -> Fetch:
    """Return a function that asks an address with a log-in: the status and the answer."""

    def ask(url: str = URL, login: str = EXPORTER) -> tuple[int, str]:
        login = login.format(**secrets).replace("\\", "\\\\").replace('"', '\\"')
        settings = f'user = "{login}"\n' if login else ""
        command = "curl --silent --max-time 20 --cacert /etc/pki/bank/postgres_exporter/ca.crt --config -"
        answer = server.run(
            f"printf %s {shlex.quote(settings)} | {command} --write-out '\\n%{{http_code}}' {shlex.quote(url)}"
        )
        text, _, code = answer.stdout.rpartition("\n")
        return int(code), text

    return ask


def sql(server: Host, account: str, statement: str, database: str = "bank") -> tuple[int, str]:
    """Run SQL over the socket as an account of the host."""
    answer = server.run("runuser -u %s -- psql -XAt -d %s -c %s", account, database, statement)
    return answer.rc, (answer.stdout + answer.stderr).strip()


@pytest.fixture(scope="module")
def table(server: Host) -> Iterator[str]:
    """Make a table that holds something which is nobody's business."""
    made = sql(server, "postgres", "SET ROLE bank_owner; CREATE TABLE kept AS SELECT 'private' AS word; ANALYZE kept")
    assert made[0] == 0, made[1]
    yield "kept"
    sql(server, "postgres", "DROP TABLE kept")


def test_prometheus_reads_the_server(fetch: Fetch) -> None:
    query = "query?query=" + "up%7Bjob%3D%22postgresql%22%7D%20*%20on(instance)%20group_left%20pg_up"
    deadline = time.monotonic() + 60
    while True:
        code, text = fetch(f"https://{NAME}:9090/api/v1/{query}", "operator:{vault_prometheus_web_password}")
        found = json.loads(text)["data"]["result"] if code == 200 else []
        if found or time.monotonic() > deadline:
            break
        time.sleep(1)
    assert [sample["value"][1] for sample in found] == ["1"]
    assert {name: found[0]["metric"][name] for name in ("instance", "group", "role", "site")} == {
        "instance": HOST,
        "group": "postgresql,prometheus",
        "role": "postgresql",
        "site": "main",
    }


def test_server_and_tables_are_measured(fetch: Fetch, table: str) -> None:
    metrics = fetch()[1]
    for series in (
        "pg_up",
        'pg_database_size_bytes{datname="bank"}',
        'pg_stat_database_xact_commit{datid="[0-9]+",datname="bank"}',
        'pg_stat_activity_count{.*datname="bank".*}',
        'pg_locks_count{datname="bank",mode="accesssharelock"}',
        'pg_roles_connection_limit{rolname="postgres_exporter"}',
        "pg_settings_max_connections{.*}",
        "pg_replication_is_replica",
        "pg_wal_size_bytes",
        'pg_database_wraparound_age_datfrozenxid_seconds{datname="bank"}',
        "pg_long_running_transactions",
        "pg_postmaster_start_time_seconds",
        f'pg_stat_user_tables_n_live_tup{{datname="bank",relname="{table}",schemaname="public"}}',
    ):
        assert re.search(rf"^{series} \S+$", metrics, re.MULTILINE), series
    assert "private" not in metrics
    failed = re.findall(r'^pg_scrape_collector_success\{collector="(\w+)"\} 0$', metrics, re.MULTILINE)
    assert failed == []


def test_exporter_reads_statistics_and_no_table(server: Host, table: str) -> None:
    code, text = sql(server, "postgres_exporter", f"SELECT * FROM {table}")
    assert code != 0
    assert "permission denied for table" in text
    code, text = sql(server, "postgres_exporter", "CREATE TEMP TABLE own (id int)")
    assert "permission denied to create temporary tables" in text
    assert sql(server, "postgres_exporter", "SELECT rolsuper OR rolcreaterole FROM pg_roles WHERE rolname = user") == (
        0,
        "f",
    )


def test_its_role_opens_to_no_other_account_and_not_over_the_network(server: Host) -> None:
    answer = server.run("runuser -u postgres -- psql -XAt -d bank -U postgres_exporter -c 'SELECT 1'")
    assert "Peer authentication failed" in answer.stderr
    answer = server.run(
        "runuser -u postgres_exporter -- env PGPASSWORD=any psql -XAt --no-password -c 'SELECT 1'"
        f" 'host={NAME} dbname=bank user=postgres_exporter'"
    )
    assert "pg_hba.conf rejects connection" in answer.stderr


@pytest.mark.parametrize("login", ["", "prometheus:wrong", "someone:{vault_exporter_web_password}", "prometheus:"])
def test_strangers_are_refused(fetch: Fetch, login: str) -> None:
    for path in ("/metrics", "/probe?target=localhost", "/"):
        code, text = fetch(URL.removesuffix("/metrics") + path, login)
        assert code == 401
        assert "pg_" not in text


def test_plain_http_is_refused(fetch: Fetch) -> None:
    assert fetch(URL.replace("https", "http"))[0] == 400


def test_password_is_nowhere_to_be_read(server: Host, secrets: dict[str, str]) -> None:
    # The first half has no special character that a log might have escaped.
    shown = server.check_output("systemctl cat postgres_exporter; ps -eo args; journalctl --no-pager --output=cat")
    assert secrets["vault_exporter_web_password"][:16] not in shown
    assert server.run("grep -rF %s /etc/postgres_exporter", secrets["vault_exporter_web_password"][:16]).rc == 1
    files = server.check_output("stat --format='%a %U %G %n' /etc/postgres_exporter /etc/postgres_exporter/*")
    assert files.splitlines() == [
        "750 root postgres_exporter /etc/postgres_exporter",
        "640 root postgres_exporter /etc/postgres_exporter/config.yml",
        "640 root postgres_exporter /etc/postgres_exporter/web.yml",
    ]
    assert server.check_output("stat --format=%a /etc/prometheus/exporter_password") == "640"


def test_sandbox_is_effective(server: Host) -> None:
    properties = {
        "CapabilityBoundingSet": "",
        "NoNewPrivileges": "yes",
        "ProtectSystem": "strict",
        "ReadWritePaths": "",
        "User": "postgres_exporter",
    }
    for name, value in properties.items():
        assert server.check_output(f"systemctl show --property={name} --value postgres_exporter") == value, name
    assert server.run("systemd-analyze security --threshold=15 postgres_exporter.service").rc == 0


def test_service_comes_back_after_a_crash(server: Host, fetch: Fetch) -> None:
    process = "systemctl show --property=MainPID --value postgres_exporter"
    before = server.check_output(process)
    server.run_expect([0], "systemctl kill --signal=KILL postgres_exporter")
    deadline = time.monotonic() + 20
    while server.check_output(process) in ("0", before) or fetch()[0] != 200:
        assert time.monotonic() < deadline, "postgres_exporter did not come back"
        time.sleep(0.5)


def state(server: Host) -> str:
    """Return what the role may change on the host, and the running process."""
    return server.check_output(
        "find /etc/postgres_exporter /etc/systemd/system/postgres_exporter.service -type f -exec sha256sum {} + | sort;"
        " readlink /opt/postgres_exporter/current; systemctl show --property=MainPID,ActiveState postgres_exporter"
    )


@pytest.mark.parametrize(
    ("variables", "sentences"),
    [
        ({"vault_exporter_web_password": "short"}, ["vault_exporter_web_password needs 16 to 72 bytes"]),
        (
            {"vault_exporter_web_password": "é" * 37, "postgres_exporter_web_user": "a:b"},
            ["vault_exporter_web_password needs 16 to 72 bytes", 'the name "a:b" needs letters'],
        ),
        (
            {"postgres_exporter_database": "bank sslmode=allow", "postgresql_users": []},
            ["a name of lower case letters, digits and underscores is needed", "has no role postgres_exporter"],
        ),
        (
            {
                "postgres_exporter_database": "template1",
                "postgres_exporter_collectors": ["wal"],
                "postgres_exporter_collectors_off": ["wal"],
            },
            ["may not connect to template1", "postgres_exporter_collectors_off both name wal"],
        ),
        ({"postgres_exporter_port": "nine"}, ["postgres_exporter_port"]),
    ],
)
def test_bad_value_is_refused_and_changes_nothing(
    server: Host, apply: Apply, variables: dict[str, object], sentences: list[str]
) -> None:
    before = state(server)
    answer = apply(ROLE, **variables)
    assert answer.failed
    assert [sentence for sentence in sentences if sentence not in answer.words] == []
    assert state(server) == before


def test_server_that_does_not_answer_is_told(server: Host, apply: Apply, fetch: Fetch) -> None:
    server.run_expect([0], "systemctl stop postgresql")
    answer = apply(ROLE)
    server.run_expect([0], "systemctl start postgresql")
    assert answer.failed
    assert "could not read all of PostgreSQL's statistics over /run/postgresql" in answer.words
    assert "connect: no such file or directory" in answer.words
    # It needs no help to find the server again.
    assert re.search(r"^pg_up 1$", fetch()[1], re.MULTILINE)
