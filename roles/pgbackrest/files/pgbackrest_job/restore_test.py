"""Proves a backup by restoring it beside the server, and takes the copy away again."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from pgbackrest_job.backup import look
from pgbackrest_job.figures import RestoreFigures, Store
from pgbackrest_job.settings import Check, JobError, Settings
from pgbackrest_job.tools import ask, call, pgbackrest

# Left over after the restore, for the log that is replayed and for whatever else lives on that disk.
RESERVE = 512 * 1024**2
# Over a socket of its own, small, and never into the archive.
OVERRIDES = {
    "listen_addresses": "",
    "ssl": "off",
    "archive_mode": "off",
    "logging_collector": "off",
    "log_destination": "stderr",
    "shared_buffers": "64MB",
    "huge_pages": "off",
    "jit": "off",
    "cluster_name": "restore-test",
}


def clear(scratch: Path) -> None:
    """Remove everything that a restore put below its folder."""
    for entry in scratch.iterdir():
        shutil.rmtree(entry) if entry.is_dir() and not entry.is_symlink() else entry.unlink()


def need_room(scratch: Path, size: int) -> None:
    """Refuse a restore that would fill the disk.

    Raises:
        JobError: there is too little room.
    """
    free = shutil.disk_usage(scratch).free
    if free < size + RESERVE:
        raise JobError(
            f"{scratch} has {free // 1024**2} MiB free, and a restore needs {(size + RESERVE) // 1024**2}: "
            "enlarge its disk, or set pgbackrest_scratch_directory to a larger one"
        )


def last_lines(log: Path) -> str:
    """Return the end of a server's log."""
    try:
        return "\n".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-15:])
    except OSError:
        return "no log"


@contextlib.contextmanager
def server(settings: Settings, data: Path) -> Iterator[None]:
    """Run a server on restored data until it has replayed everything and takes orders; stop it in the end.

    Raises:
        JobError: it does not start, or does not come that far in time.
    """
    options = [f"--{name}={value}" for name, value in OVERRIDES.items()]
    options.append(f"--unix_socket_directories={settings.scratch_socket}")
    log = settings.scratch / "server.log"
    with log.open("wb") as stream:
        process = subprocess.Popen(
            ["/usr/bin/postgres", "-D", str(data), *options], stdin=subprocess.DEVNULL, stdout=stream, stderr=stream
        )
    try:
        deadline = time.monotonic() + settings.restore_seconds
        while not is_open(settings):
            if process.poll() is not None or time.monotonic() > deadline:
                raise JobError(f"PostgreSQL does not come up with the restored data:\n{last_lines(log)}")
            time.sleep(0.2)
        yield
    finally:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(timeout=300)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def is_open(settings: Settings) -> bool:
    """Return whether the restored server answers, and is no longer in recovery."""
    try:
        return ask(str(settings.scratch_socket), settings.port, "SELECT pg_is_in_recovery()") == "f"
    except JobError:
        return False


def question(check: Check, settings: Settings) -> None:
    """Ask the restored database one question.

    Raises:
        JobError: the answer is not true.
    """
    place = (str(settings.scratch_socket), settings.port)
    if check.table:
        name = check.table.replace("'", "''")
        if ask(*place, f"SELECT to_regclass('{name}') IS NOT NULL", check.database) != "t":
            print(f"{check.database} has no table {check.table} yet: its check is left out")
            return
    answer = ask(*place, check.query, check.database, seconds=settings.restore_seconds)
    if answer != "t":
        raise JobError(f'the restored {check.database} answers "{answer[:200]}" to: {" ".join(check.query.split())}')


def prove(settings: Settings, key: int) -> float:
    """Restore the newest backup and all of the log, look at every page, and return the seconds until it answered.

    Raises:
        JobError: something is wrong with it.
    """
    newest = look(settings, key).newest
    if newest is None:
        raise JobError("there is no backup to restore")
    need_room(settings.scratch, newest.size)
    data = settings.scratch / "data"
    data.mkdir(mode=0o700)
    begun = time.monotonic()
    pgbackrest(
        settings.stanza,
        "restore",
        f"--repo={key}",
        f"--pg1-path={data}",
        f"--tablespace-map-all={settings.scratch / 'tablespaces'}",
        "--archive-mode=off",
        seconds=settings.restore_seconds,
    )
    with server(settings, data):
        taken = time.monotonic() - begun
        # Tables and indices of every database, whether their parts fit together.
        call(
            (
                "/usr/bin/pg_amcheck",
                f"--host={settings.scratch_socket}",
                f"--port={settings.port}",
                "--all",
                "--install-missing",
                "--no-password",
            ),
            settings.restore_seconds,
        )
        for check in settings.checks:
            question(check, settings)
    call(("/usr/bin/pg_checksums", "--check", f"--pgdata={data}"), settings.restore_seconds)
    print(f"Backup {newest.label} of repository {key} is sound: PostgreSQL answered after {taken:.1f} s")
    return taken


def run(settings: Settings) -> bool:
    """Prove the newest backup of every repository, and tell the figures; return whether all of them are sound."""
    store = Store(settings.state, "restore")
    known = store.load(RestoreFigures)
    failed = replace(known, pg_restore_test_status=1, pg_restore_test_last_timestamp_seconds=time.time())
    store.save(failed)
    # pgBackRest and PostgreSQL must be able to enter whatever folder they are started in.
    os.chdir(settings.scratch)
    taken, is_good = [], True
    for key in settings.repositories:
        try:
            clear(settings.scratch)
            taken.append(prove(settings, key))
        except (JobError, OSError) as error:
            is_good = False
            print(f"The restore from repository {key} failed: {error}", file=sys.stderr)
        finally:
            clear(settings.scratch)
    failed.pg_restore_test_last_timestamp_seconds = time.time()
    if is_good:
        good = replace(
            failed,
            pg_restore_test_status=0,
            pg_restore_duration_seconds=max(taken),
            pg_restore_test_last_success_timestamp_seconds=failed.pg_restore_test_last_timestamp_seconds,
        )
    store.save(good if is_good else failed)
    return is_good
