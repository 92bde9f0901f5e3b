"""The audit trail: what people and staff did, append-only and linked row by row.

Each row holds a SHA-256 over the row before it and its own content in a canonical form, so that a row that is
changed, removed or moved breaks the chain from there on. Rows at the end can only be missed by somebody who knows
the head: ``bank verify-audit`` prints it, to be kept elsewhere.

Movements of money are not recorded here. They are in the journal, which is append-only too, and thus never wait
for the lock that keeps this chain in order.
"""

from __future__ import annotations

import hashlib
import json
import uuid  # noqa: TC003  (part of the fields of Origin)
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from sqlalchemy import insert, select, text

from bank.models import AuditCheck, AuditEvent

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sqlalchemy import Connection, Engine

ADVISORY_LOCK = 0x6175646974  # "audit"; one append at a time
BEGINNING = bytes(32)
PAGE_LENGTH = 50
MAX_PAGE_LENGTH = 500
BATCH = 1_000

Summary = dict[str, Any]


@dataclass(frozen=True)
class Origin:
    """Who acts (None: nobody known, or the command line), from which address, and in which request."""

    actor_id: uuid.UUID | None = None
    source_ip: str = ""
    request_id: str = ""


@dataclass(frozen=True)
class Object:
    """What was acted on: its kind, such as ``user``, and its id."""

    type: str
    id: str


@dataclass(frozen=True)
class Event:
    """One row of the trail."""

    number: int
    occurred_at: datetime
    actor_id: uuid.UUID | None
    action: str
    object_type: str
    object_id: str
    before: Summary | None
    after: Summary | None
    source_ip: str
    request_id: str


@dataclass(frozen=True)
class Filter:
    """Which rows to read; None means any. ``since`` is included, ``until`` is not."""

    actor_id: uuid.UUID | None = None
    action: str | None = None
    object_type: str | None = None
    object_id: str | None = None
    since: datetime | None = None
    until: datetime | None = None


@dataclass(frozen=True)
class Page:
    """Part of the trail, newest first; ``next_before`` asks for the part after it."""

    events: list[Event]
    next_before: int | None


@dataclass(frozen=True)
class Verdict:
    """What checking the chain found; ``problem`` is None if it is whole."""

    rows: int
    head: str
    problem: str | None


def _digest(previous: bytes, event: Event) -> bytes:
    """Return the link of a row: SHA-256 over the link before it and the row as JSON with sorted keys."""
    content = {
        "number": event.number,
        "occurred_at": event.occurred_at.astimezone(UTC).isoformat(timespec="microseconds"),
        "actor_id": str(event.actor_id) if event.actor_id else None,
        "action": event.action,
        "object_type": event.object_type,
        "object_id": event.object_id,
        "before": event.before,
        "after": event.after,
        "source_ip": event.source_ip,
        "request_id": event.request_id,
    }
    canonical = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    return hashlib.sha256(previous + canonical.encode("ascii")).digest()


def record(
    connection: Connection,
    origin: Origin,
    action: str,
    target: Object,
    *,
    before: Mapping[str, Any] | None = None,
    after: Mapping[str, Any] | None = None,
) -> int:
    """Append a row in the caller's transaction, so that act and record are both there or neither.

    Call it last: other writers of the trail wait from here until the caller commits.

    Args:
        connection: Inside the transaction that does what is recorded.
        origin: Who acts, and from where.
        action: What was done, such as ``role-change``.
        target: What it was done to.
        before: What it was, in few words or whole numbers, without secrets; no floats, whose text may change.
        after: What it is now.

    Returns:
        The row's number; numbers have no gaps.

    Raises:
        sqlalchemy.exc.DBAPIError: The lock stayed taken for too long, or the database refused.
    """
    connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": ADVISORY_LOCK})
    # A statement of its own: it must see what was committed while the one above waited.
    now, number, previous = connection.execute(
        text("""
            SELECT clock_timestamp(), coalesce(last.number, 0), coalesce(last.hash, :beginning)
              FROM (SELECT 1) one LEFT JOIN LATERAL
                   (SELECT number, hash FROM audit_events ORDER BY number DESC LIMIT 1) last ON true
        """),
        {"beginning": BEGINNING},
    ).one()
    event = Event(
        number=number + 1,
        occurred_at=now,
        actor_id=origin.actor_id,
        action=action,
        object_type=target.type,
        object_id=target.id,
        before=dict(before) if before is not None else None,
        after=dict(after) if after is not None else None,
        source_ip=origin.source_ip,
        request_id=origin.request_id,
    )
    values = {**event.__dict__, "previous_hash": bytes(previous), "hash": _digest(bytes(previous), event)}
    connection.execute(insert(AuditEvent).values(values))
    return event.number


_COLUMNS = tuple(getattr(AuditEvent, name) for name in Event.__dataclass_fields__)


def read(engine: Engine, wanted: Filter, before: int | None = None, length: int = PAGE_LENGTH) -> Page:
    """Return part of the trail, newest first; rows that arrive meanwhile are neither repeated nor skipped.

    Args:
        engine: The database.
        wanted: Which rows.
        before: Only rows with a smaller number: what the page before gave as ``next_before``.
        length: Rows of a page, 500 at most.
    """
    length = max(1, min(length, MAX_PAGE_LENGTH))
    query = select(*_COLUMNS).order_by(AuditEvent.number.desc()).limit(length + 1)
    for name in ("actor_id", "action", "object_type", "object_id"):
        if (value := getattr(wanted, name)) is not None:
            query = query.where(getattr(AuditEvent, name) == value)
    if wanted.since is not None:
        query = query.where(AuditEvent.occurred_at >= wanted.since)
    if wanted.until is not None:
        query = query.where(AuditEvent.occurred_at < wanted.until)
    if before is not None:
        query = query.where(AuditEvent.number < before)
    with engine.connect() as connection:
        events = [Event(*row) for row in connection.execute(query)]
    return Page(events[:length], events[length - 1].number if len(events) > length else None)


def verify(engine: Engine, known_head: str | None = None) -> Verdict:
    """Follow the chain from its beginning.

    Args:
        engine: The database.
        known_head: A head that was printed earlier; it must still be part of the chain.

    Returns:
        How many rows are good, the hash of the last of them, and what is wrong with the one after it.
    """
    previous, number, found = BEGINNING, 0, known_head is None or known_head == BEGINNING.hex()
    with engine.connect().execution_options(yield_per=BATCH) as connection:
        query = select(*_COLUMNS, AuditEvent.previous_hash, AuditEvent.hash).order_by(AuditEvent.number)
        for *columns, linked, digest in connection.execute(query):
            event = Event(*columns)
            problem = None
            if event.number != number + 1:
                problem = f"row {number + 1} is missing"
            elif linked != previous:
                problem = f"row {event.number} does not follow the row before it"
            elif digest != _digest(previous, event):
                problem = f"row {event.number} was changed"
            if problem:
                return Verdict(number, previous.hex(), problem)
            previous, number = digest, event.number
            found = found or digest.hex() == known_head
    return Verdict(number, previous.hex(), None if found else "the known head is not part of the trail")


def check(engine: Engine) -> Verdict:
    """Follow the chain, which must hold the head that the last good check found, and keep what was found."""
    last_good = select(AuditCheck.head).where(AuditCheck.problem.is_(None)).order_by(AuditCheck.id.desc()).limit(1)
    with engine.connect() as connection:
        known_head = connection.execute(last_good).scalar_one_or_none()
    verdict = verify(engine, known_head)
    with engine.begin() as connection:
        connection.execute(insert(AuditCheck).values(rows=verdict.rows, head=verdict.head, problem=verdict.problem))
    return verdict
