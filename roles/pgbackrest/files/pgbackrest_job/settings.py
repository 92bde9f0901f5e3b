"""What the role wrote down for the job; no secrets, which only pgBackRest itself reads."""

from __future__ import annotations

import json
from dataclasses import dataclass, fields
from pathlib import Path


class JobError(Exception):
    """A failure whose text says what is wrong, for the journal."""


@dataclass(frozen=True)
class Check:
    """One question to a restored database, whose only right answer is true."""

    database: str
    query: str
    # Asked only where this table exists.
    table: str = ""


@dataclass(frozen=True)
class Settings:
    """Places, and how long things may take."""

    stanza: str
    repositories: list[int]
    full_days: int
    backup_seconds: int
    restore_seconds: int
    archive_seconds: int
    socket: str
    port: int
    scratch: Path
    scratch_socket: Path
    state: Path
    checks: list[Check]


def load(path: Path) -> Settings:
    """Read the settings.

    Raises:
        JobError: the file cannot be read, or lacks something.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        values = {field.name: found[field.name] for field in fields(Settings)}
        values["checks"] = [Check(**check) for check in values["checks"]]
        for name in ("scratch", "scratch_socket", "state"):
            values[name] = Path(values[name])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise JobError(f"{path} is no settings of this job: {error!r}. Apply the role pgbackrest again.") from error
    return Settings(**values)
