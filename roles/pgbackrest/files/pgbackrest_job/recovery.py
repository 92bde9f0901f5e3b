"""Waits for a server that was restored in its place."""

from __future__ import annotations

import time

from pgbackrest_job.settings import JobError, Settings
from pgbackrest_job.tools import ask, call

UNIT = "postgresql.service"


def starts(unit: str = UNIT) -> tuple[str, int]:
    """Return the state of a unit, and how often systemd has started it again by itself.

    Raises:
        JobError: systemd does not answer.
    """
    shown = call(("/usr/bin/systemctl", "show", "--property=ActiveState", "--property=NRestarts", unit), 60).stdout
    found = dict(line.split("=", 1) for line in shown.splitlines())
    return found.get("ActiveState", ""), int(found.get("NRestarts", "0"))


def run(settings: Settings) -> bool:
    """Wait until the server has replayed everything and takes orders; return whether it does.

    Raises:
        JobError: it gave up, which systemd's next start of it would hide, or needs too long.
    """
    _, before = starts()
    deadline = time.monotonic() + settings.restore_seconds
    while time.monotonic() < deadline:
        try:
            if ask(settings.socket, settings.port, "SELECT pg_is_in_recovery()") == "f":
                return True
        except JobError:
            state, now = starts()
            if now > before or state in ("failed", "inactive"):
                raise JobError("PostgreSQL gave the recovery up") from None
        time.sleep(0.5)
    raise JobError(f"PostgreSQL was not ready after {settings.restore_seconds} seconds")
