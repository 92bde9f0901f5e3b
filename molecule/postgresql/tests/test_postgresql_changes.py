"""What a changed declaration does to a running server, and what a broken one does not do."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import testinfra
from testinfra.host import Host

if TYPE_CHECKING:
    from conftest import Apply

TWO_PRIMARIES = Path(__file__).with_name("two_primaries.yml")
DATA = "/var/lib/pgsql/data"
ACCESS = {"databases": ["bank"], "users": ["bank_owner", "bank_app"], "groups": ["bank_app"]}


def sql(server: Host, statement: str, database: str = "postgres") -> str:
    """Run SQL as the superuser on the host itself."""
    return server.check_output("runuser -u postgres -- psql -XAt -d %s -c %s", database, statement).strip()


def process(server: Host) -> str:
    """Return the number of the server's first process."""
    return server.check_output(f"head -n1 {DATA}/postmaster.pid")


@pytest.fixture(scope="module")
def server() -> Host:
    """Return the database host."""
    return testinfra.get_host("docker://postgresql-db1")


@pytest.fixture(scope="module")
def changed(server: Host, apply: Apply) -> dict[str, str]:
    """Declare a further role with a database and an address; the last test here takes them out again."""
    before = process(server)
    # By hand, against the declaration.
    sql(server, "ALTER SYSTEM SET log_lock_waits = off")
    users = [
        {"name": "bank_owner", "password": "{{ vault_bank_database_owner_password }}"},
        {"name": "bank_app", "password": "{{ vault_bank_database_password }}", "connection_limit": 40},
        {
            "name": "visitor",
            "password": "correct horse ' \" battery",
            "member_of": ["pg_monitor"],
            "databases": ["bank"],
        },
    ]
    answer = apply(
        postgresql_users=users,
        postgresql_databases=[{"name": "bank", "owner": "bank_owner"}, {"name": "guests", "owner": "visitor"}],
        postgresql_access=[ACCESS | {"addresses": ["192.0.2.0/24"]}, {"databases": ["guests"], "users": ["visitor"]}],
        postgresql_settings={"work_mem": "5MB"},
    )
    assert not answer.failed, answer.output
    return {"before": before, "after": process(server)}


def test_access_and_roles_change_without_a_restart(server: Host, changed: dict[str, str]) -> None:
    assert changed["after"] == changed["before"]
    assert sql(server, "SELECT count(*) FROM pg_hba_file_rules WHERE address = '192.0.2.0'") == "1"
    assert sql(server, "SHOW work_mem") == "5MB"
    assert sql(server, "SHOW log_lock_waits") == "on"
    assert sql(server, "SELECT rolconnlimit FROM pg_roles WHERE rolname = 'bank_app'") == "40"
    assert sql(server, "SELECT pg_has_role('visitor', 'pg_monitor', 'member')") == "t"
    rights = sql(server, "SELECT datacl FROM pg_database WHERE datname = 'guests'")
    assert rights == "{visitor=CTc/visitor}"
    rights = sql(server, "SELECT datacl FROM pg_database WHERE datname = 'bank'")
    assert rights == "{bank_owner=CTc/bank_owner,bank_app=c/bank_owner,visitor=c/bank_owner}"


def test_broken_access_rule_leaves_everything_as_it_was(server: Host, changed: dict[str, str], apply: Apply) -> None:
    before = server.file(f"{DATA}/pg_hba.conf").sha256sum
    answer = apply(postgresql_access=[ACCESS | {"addresses": ["192.0.2.0/99"]}])
    assert answer.failed
    assert "The previous configuration is back in place." in answer.words
    assert server.file(f"{DATA}/pg_hba.conf").sha256sum == before
    assert process(server) == changed["before"]
    assert server.check_output(f"find {DATA} -name '*~'") == ""


def test_unknown_setting_is_refused_by_name(server: Host, changed: dict[str, str], apply: Apply) -> None:
    before = server.file(f"{DATA}/conf.d/platform.conf").sha256sum
    answer = apply(postgresql_settings={"shared_bufers": "1GB"})
    assert answer.failed
    assert "shared_bufers" in answer.words
    assert server.file(f"{DATA}/conf.d/platform.conf").sha256sum == before


def test_role_that_left_is_removed_and_what_it_owned_is_kept(
    server: Host, changed: dict[str, str], apply: Apply
) -> None:
    sql(server, "SET ROLE visitor; CREATE TABLE IF NOT EXISTS kept (id int)", "guests")
    answer = apply()
    assert not answer.failed, answer.output
    assert sql(server, "SELECT count(*) FROM pg_roles WHERE rolname = 'visitor'") == "0"
    assert sql(server, "SELECT tableowner FROM pg_tables WHERE tablename = 'kept'", "guests") == "postgres"
    assert sql(server, "SELECT count(*) FROM pg_hba_file_rules WHERE address = '192.0.2.0'") == "0"
    assert sql(server, "SHOW work_mem") != "5MB"


def test_archive_is_switched_on_by_a_restart_and_gets_the_log(
    server: Host, changed: dict[str, str], apply: Apply
) -> None:
    before = process(server)
    answer = apply(
        postgresql_archive_command="cp %p /srv/archive/%f",
        postgresql_archive_seconds=60,
        postgresql_writable_paths=["/srv/archive"],
    )
    assert not answer.failed, answer.output
    assert process(server) != before
    assert server.check_output("stat --format='%U %a' /srv/archive") == "postgres 750"
    assert sql(
        server, "SELECT string_agg(setting, ' ' ORDER BY name) FROM pg_settings WHERE name ~ '^archive_(m|t)'"
    ) == ("on 60")
    segment = sql(server, "SELECT pg_walfile_name(pg_switch_wal())")
    deadline = time.monotonic() + 20
    while not server.file(f"/srv/archive/{segment}").exists:
        assert time.monotonic() < deadline, "the segment did not come to the archive"
        time.sleep(0.2)
    answer = apply()
    assert not answer.failed, answer.output
    assert sql(server, "SHOW archive_mode") == "off"


def test_second_primary_is_refused_before_anything_changes(apply: Apply) -> None:
    answer = apply(None, "--inventory", TWO_PRIMARIES)
    assert answer.failed
    assert "leave one host in it" in answer.words
    assert not any(answer.changed.values())
