"""What the backup job makes of pgBackRest's answers, of PostgreSQL's, and of their absence."""

from __future__ import annotations

import importlib
import json
import re
import sys
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from lab.settings import PROJECT

if TYPE_CHECKING:
    from pgbackrest_job.archive import Archiver
    from pgbackrest_job.figures import BackupFigures
    from pgbackrest_job.repository import Backup, Repository
    from pgbackrest_job.settings import Settings

sys.path.insert(0, str(PROJECT / "roles/pgbackrest/files"))
archive, backup, cli, figures, repository, restore_test, settings, tools = (
    importlib.import_module(f"pgbackrest_job.{name}")
    for name in ("archive", "backup", "cli", "figures", "repository", "restore_test", "settings", "tools")
)

HOUR, DAY = 3600, 86400
FULL: dict[str, Any] = {
    "archive": {"start": "000000010000000000000003", "stop": "000000010000000000000004"},
    "backrest": {"format": 5, "version": "2.45"},
    "database": {"id": 1, "repo-key": 2},
    "error": False,
    "info": {"delta": 30821752, "repository": {"delta": 3806320, "size": 3806320}, "size": 30821752},
    "label": "20261130-180920F",
    "lsn": {"start": "0/3000028", "stop": "0/4000050"},
    "prior": None,
    "reference": None,
    "timestamp": {"start": 1796062160, "stop": 1796062163},
    "type": "full",
}
LATER = FULL | {
    "info": {"delta": 428543, "repository": {"delta": 28128, "size": 3835888}, "size": 31397431},
    "label": "20261130-180920F_20261130-183923I",
    "prior": "20261130-180920F",
    "reference": ["20261130-180920F"],
    "timestamp": {"start": 1796063963, "stop": 1796063965},
    "type": "incr",
}
# As pgBackRest 2.45 wrote them.
HELD = {"backup": {"held": False}}
INFO: dict[str, Any] = {
    "archive": [{"database": {"id": 1, "repo-key": 2}, "id": "15-1", "max": "0A", "min": "01"}],
    "backup": [LATER, FULL],
    "cipher": "aes-256-cbc",
    "db": [{"id": 1, "repo-key": 2, "system-id": 7714027894245290284, "version": "15"}],
    "name": "main",
    "repo": [{"cipher": "aes-256-cbc", "key": 2, "status": {"code": 0, "message": "ok"}}],
    "status": {"code": 0, "lock": HELD, "message": "ok"},
}
UNREADABLE = {"code": 99, "message": "[FormatError] unable to load info file\nFormatError: key/value found outside"}
EMPTY = INFO | {"backup": [], "db": [], "repo": [{"key": 2, "status": {"code": 1, "message": "missing stanza path"}}]}


def read(*entries: dict[str, Any]) -> Repository:
    return repository.parse(json.dumps(list(entries)), "main", 2)


def test_backups_of_a_repository_are_read_in_the_order_of_time() -> None:
    found = read(INFO, EMPTY | {"name": "other"})
    assert [(one.label, one.is_full, one.size) for one in found.backups] == [
        ("20261130-180920F", True, 30821752),
        ("20261130-180920F_20261130-183923I", False, 31397431),
    ]
    assert found.newest.stopped == 1796063965
    assert found.has_stanza


def test_backups_of_another_repository_do_not_count() -> None:
    assert repository.parse(json.dumps([INFO]), "main", 1).backups == ()


@pytest.mark.parametrize("code", [1, 3, 99])
def test_repository_without_a_stanza_is_known(code: int) -> None:
    found = read(INFO | {"backup": [], "repo": [{"key": 2, "status": {"code": code, "message": "missing"}}]})
    assert (found.has_stanza, found.newest) == (False, None)


def test_message_with_raw_bytes_is_read() -> None:
    text = json.dumps([INFO | {"repo": [{"key": 2, "status": UNREADABLE | {"message": "at line 1: @"}}]}])
    assert repository.parse(text.replace("@", "\x01\ufffd\n"), "main", 2).message == "at line 1: \x01\ufffd\n"


def test_stanza_that_nobody_made_is_none() -> None:
    assert read().code == repository.NO_FOLDER


@pytest.mark.parametrize(
    "text", ["", "null", "[{}]", '[{"name": "main"}]', "ERROR: [055]", '[{"name": "main", "status": 1}]']
)
def test_other_answers_are_refused(text: str) -> None:
    with pytest.raises(settings.JobError, match="something else than expected"):
        repository.parse(text, "main", 2)


@pytest.mark.parametrize(
    ("age", "wanted"), [(HOUR, "incr"), (7 * DAY - HOUR, "incr"), (7 * DAY - 60, "full"), (8 * DAY, "full")]
)
def test_backup_is_full_again_after_its_days(age: int, wanted: str) -> None:
    assert read(INFO).due(1796062163 + age, 7) == wanted


def test_first_backup_is_full() -> None:
    assert read(EMPTY).due(1796062163, 7) == "full"


def job(tmp_path: Path, **values: object) -> Settings:
    """Return settings with two repositories."""
    known = {
        "stanza": "main",
        "repositories": [1, 2],
        "full_days": 7,
        "backup_seconds": 60,
        "restore_seconds": 60,
        "archive_seconds": 300,
        "socket": "/run/postgresql",
        "port": 5432,
        "scratch": str(tmp_path),
        "scratch_socket": str(tmp_path),
        "state": str(tmp_path),
        "checks": [{"database": "bank", "query": "SELECT true"}],
    }
    path = tmp_path / "job.json"
    path.write_text(json.dumps(known | values), encoding="utf-8")
    return settings.load(path)


def told(tmp_path: Path, name: str) -> dict[str, float]:
    """Return the figures that were written for Prometheus."""
    text = (tmp_path / f"{name}.prom").read_text(encoding="utf-8")
    return {key: float(value) for key, value in re.findall(r"^(\w+) (\S+)$", text, re.MULTILINE)}


def test_settings_name_what_is_wrong_with_them(tmp_path: Path) -> None:
    assert job(tmp_path).checks == [settings.Check("bank", "SELECT true")]
    (tmp_path / "job.json").write_text("{}", encoding="utf-8")
    with pytest.raises(settings.JobError, match=r"job\.json is no settings of this job"):
        settings.load(tmp_path / "job.json")
    with pytest.raises(settings.JobError, match="Apply the role pgbackrest again"):
        job(tmp_path, checks=[{"databse": "bank"}])


GOOD = repository.Backup("F", is_full=True, stopped=1000, size=500, is_damaged=False)
SMALLER = repository.Backup("I", is_full=False, stopped=900, size=400, is_damaged=False)


def test_good_backup_counts_when_every_repository_has_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backup, "take", lambda _, key: {1: GOOD, 2: SMALLER}[key])
    assert backup.run(job(tmp_path))
    assert backup.run(job(tmp_path))
    found = told(tmp_path, "backup")
    assert (found["pg_backup_status"], found["pg_backup_size_bytes"]) == (0, 400)
    assert found["pg_backup_last_success_timestamp_seconds"] == 900
    assert found["pg_backup_last_full_timestamp_seconds"] == 1000
    assert (found["pg_backup_runs_total"], found["pg_backup_failures_total"]) == (2, 0)


def test_failed_backup_has_status_one_and_size_zero_and_the_others_are_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(backup, "take", lambda *_: GOOD)
    assert backup.run(job(tmp_path))
    asked = []

    def take(_: Settings, key: int) -> Backup:
        asked.append(key)
        if key == 1:
            raise settings.JobError("no room")
        return SMALLER

    monkeypatch.setattr(backup, "take", take)
    assert not backup.run(job(tmp_path))
    found = told(tmp_path, "backup")
    assert asked == [1, 2]
    assert (found["pg_backup_status"], found["pg_backup_size_bytes"]) == (1, 0)
    assert found["pg_backup_last_success_timestamp_seconds"] == 1000
    assert (found["pg_backup_runs_total"], found["pg_backup_failures_total"]) == (2, 1)
    assert "The backup in repository 1 failed: no room" in capsys.readouterr().err


def test_run_that_is_killed_has_failed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def take(*_: object) -> Backup:
        raise KeyboardInterrupt

    monkeypatch.setattr(backup, "take", take)
    with pytest.raises(KeyboardInterrupt):
        backup.run(job(tmp_path))
    assert (told(tmp_path, "backup")["pg_backup_status"], told(tmp_path, "backup")["pg_backup_size_bytes"]) == (1, 0)


def test_backup_of_damaged_pages_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answer = json.dumps([INFO | {"backup": [FULL, LATER | {"error": True}]}])
    monkeypatch.setattr(backup, "pgbackrest", lambda *_, **__: answer)
    with pytest.raises(
        settings.JobError, match="183923I is complete, but pages of the database failed their checksums"
    ):
        backup.take(job(tmp_path), 2)


def archiver(**values: object) -> Archiver:
    known = {"mode": "on", "archived": 10_000, "failed": 0, "failures": 0, "waiting": 0, "oldest": None}
    return archive.Archiver(**(known | values))


@pytest.mark.parametrize(
    ("known", "now", "status", "age"),
    [
        (archiver(), 10_100, 0, 100),
        # Nothing was written for an hour: nothing waits, and at most what an open segment may hold would be lost.
        (archiver(), 13_600, 0, 300),
        (archiver(failed=9_000, failures=3), 10_100, 0, 100),
        (archiver(failed=10_050, failures=3, waiting=2, oldest=10_020), 12_020, 1, 2300),
        (archiver(mode="off"), 13_600, 1, 3600),
        (None, 12_000, 1, 3000),
    ],
)
def test_age_of_the_archive(known: Archiver | None, now: float, status: int, age: float) -> None:
    before = figures.ArchiveFigures(pg_wal_archive_last_timestamp_seconds=9_000)
    found = archive.judge(before, known, now, 300)
    assert (found.pg_wal_archive_status, found.pg_wal_archive_age_seconds) == (status, age)
    assert found.pg_wal_archive_last_timestamp_seconds == (10_000 if known else 9_000)


def test_figures_survive_and_damaged_ones_are_forgotten(tmp_path: Path) -> None:
    store = figures.Store(tmp_path, "restore")
    store.save(figures.RestoreFigures(pg_restore_duration_seconds=7.5))
    assert store.load(figures.RestoreFigures).pg_restore_duration_seconds == 7.5
    (tmp_path / "restore.json").write_text('{"pg_restore_duration_seconds": {}}', encoding="utf-8")
    assert store.load(figures.RestoreFigures) == figures.RestoreFigures()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["restore.json", "restore.prom"]


@pytest.mark.parametrize("kind", [figures.BackupFigures, figures.RestoreFigures, figures.ArchiveFigures])
def test_every_figure_is_written_with_its_meaning(kind: type[BackupFigures]) -> None:
    text = figures.render(kind())
    for one in fields(kind):
        wanted = "counter" if one.name.endswith("_total") else "gauge"
        assert re.search(rf"^# HELP {one.name} \S.*\.\n# TYPE {one.name} {wanted}\n{one.name} 0$", text, re.MULTILINE)


def test_alerts_and_dashboards_ask_for_figures_that_the_job_tells() -> None:
    kinds = (figures.BackupFigures, figures.RestoreFigures, figures.ArchiveFigures)
    known = {one.name for kind in kinds for one in fields(kind)}
    for path in (
        "files/prometheus/rules/pgbackrest.yml",
        "files/grafana/boards/backup.py",
        "app/src/bank/monitoring/status.py",
    ):
        asked = set(
            re.findall(r"\bpg_(?:backup|restore|wal_archive)_\w+", (PROJECT / path).read_text(encoding="utf-8"))
        )
        assert asked, path
        assert asked <= known, path


def test_restore_that_would_fill_the_disk_is_refused(tmp_path: Path) -> None:
    restore_test.need_room(tmp_path, 0)
    with pytest.raises(settings.JobError, match="MiB free, and a restore needs 1073742336: enlarge"):
        restore_test.need_room(tmp_path, 1024**5)


def test_restore_is_proven_in_every_repository_and_cleared_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = job(tmp_path, scratch=str(tmp_path / "scratch"))
    (tmp_path / "scratch/left/over").mkdir(parents=True)

    def prove(where: Settings, key: int) -> float:
        assert list(where.scratch.iterdir()) == []
        (where.scratch / "data").mkdir()
        return {1: 7.0, 2: 9.0}[key]

    monkeypatch.setattr(restore_test, "prove", prove)
    monkeypatch.chdir(tmp_path)
    assert restore_test.run(known)
    found = told(tmp_path, "restore")
    assert (found["pg_restore_test_status"], found["pg_restore_duration_seconds"]) == (0, 9)
    assert list((tmp_path / "scratch").iterdir()) == []
    monkeypatch.setattr(restore_test, "prove", lambda *_: (_ for _ in ()).throw(settings.JobError("damaged")))
    assert not restore_test.run(known)
    later = told(tmp_path, "restore")
    assert later["pg_restore_test_status"] == 1
    good = "pg_restore_test_last_success_timestamp_seconds"
    assert later[good] == found[good]


@pytest.mark.parametrize(("answer", "is_good"), [("t", True), ("f", False), ("", False), ("t\nt", False)])
def test_question_has_one_right_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answer: str, is_good: bool
) -> None:
    monkeypatch.setattr(restore_test, "ask", lambda *_, **__: answer)
    check = settings.Check("bank", "SELECT\n sum(x) = 0")
    if is_good:
        restore_test.question(check, job(tmp_path))
    else:
        with pytest.raises(settings.JobError, match=r"answers .[tf\n]*. to: SELECT sum\(x\) = 0$"):
            restore_test.question(check, job(tmp_path))


def test_program_that_fails_hangs_or_is_missing_is_named() -> None:
    with pytest.raises(settings.JobError, match=r"sh failed with code 56: \[056\]: no primary HINT: is it running\?"):
        tools.call(
            [
                "/bin/sh",
                "-c",
                r"printf 'P00  ERROR: [056]: no primary\n       HINT: is it running?\nP00 x' >&2; exit 56",
            ],
            5,
        )
    with pytest.raises(settings.JobError, match="did not end within 1 seconds"):
        tools.call(["/bin/sleep", "5"], 1)
    with pytest.raises(settings.JobError, match="nothing cannot be started"):
        tools.call(["/usr/bin/nothing"], 1)
    assert tools.call(["/bin/printf", r"\377"], 1).stdout == "\N{REPLACEMENT CHARACTER}"


@pytest.mark.parametrize(
    ("status", "warning", "reason"),
    [
        ({"code": 0, "message": "ok"}, "", ""),
        ({"code": 2, "message": "no valid backups"}, "", ""),
        (UNREADABLE, "", r"repository 1 cannot be read \(\[FormatError\] unable to load info file\): was"),
        ({"code": 0, "message": "ok"}, "WARN: configuration file contains invalid option 'x'\n", "invalid option 'x'"),
    ],
)
def test_configuration_is_tried_on_the_repositories(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    status: dict[str, Any],
    warning: str,
    reason: str,
) -> None:
    answer = json.dumps([INFO | {"backup": [], "repo": [{"key": 1, "status": status}], "status": status}])
    monkeypatch.setattr(cli, "call", lambda words, _: cli_answer(words, answer, warning))
    code = cli.main(["validate", "--stanza", "main", "--repositories", "1", "/candidate"])
    assert code == (1 if reason else 0)
    assert re.search(reason, capsys.readouterr().err)


def cli_answer(words: tuple[str, ...], answer: str, warning: str) -> object:
    """Answer as pgBackRest does to a question with the candidate."""
    assert "--config=/candidate" in words
    return type("Done", (), {"stdout": answer, "stderr": warning})
