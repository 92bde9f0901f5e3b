"""Alerts of monitoring: taking them in once, however often they are sent, and listing them for staff."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

from sqlalchemy import case, func, select
from sqlalchemy.dialects.postgresql import insert as upsert

from bank import database
from bank.models import Alert

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from sqlalchemy import Connection, Engine

FIRING, RESOLVED = "firing", "resolved"
PAGE_LENGTH = 50
UNKNOWN_SEVERITY = "other"
SEVERITIES = ("p1", "p2", "p3", "p4")


@dataclass(frozen=True)
class Notice:
    """What monitoring says about one alert."""

    fingerprint: str
    starts_at: datetime
    ends_at: datetime | None
    status: str
    labels: dict[str, str]
    annotations: dict[str, str]

    @property
    def severity(self) -> str:
        """Return p1 to p4, or ``other``."""
        given = self.labels.get("severity", "").lower()
        return given if given in SEVERITIES else UNKNOWN_SEVERITY


@dataclass(frozen=True)
class AlertView:
    """An alert as staff sees it; the first times are monitoring's, the last two the bank's."""

    fingerprint: str
    name: str
    severity: str
    status: str
    labels: dict[str, str]
    annotations: dict[str, str]
    starts_at: datetime
    ends_at: datetime | None
    received_at: datetime
    closed_at: datetime | None


@dataclass(frozen=True)
class Measured:
    """A length of time that one alert took."""

    severity: str
    time: timedelta


@dataclass(frozen=True)
class Recorded:
    """How many alerts were new, and how many ended.

    ``told`` has, for each that was heard of while it fired, the time from when its rule began to fire until the bank
    wrote it down, by the clock of the database; ``lasted`` how long each that ended had fired, as monitoring says.
    """

    opened: int
    closed: int
    told: tuple[Measured, ...] = ()
    lasted: tuple[Measured, ...] = ()


def record(engine: Engine, notices: Sequence[Notice]) -> Recorded:
    """Take alerts in, all or none. What is known already changes nothing; an alert that ended does not open again."""
    # In one order, so that two notifications that name the same alerts never wait for each other.
    unique = {(notice.fingerprint, notice.starts_at, notice.status): notice for notice in notices}
    ordered = [unique[key] for key in sorted(unique)]
    return database.in_transaction(engine, lambda connection: _write(connection, ordered))


def _write(connection: Connection, notices: Sequence[Notice]) -> Recorded:
    opened = closed = 0
    told, lasted = [], []
    for notice in notices:
        ended = notice.status == RESOLVED
        statement = upsert(Alert).values(
            fingerprint=notice.fingerprint,
            starts_at=notice.starts_at,
            name=notice.labels.get("alertname", ""),
            severity=notice.severity,
            status=notice.status,
            labels=notice.labels,
            annotations=notice.annotations,
            ends_at=notice.ends_at if ended else None,
            closed_at=func.now() if ended else None,
        )
        new = statement.excluded
        row = connection.execute(
            statement.on_conflict_do_update(
                index_elements=[Alert.fingerprint, Alert.starts_at],
                set_={
                    "status": new.status,
                    "annotations": new.annotations,
                    "ends_at": new.ends_at,
                    "closed_at": new.closed_at,
                },
                where=(Alert.status == FIRING) & (new.status == RESOLVED),
            ).returning(case((Alert.status == RESOLVED, 1), else_=0), Alert.received_at)
        ).one_or_none()
        if row is None:
            continue
        is_closed, received_at = row
        opened += not ended
        closed += is_closed
        if not ended:
            # The clocks of two hosts differ a little.
            told.append(Measured(notice.severity, max(timedelta(), received_at - notice.starts_at)))
        elif notice.ends_at is not None:
            lasted.append(Measured(notice.severity, max(timedelta(), notice.ends_at - notice.starts_at)))
    return Recorded(opened, closed, tuple(told), tuple(lasted))


def list_of(
    engine: Engine, *, status: str, before: datetime | None = None, length: int = PAGE_LENGTH
) -> list[AlertView]:
    """Return alerts, the newest first.

    Args:
        engine: The database.
        status: ``firing`` for what is open, ``resolved`` for the past.
        before: Only alerts that started earlier, for the next page.
        length: How many at most.
    """
    query = select(
        Alert.fingerprint,
        Alert.name,
        Alert.severity,
        Alert.status,
        Alert.labels,
        Alert.annotations,
        Alert.starts_at,
        Alert.ends_at,
        Alert.received_at,
        Alert.closed_at,
    ).where(Alert.status == status)
    if before is not None:
        query = query.where(Alert.starts_at < before)
    with database.reading(engine) as connection:
        rows = connection.execute(query.order_by(Alert.starts_at.desc(), Alert.fingerprint).limit(length))
        return [AlertView(**row) for row in rows.mappings()]
