"""What Prometheus learns by way of node_exporter, and what the job remembers until its next run."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import TypeVar


def figure(help_text: str, kind: str = "gauge") -> float:
    """Declare a figure, which is 0 until something is known."""
    return field(default=0, metadata={"help": help_text, "kind": kind})


@dataclass
class BackupFigures:
    """Of the backups."""

    pg_backup_status: float = figure("0: the last backup worked, 1: it failed, as the journal says.")
    pg_backup_size_bytes: float = figure("Size of what the last backup brings back, 0 if it failed.")
    pg_backup_duration_seconds: float = figure("How long the last try took.")
    pg_backup_last_timestamp_seconds: float = figure("When the last try ended.")
    pg_backup_last_success_timestamp_seconds: float = figure("When the last good backup was complete, 0 for none.")
    pg_backup_last_full_timestamp_seconds: float = figure("When the last full backup was complete, 0 for none.")
    pg_backup_runs_total: float = figure("Tries of a backup.", "counter")
    pg_backup_failures_total: float = figure("Tries of a backup that failed.", "counter")


@dataclass
class RestoreFigures:
    """Of the restores that are tried."""

    pg_restore_test_status: float = figure("0: the last restore that was tried worked, 1: it failed.")
    pg_restore_duration_seconds: float = figure("How long the last good restore took until PostgreSQL answered.")
    pg_restore_test_last_timestamp_seconds: float = figure("When the last try ended.")
    pg_restore_test_last_success_timestamp_seconds: float = figure("When the last good one ended, 0 for none.")


@dataclass
class ArchiveFigures:
    """Of the write-ahead log."""

    pg_wal_archive_status: float = figure("0: segments are archived, 1: the last try failed or nobody tries.")
    pg_wal_archive_age_seconds: float = figure("Age of the oldest change that may not be in the archive yet.")
    pg_wal_archive_last_timestamp_seconds: float = figure("When a segment was archived last, 0 for never.")
    pg_wal_archive_waiting_segments: float = figure("Segments that are complete and not archived.")
    pg_wal_archive_failures_total: float = figure("Tries that failed, as PostgreSQL counts them.", "counter")


Figures = TypeVar("Figures", BackupFigures, RestoreFigures, ArchiveFigures)


def render(figures: BackupFigures | RestoreFigures | ArchiveFigures) -> str:
    """Return figures as Prometheus reads them."""
    lines = []
    for one in fields(figures):
        lines.append(f"# HELP {one.name} {one.metadata['help']}")
        lines.append(f"# TYPE {one.name} {one.metadata['kind']}")
        lines.append(f"{one.name} {getattr(figures, one.name):.15g}")
    return "\n".join(lines) + "\n"


class Store:
    """The files of one kind of figures: those for Prometheus, and those to go on from."""

    def __init__(self, folder: Path, name: str) -> None:
        """Say where they are."""
        self._memory, self._published = folder / f"{name}.json", folder / f"{name}.prom"

    def load(self, kind: type[Figures]) -> Figures:
        """Return what was known after the last run; what is missing or damaged is not known."""
        try:
            found = json.loads(self._memory.read_text(encoding="utf-8"))
            return kind(**{one.name: float(found[one.name]) for one in fields(kind) if one.name in found})
        except (OSError, ValueError, TypeError):
            return kind()

    def save(self, figures: BackupFigures | RestoreFigures | ArchiveFigures) -> None:
        """Write both, whole or not at all."""
        for path, text in ((self._memory, json.dumps(asdict(figures), indent=1)), (self._published, render(figures))):
            fresh = path.with_suffix(".new")
            with fresh.open("w", encoding="utf-8") as stream:
                stream.write(text)
                stream.flush()
                os.fsync(stream.fileno())
            fresh.replace(path)
