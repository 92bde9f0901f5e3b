"""Which indices have to go, from their names alone."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta, timezone

DAY = re.compile(r"([0-9]{4})\.([0-9]{2})\.([0-9]{2})")
GENERATION = re.compile(r"[0-9]{6}")
# A shipper may run a little ahead of this host, and a zone ahead of UTC by most of a day.
AHEAD = timedelta(days=1)
# Without anything younger, either nothing arrives any more or this host's clock is wrong.
SILENT = timedelta(days=2)


class RetentionError(Exception):
    """Nothing may be deleted; the text says why and what to do."""


@dataclass
class Plan:
    """What the names of the indices say."""

    expired: list[str] = field(default_factory=list)
    future: list[str] = field(default_factory=list)
    newest: date | None = None


def day_of(name: str, prefix: str) -> date | None:
    """Return the day in the name of a daily index; nothing if it is not one of this prefix."""
    match = DAY.fullmatch(name[len(prefix) :]) if name.startswith(prefix) else None
    if not match:
        return None
    try:
        return date(*map(int, match.groups()))
    except ValueError:
        return None


def plan(names: Iterable[str], retention: Mapping[str, int], today: date) -> Plan:
    """Return which daily indices have expired, which lie in the future, and the day of the newest of the others."""
    found = Plan()
    for name in sorted(names):
        for prefix, days in retention.items():
            day = day_of(name, prefix)
            if day is None:
                continue
            if day > today + AHEAD:
                found.future.append(name)
                continue
            if day < today - timedelta(days=days):
                found.expired.append(name)
            if found.newest is None or day > found.newest:
                found.newest = day
    return found


def refuse_silence(found: Plan, today: date) -> None:
    """Stop a host whose clock ran ahead from deleting everything.

    Raises:
        RetentionError: something has expired, and nothing is young.
    """
    if found.expired and found.newest is not None and found.newest < today - SILENT:
        raise RetentionError(
            f"{len(found.expired)} indices would be deleted, but the newest of all is of {found.newest}, "
            "while this host's clock "
            f"says {today}. Nothing was deleted: set the clock (timedatectl), or see why no shipper has written since"
        )


def expired_generations(created: Mapping[str, int], alias: str, days: int, now: datetime) -> list[str]:
    """Return the indices behind an alias whose last document has expired.

    An index got its last document when the next one was made; the newest is being written to and always stays.
    """
    prefix = f"{alias}-"
    own = sorted(name for name in created if name.startswith(prefix) and GENERATION.fullmatch(name[len(prefix) :]))
    limit = now - timedelta(days=days)
    return [
        name
        for name, following in zip(own, own[1:])
        if datetime.fromtimestamp(created[following] / 1000, tz=timezone.utc) < limit
    ]
