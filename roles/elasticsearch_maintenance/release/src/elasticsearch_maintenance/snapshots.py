"""When a snapshot is due, which of them have to go, and what is known about them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import Any

from elasticsearch_maintenance.config import Snapshots

# The server's own policy names them like this, too. Snapshots of other names are not the job's.
PREFIX = "daily-"
SUCCESS, RUNNING = "SUCCESS", "IN_PROGRESS"


@dataclass(frozen=True)
class Snapshot:
    """One snapshot of the repository."""

    name: str
    state: str
    begun: datetime
    seconds: float
    failed_shards: int
    reason: str = ""

    @property
    def is_good(self) -> bool:
        """Return whether everything in it can be restored."""
        return self.state == SUCCESS and self.failed_shards == 0

    @property
    def ended(self) -> datetime:
        """Return when it was complete."""
        return self.begun + timedelta(seconds=self.seconds)


def parse(found: dict[str, Any]) -> Snapshot:
    """Return a snapshot as the API describes it."""
    failures = [str(failure.get("reason")) for failure in found.get("failures") or []]
    return Snapshot(
        name=found["snapshot"],
        state=found["state"],
        begun=datetime.fromtimestamp(found.get("start_time_in_millis", 0) / 1000, tz=timezone.utc),
        seconds=max(0, found.get("duration_in_millis", 0)) / 1000,
        failed_shards=int((found.get("shards") or {}).get("failed", 0)),
        reason="; ".join(filter(None, [found.get("reason") or "", *failures[:3]])),
    )


def newest_good(found: Sequence[Snapshot]) -> Snapshot | None:
    """Return the last snapshot that is good."""
    return max((one for one in found if one.is_good), key=lambda one: one.begun, default=None)


def name_for(now: datetime) -> str:
    """Return the name of a snapshot that begins now."""
    return f"{PREFIX}{now:%Y.%m.%d-%H%M%S}"


def is_due(found: Sequence[Snapshot], hour: int, now: datetime) -> bool:
    """Return whether there is no good snapshot since the last time at which one had to be taken."""
    moment = now.replace(hour=hour, minute=0, second=0, microsecond=0)
    if moment > now:
        moment -= timedelta(days=1)
    last = newest_good(found)
    return last is None or last.begun < moment


def superfluous(found: Sequence[Snapshot], limits: Snapshots, now: datetime) -> list[Snapshot]:
    """Return the snapshots that have to go: too old, too many, or incomplete with a good one after them."""
    good = sorted((one for one in found if one.is_good), key=lambda one: one.begun, reverse=True)
    oldest = now - timedelta(days=limits.days)
    gone = [
        one
        for number, one in enumerate(good)
        if number >= limits.maximum or (number >= limits.minimum and one.begun < oldest)
    ]
    if good:
        gone += [one for one in found if not one.is_good and one.state != RUNNING and one.begun < good[0].begun]
    return sorted(gone, key=lambda one: one.begun)
