"""Looks every minute how far the archive of the write-ahead log is behind."""

from __future__ import annotations

import json
import sys
import time
from dataclasses import dataclass, replace

from pgbackrest_job.figures import ArchiveFigures, Store
from pgbackrest_job.settings import JobError, Settings
from pgbackrest_job.tools import ask

QUERY = """
SELECT json_build_object(
    'mode', current_setting('archive_mode'),
    'archived', coalesce(extract(epoch FROM last_archived_time), 0),
    'failed', coalesce(extract(epoch FROM last_failed_time), 0),
    'failures', failed_count,
    'waiting', (SELECT count(*) FROM pg_ls_archive_statusdir() WHERE name LIKE '%.ready'),
    'oldest', (SELECT extract(epoch FROM min(modification)) FROM pg_ls_archive_statusdir() WHERE name LIKE '%.ready'))
  FROM pg_stat_archiver
"""


@dataclass(frozen=True)
class Archiver:
    """What PostgreSQL knows about its archive."""

    mode: str
    archived: float
    failed: float
    failures: int
    waiting: int
    # When the segment that waits longest was complete.
    oldest: float | None = None


def judge(known: ArchiveFigures, archiver: Archiver | None, now: float, archive_seconds: int) -> ArchiveFigures:
    """Return the figures of now; without an answer, what is younger than the last segment counts as lost."""
    last = max(known.pg_wal_archive_last_timestamp_seconds, archiver.archived if archiver else 0)
    since = max(now - last, 0)
    if archiver is None:
        return replace(known, pg_wal_archive_status=1, pg_wal_archive_age_seconds=since)
    waits = max(now - archiver.oldest, 0) if archiver.oldest else 0
    return ArchiveFigures(
        pg_wal_archive_status=int(archiver.mode == "off" or archiver.failed > archiver.archived),
        # A server with nothing to say archives nothing, and loses nothing: its segment is never older than this.
        pg_wal_archive_age_seconds=since if archiver.mode == "off" else waits + min(since, archive_seconds),
        pg_wal_archive_last_timestamp_seconds=last,
        pg_wal_archive_waiting_segments=archiver.waiting,
        pg_wal_archive_failures_total=archiver.failures,
    )


def run(settings: Settings) -> bool:
    """Tell the figures of now; return whether the server could be asked."""
    store = Store(settings.state, "archive")
    archiver = None
    try:
        archiver = Archiver(**json.loads(ask(settings.socket, settings.port, QUERY)))
    except (JobError, ValueError, TypeError) as error:
        print(f"PostgreSQL does not tell how far its archive is: {error}", file=sys.stderr)
    store.save(judge(store.load(ArchiveFigures), archiver, time.time(), settings.archive_seconds))
    return archiver is not None
