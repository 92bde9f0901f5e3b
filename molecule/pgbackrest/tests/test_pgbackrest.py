"""What a backup is worth: what comes back of it, who can read it, and what is told when there is none."""

from __future__ import annotations

import json
import re
import shlex
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import testinfra
from testinfra.host import Host

if TYPE_CHECKING:
    from conftest import Apply

HOST = "pgbackrest-db1"
PLAYBOOKS = Path(__file__).parents[3] / "playbooks"
BACKUP, RESTORE = PLAYBOOKS / "backup_postgresql.yml", PLAYBOOKS / "restore_postgresql.yml"
REPOSITORIES = ("/var/lib/pgbackrest", "/srv/off-site/pgbackrest")
DATA = "/var/lib/pgsql/data"
SCRATCH = "/var/lib/pgbackrest-scratch"
JOBS = ("pgbackrest-backup", "pgbackrest-restore-test", "pgbackrest-archive")
# Long enough to be found in a file, and in nothing else.
KNOWN = "a customer whose name nobody else may read"


@pytest.fixture(scope="session")
def host() -> Host:
    """Return the database's host, with a ledger in its database."""
    server = testinfra.get_host(f"docker://{HOST}")
    sql(server, "CREATE TABLE IF NOT EXISTS ledger (who text, amount int)", "TRUNCATE ledger")
    sql(
        server,
        f"INSERT INTO ledger SELECT '{KNOWN}', amount FROM generate_series(1, 500), (VALUES (1), (-1)) v (amount)",
    )
    return server


def sql(host: Host, *statements: str) -> str:
    """Run SQL in the bank's database as the superuser, each statement by itself."""
    words = " ".join(f"-c {shlex.quote(statement)}" for statement in statements)
    return host.check_output(f"cd / && runuser -u postgres -- psql -XAtq -v ON_ERROR_STOP=1 -d bank {words}").strip()


def figures(host: Host) -> dict[str, float]:
    """Return every figure as node_exporter reads it."""
    text = host.check_output("cat /var/lib/node_exporter/textfile/pgbackrest-*.prom")
    return {name: float(value) for name, value in re.findall(r"^(pg_\w+) (\S+)$", text, re.MULTILINE)}


def run(host: Host, job: str) -> tuple[int, str]:
    """Run a job as its timer does: its exit code, and what it wrote to the journal."""
    began = host.check_output("date +%s.%N")
    code = host.run(f"systemctl start {job}.service").rc
    host.check_output("journalctl --sync")
    return code, host.check_output(f"journalctl --unit={job}.service --since=@{began} --no-pager --output=cat")


def backups(host: Host) -> list[str]:
    """Return the labels of all backups in all repositories."""
    answer = host.check_output("cd / && runuser -u postgres -- pgbackrest --stanza=main info --output=json")
    return [backup["label"] for backup in json.loads(answer)[0]["backup"]]


def state(host: Host) -> str:
    """Return what the role writes, and which process the server is."""
    return host.check_output(
        "find /etc/pgbackrest /opt/pgbackrest /etc/systemd/system -type f -exec sha256sum {} + | sort;"
        f" head -n1 {DATA}/postmaster.pid"
    )


def test_first_backup_and_first_restore_were_made_by_the_role(host: Host) -> None:
    told = figures(host)
    now = float(host.check_output("date +%s"))
    assert (told["pg_backup_status"], told["pg_restore_test_status"], told["pg_wal_archive_status"]) == (0, 0, 0)
    assert told["pg_backup_size_bytes"] > 10_000_000
    assert 0 < told["pg_backup_duration_seconds"] < 120
    assert 0 < told["pg_restore_duration_seconds"] < 120
    for name in ("pg_backup_last", "pg_backup_last_success", "pg_backup_last_full", "pg_restore_test_last_success"):
        assert now - 1800 < told[f"{name}_timestamp_seconds"] <= now + 1, name
    assert told["pg_wal_archive_age_seconds"] < 300
    assert [label for label in backups(host) if label.endswith("F")] != []


def test_server_archives_at_least_every_five_minutes(host: Host) -> None:
    assert sql(host, "SHOW archive_mode", "SHOW archive_timeout").split() == ["on", "5min"]


def test_timers_run_by_the_clock_and_after_a_boot(host: Host) -> None:
    for job, schedule in zip(JOBS, ("*-*-* *:00/30:00", "*-*-* 03:10:00", "*-*-* *:*:00"), strict=True):
        shown = host.check_output(
            f"systemctl show {job}.timer -p ActiveState -p UnitFileState -p TimersCalendar -p Persistent"
        )
        assert "ActiveState=active" in shown
        assert "UnitFileState=enabled" in shown
        assert "Persistent=yes" in shown
        assert f"OnCalendar={schedule} ;" in shown


def test_backup_on_demand_goes_to_every_repository_and_nobody_can_read_it(
    host: Host, apply: Apply, secrets: dict[str, str]
) -> None:
    before = backups(host)
    answer = apply(BACKUP)
    assert not answer.failed, answer.output
    assert "is complete after" in answer.words
    fresh = [label for label in backups(host) if label not in before]
    assert len(fresh) == len(REPOSITORIES)
    assert all(label.endswith("I") for label in fresh)
    # In the clear where the server keeps it, so that the search below could find it.
    host.check_output("cd / && runuser -u postgres -- psql -Xq -c CHECKPOINT")
    assert host.run(f"grep -rqF '{KNOWN}' {DATA}/base").rc == 0
    for repository in REPOSITORIES:
        files = host.check_output(f"find {repository} -type f").split("\n")
        assert len(files) > 10
        assert host.run(f"grep -rqF '{KNOWN}' {repository}").rc == 1
        # Compressed text would not be found either: every file begins as openssl's encrypted ones do.
        heads = host.check_output(f"find {repository} -type f -exec head -qc 8 {{}} \\;")
        assert heads == "Salted__" * len(files)
        assert host.check_output(f"find {repository} ! -type l '(' ! -user postgres -o -perm /o+rwx ')'") == ""


def test_passphrase_is_where_only_the_server_reads_it(host: Host, secrets: dict[str, str]) -> None:
    listed = host.check_output("stat --format='%a %U %n' /etc/pgbackrest /etc/pgbackrest/* " + SCRATCH).splitlines()
    assert listed == [
        "750 root /etc/pgbackrest",
        "640 root /etc/pgbackrest/job.json",
        "640 root /etc/pgbackrest/pgbackrest.conf",
        f"700 postgres {SCRATCH}",
    ]
    # The first half has no special character that a log might have escaped.
    secret = secrets["vault_pgbackrest_cipher_passphrase"][:16]
    shown = host.check_output("systemctl cat 'pgbackrest-*'; ps -eo args; journalctl --no-pager --output=cat")
    assert secret not in shown
    found = host.run(f"grep -rlF {secret} /etc /opt /var/lib/pgbackrest-job {DATA}/log {DATA}/conf.d")
    assert found.stdout.split() == ["/etc/pgbackrest/pgbackrest.conf"]


@pytest.mark.parametrize("job", JOBS)
def test_jobs_are_sandboxed(host: Host, job: str) -> None:
    properties = {"User": "postgres", "NoNewPrivileges": "yes", "ProtectSystem": "strict", "CapabilityBoundingSet": ""}
    for name, value in properties.items():
        assert host.check_output(f"systemctl show --property={name} --value {job}") == value, name
    assert host.run(f"systemd-analyze security --threshold=25 {job}.service").rc == 0


def test_rows_written_after_the_backup_come_back_to_the_moment_before_the_table_was_dropped(
    host: Host, apply: Apply
) -> None:
    sql(host, "INSERT INTO ledger SELECT 'after the backup', 0 FROM generate_series(1, 77)")
    moment = sql(host, "SELECT to_char(clock_timestamp() AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS.US+0000')")
    time.sleep(0.1)
    sql(host, "DROP TABLE ledger", "CREATE TABLE later (id int)")
    answer = apply(
        RESTORE, pgbackrest_restore_host=HOST, pgbackrest_restore_confirm=HOST, pgbackrest_restore_time=moment
    )
    assert not answer.failed, answer.output
    assert sql(host, "SELECT count(*), sum(amount), count(*) FILTER (WHERE who = 'after the backup') FROM ledger") == (
        "1077|0|77"
    )
    assert sql(host, "SELECT to_regclass('later') IS NULL") == "t"
    # It takes orders, goes on archiving, and nothing is left that would be in the way of the next restore.
    sql(host, "INSERT INTO ledger VALUES ('restored', 0)")
    assert host.run(f"grep -E '^(restore_command|recovery_)' {DATA}/postgresql.auto.conf").rc == 1
    assert sql(host, "SELECT count(*) FROM pg_settings WHERE pending_restart") == "0"
    assert figures(host)["pg_backup_status"] == 0
    kept = host.check_output(f"ls -d {DATA}.before-*").splitlines()
    assert len(kept) == 1
    assert kept[0] in answer.words
    assert host.check_output(f"cat {kept[0]}/PG_VERSION") == "15"
    assert host.service("pgbackrest-backup.timer").is_running
    host.check_output(f"rm -r {kept[0]}")


@pytest.mark.parametrize(
    ("variables", "sentence"),
    [
        ({}, f'pgbackrest_restore_host is "", and PostgreSQL runs on {HOST}'),
        ({"pgbackrest_restore_host": HOST, "pgbackrest_restore_confirm": "yes"}, f"pgbackrest_restore_confirm={HOST}"),
        ({"pgbackrest_restore_time": "yesterday"}, 'given: "yesterday"'),
        ({"pgbackrest_restore_time": "2099-01-01 00:00:00+0000"}, "has not come yet"),
        ({"pgbackrest_restore_time": "2001-01-01 00:00:00+0000"}, "choose a later moment"),
    ],
)
def test_restore_that_cannot_be_meant_changes_nothing(
    host: Host, apply: Apply, variables: dict[str, str], sentence: str
) -> None:
    before = state(host)
    agreed = {"pgbackrest_restore_host": HOST, "pgbackrest_restore_confirm": HOST}
    answer = apply(RESTORE, **({**agreed, **variables} if "pgbackrest_restore_time" in variables else variables))
    assert answer.failed
    assert "Nothing was changed" in answer.words
    assert sentence in answer.words
    assert state(host) == before


def test_restore_that_fails_puts_the_data_back(host: Host, apply: Apply) -> None:
    sql(host, "INSERT INTO ledger VALUES ('only here', 0)")
    # The log of this moment is not written yet: the server gives up before it comes to it.
    moment = host.check_output("date --utc --date='+1 second' '+%Y-%m-%d %H:%M:%S+0000'")
    answer = apply(
        RESTORE, pgbackrest_restore_host=HOST, pgbackrest_restore_confirm=HOST, pgbackrest_restore_time=moment
    )
    assert answer.failed
    assert "PostgreSQL runs with the data that it had before" in answer.words
    assert "recovery ended before configured recovery target was reached" in answer.words
    assert sql(host, "SELECT count(*) FROM ledger WHERE who = 'only here'") == "1"
    assert host.run(f"ls -d {DATA}.before-*").rc != 0
    assert host.service("pgbackrest-backup.timer").is_running


def test_restore_is_tried_with_the_log_and_leaves_nothing_behind(host: Host) -> None:
    # Not in any backup yet: only the log has it, and the question to the restored ledger needs it.
    sql(host, "INSERT INTO ledger VALUES ('one', 1), ('less', -1)")
    code, journal = run(host, "pgbackrest-restore-test")
    assert code == 0, journal
    assert journal.count("is sound: PostgreSQL answered after") == len(REPOSITORIES)
    assert "left out" not in journal
    assert host.check_output(f"find {SCRATCH} -mindepth 1") == ""
    assert "restore-test" not in host.check_output("ps -eo args | grep '^postgres'")


def test_ledger_that_does_not_add_up_is_found_in_the_restored_copy(host: Host) -> None:
    known = figures(host)["pg_restore_test_last_success_timestamp_seconds"]
    sql(host, "INSERT INTO ledger VALUES ('too much', 1)", "SELECT pg_switch_wal()")
    time.sleep(1)
    code, journal = run(host, "pgbackrest-restore-test")
    sql(host, "DELETE FROM ledger WHERE who = 'too much'")
    told = figures(host)
    assert code != 0
    assert 'the restored bank answers "f" to: SELECT sum(amount) = 0 FROM ledger' in journal
    assert told["pg_restore_test_status"] == 1
    assert told["pg_restore_test_last_success_timestamp_seconds"] == known
    assert host.check_output(f"find {SCRATCH} -mindepth 1") == ""


def test_backup_without_a_server_fails_and_says_so(host: Host, apply: Apply) -> None:
    good = figures(host)
    host.check_output("systemctl stop postgresql")
    answer = apply(BACKUP)
    run(host, "pgbackrest-archive")
    told = figures(host)
    host.check_output("systemctl start postgresql")
    assert answer.failed
    assert f"The backup of PostgreSQL on {HOST} failed" in answer.words
    assert "unable to find primary cluster" in answer.words
    assert (told["pg_backup_status"], told["pg_backup_size_bytes"], told["pg_wal_archive_status"]) == (1, 0, 1)
    assert told["pg_backup_failures_total"] == good["pg_backup_failures_total"] + 1
    assert told["pg_backup_last_success_timestamp_seconds"] == good["pg_backup_last_success_timestamp_seconds"]
    assert told["pg_backup_last_timestamp_seconds"] > good["pg_backup_last_timestamp_seconds"]
    code, journal = run(host, "pgbackrest-backup")
    assert code == 0, journal
    run(host, "pgbackrest-archive")
    told = figures(host)
    assert (told["pg_backup_status"], told["pg_wal_archive_status"]) == (0, 0)
    assert told["pg_backup_size_bytes"] > 10_000_000


def test_full_repository_is_told_and_the_server_goes_on(host: Host) -> None:
    host.run(f"dd if=/dev/zero of={REPOSITORIES[0]}/filler bs=1M")
    code, journal = run(host, "pgbackrest-backup")
    sql(host, "INSERT INTO ledger VALUES ('in spite of all', 0)", "SELECT pg_switch_wal()")
    deadline = time.monotonic() + 20
    while sql(host, "SELECT failed_count > 0 FROM pg_stat_archiver") != "t":
        assert time.monotonic() < deadline, "no failure was counted"
        time.sleep(0.5)
    run(host, "pgbackrest-archive")
    told = figures(host)
    host.check_output(f"rm {REPOSITORIES[0]}/filler")
    assert code != 0
    assert "The backup in repository 1 failed: pgbackrest failed with code" in journal
    assert (told["pg_backup_status"], told["pg_backup_size_bytes"]) == (1, 0)
    assert told["pg_wal_archive_status"] == 1
    assert told["pg_wal_archive_failures_total"] >= 1
    assert told["pg_wal_archive_waiting_segments"] >= 1
    # There is room again, and nobody has to help.
    code, journal = run(host, "pgbackrest-backup")
    assert code == 0, journal
    run(host, "pgbackrest-archive")
    told = figures(host)
    assert (told["pg_backup_status"], told["pg_wal_archive_status"], told["pg_wal_archive_waiting_segments"]) == (
        0,
        0,
        0,
    )


def test_repository_that_cannot_be_written_is_told(host: Host) -> None:
    folder = f"{REPOSITORIES[1]}/backup"
    host.check_output(f"chown -R root {folder} && chmod -R go-w {folder}")
    code, journal = run(host, "pgbackrest-backup")
    host.check_output(f"chown -R postgres {folder} && chmod -R g-w {folder}")
    assert code != 0
    assert re.search(r"The backup in repository 2 failed: .*Permission denied", journal)
    assert (figures(host)["pg_backup_status"], figures(host)["pg_backup_size_bytes"]) == (1, 0)
    assert run(host, "pgbackrest-backup")[0] == 0


@pytest.mark.parametrize(
    ("variables", "sentences"),
    [
        (
            {"vault_pgbackrest_cipher_passphrase": "another passphrase $HOME `id` %d \" ' é"},
            ["repository 1 cannot be read", "was vault_pgbackrest_cipher_passphrase changed?"],
        ),
        ({"pgbackrest_settings": {"no-such-option": "1"}}, ["no-such-option"]),
        ({"pgbackrest_backup_schedule": "now and then"}, ["is no time that systemd understands", "now and then"]),
        (
            {
                "vault_pgbackrest_cipher_passphrase": "two\nlines",
                "pgbackrest_repositories": [{"path": "backup"}, {"path": "/srv/b", "repo2-type": "s3 x"}],
                "pgbackrest_stanza": "Main",
                "pgbackrest_retention_days": 0,
                "pgbackrest_scratch_directory": DATA,
            },
            [
                "vault_pgbackrest_cipher_passphrase is empty, or holds a line break",
                'pgbackrest_stanza is "Main"',
                "so that nothing goes to the archive",
                "a path of letters, digits",
                "pgbackrest_retention_days and pgbackrest_full_days need to be 1 or more",
                f"pgbackrest_scratch_directory is {DATA}",
            ],
        ),
    ],
)
def test_bad_value_is_refused_and_changes_nothing(
    host: Host, apply: Apply, variables: dict[str, object], sentences: list[str]
) -> None:
    before = state(host)
    answer = apply(**variables)
    assert answer.failed
    assert [sentence for sentence in sentences if sentence not in answer.words] == []
    assert state(host) == before
