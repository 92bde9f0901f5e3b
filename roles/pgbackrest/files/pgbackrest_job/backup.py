"""Takes a backup in every repository."""

from __future__ import annotations

import sys
import time
from dataclasses import replace

from pgbackrest_job.figures import BackupFigures, Store
from pgbackrest_job.repository import Backup, Repository, parse
from pgbackrest_job.settings import JobError, Settings
from pgbackrest_job.tools import pgbackrest


def look(settings: Settings, key: int) -> Repository:
    """Return the state of a repository.

    Raises:
        JobError: pgBackRest cannot tell.
    """
    return parse(
        pgbackrest(settings.stanza, "info", "--output=json", f"--repo={key}", seconds=120), settings.stanza, key
    )


def take(settings: Settings, key: int) -> Backup:
    """Take the backup that is due in one repository, let what has expired go, and return the new one.

    Raises:
        JobError: it failed, or pages of the database are damaged.
    """
    kind = look(settings, key).due(time.time(), settings.full_days)
    pgbackrest(settings.stanza, "backup", f"--repo={key}", f"--type={kind}", seconds=settings.backup_seconds)
    newest = look(settings, key).newest
    if newest is None:
        raise JobError(f"repository {key} holds no backup, although pgBackRest took one")
    if newest.is_damaged:
        raise JobError(f"backup {newest.label} is complete, but pages of the database failed their checksums")
    return newest


def run(settings: Settings) -> bool:
    """Take a backup everywhere, and tell the figures; return whether all of them worked."""
    store = Store(settings.state, "backup")
    known = store.load(BackupFigures)
    begun = time.time()
    failed = replace(
        known,
        pg_backup_status=1,
        pg_backup_size_bytes=0,
        pg_backup_last_timestamp_seconds=begun,
        pg_backup_runs_total=known.pg_backup_runs_total + 1,
        pg_backup_failures_total=known.pg_backup_failures_total + 1,
    )
    # A run that is killed has failed: this is what is published then.
    store.save(failed)
    taken, is_good = [], True
    for key in settings.repositories:
        try:
            taken.append(take(settings, key))
        except JobError as error:
            is_good = False
            print(f"The backup in repository {key} failed: {error}", file=sys.stderr)
    ended = time.time()
    failed.pg_backup_last_timestamp_seconds = ended
    failed.pg_backup_duration_seconds = ended - begun
    store.save(succeeded(failed, taken) if is_good else failed)
    if is_good:
        print(f"Backup {', '.join(backup.label for backup in taken)} is complete after {ended - begun:.0f} s")
    return is_good


def succeeded(failed: BackupFigures, taken: list[Backup]) -> BackupFigures:
    """Return the figures of a run in which every repository got its backup."""
    fulls = [backup.stopped for backup in taken if backup.is_full]
    return replace(
        failed,
        pg_backup_status=0,
        # The smallest of all: what one repository lacks must be seen.
        pg_backup_size_bytes=min(backup.size for backup in taken),
        pg_backup_last_success_timestamp_seconds=min(backup.stopped for backup in taken),
        pg_backup_last_full_timestamp_seconds=min(fulls, default=failed.pg_backup_last_full_timestamp_seconds),
        pg_backup_failures_total=failed.pg_backup_failures_total - 1,
    )
