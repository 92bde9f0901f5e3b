"""What ``pgbackrest info --output=json`` says about one repository."""

from __future__ import annotations

import json
from dataclasses import dataclass

from pgbackrest_job.settings import JobError

DAY = 86400
# Of a repository: sound, no folder of the stanza yet, no backup yet, no data of the stanza yet.
SOUND, NO_FOLDER, NO_BACKUP, NO_DATA = range(4)


@dataclass(frozen=True)
class Backup:
    """One backup that is complete."""

    label: str
    is_full: bool
    stopped: int
    # Size of what it brings back, whatever it takes in the repository.
    size: int
    # Pages whose checksums did not match when they were read.
    is_damaged: bool


@dataclass(frozen=True)
class Repository:
    """The state of a repository, and its backups from the oldest to the newest."""

    code: int
    message: str
    backups: tuple[Backup, ...]

    @property
    def has_stanza(self) -> bool:
        """Return whether something was ever prepared in it."""
        return self.code in (SOUND, NO_BACKUP)

    @property
    def newest(self) -> Backup | None:
        """Return the last backup."""
        return self.backups[-1] if self.backups else None

    def due(self, now: float, full_days: int) -> str:
        """Return which type of backup is to be taken now: one that stands alone after so many days."""
        fulls = [backup.stopped for backup in self.backups if backup.is_full]
        # A timer is never exact to the second: the one that comes a moment early is the one of the day.
        return "incr" if fulls and now - max(fulls) < full_days * DAY - 600 else "full"


def parse(text: str, stanza: str, key: int) -> Repository:
    """Read the answer about one repository of a stanza.

    Raises:
        JobError: it is not what pgBackRest writes.
    """
    try:
        # A message may quote what a wrong passphrase makes of a file, byte by byte.
        found = next((entry for entry in json.loads(text, strict=False) if entry["name"] == stanza), None)
        if found is None:
            return Repository(NO_FOLDER, "missing stanza path", ())
        state = next((repo["status"] for repo in found.get("repo", []) if repo["key"] == key), found["status"])
        backups = [
            Backup(
                label=backup["label"],
                is_full=backup["type"] == "full",
                stopped=int(backup["timestamp"]["stop"]),
                size=int(backup["info"]["size"]),
                is_damaged=bool(backup.get("error")),
            )
            for backup in found.get("backup", [])
            if backup["database"]["repo-key"] == key
        ]
        backups.sort(key=lambda backup: backup.stopped)
        return Repository(int(state["code"]), str(state["message"]), tuple(backups))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise JobError(f"pgbackrest info answers something else than expected: {error!r}") from error
