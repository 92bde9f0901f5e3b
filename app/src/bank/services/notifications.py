"""What a person should know: events that are written down, and money that came in, which is read from the postings.

A movement of money writes nothing here, so it costs no more than it did: what came in since the owner last looked is
found by the version of each account's postings. Only the newest ``WINDOW`` postings of an account are looked at, so
the count in the header costs the same however long a history is and however long nobody looked.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from sqlalchemy import delete, func, insert, select, text, update

from bank.database import reading
from bank.models import Notification

if TYPE_CHECKING:
    import uuid
    from collections.abc import Mapping
    from datetime import datetime

    from sqlalchemy import Connection, Engine

WINDOW = 200
LISTED = 50
COUNTED = 100
KEPT = timedelta(days=90)


class Kind(StrEnum):
    """What happened; the values are stored."""

    MONEY_IN = "money-in"
    """Never stored: read from the postings."""
    LOG_IN = "log-in"
    PASSWORD_CHANGED = "password-changed"  # noqa: S105  (the name of an event)
    SECOND_FACTOR_ON = "second-factor-on"
    SECOND_FACTOR_OFF = "second-factor-off"
    BENEFICIARY_ADDED = "beneficiary-added"
    TRANSFER_APPROVED = "transfer-approved"
    TRANSFER_REJECTED = "transfer-rejected"
    STANDING_ORDER_FAILED = "standing-order-failed"
    ACCOUNT_FROZEN = "account-frozen"
    ACCOUNT_RELEASED = "account-released"


@dataclass(frozen=True)
class News:
    """One thing that happened; ``details`` holds names, and amounts as ``amount_minor`` with ``currency``."""

    kind: str
    when: datetime
    details: Mapping[str, Any]
    is_new: bool


@dataclass(frozen=True)
class Seen:
    """What a list showed, so that exactly that can be marked as read: an event's number, and versions of accounts."""

    last_event: int
    versions: Mapping[uuid.UUID, int]


def tell(connection: Connection, user_id: uuid.UUID, kind: Kind, **details: object) -> None:
    """Write down an event for a person in the caller's transaction; what is too old goes.

    Args:
        connection: Inside the transaction that does what is told.
        user_id: Who should know.
        kind: What happened.
        details: What its text names; whole numbers and words only, no account number.
    """
    connection.execute(
        delete(Notification).where(Notification.user_id == user_id, Notification.created_at < func.now() - KEPT)
    )
    connection.execute(insert(Notification).values(user_id=user_id, kind=kind, details=details))


_MONEY_IN = """
  FROM accounts a
  JOIN balances b ON b.account_id = a.id
  LEFT JOIN seen_postings s ON s.account_id = a.id
  JOIN postings p ON p.account_id = a.id AND p.version > b.version - :window AND p.amount_minor > 0
  JOIN journal_entries e ON e.id = p.entry_id AND e.created_by IS DISTINCT FROM :user_id
                        AND e.recorded_at > now() - interval '90 days'
 WHERE a.owner_id = :user_id
"""
_COUNT = text(f"""
SELECT (SELECT count(*) FROM (SELECT 1 FROM notifications WHERE user_id = :user_id AND read_at IS NULL
                               LIMIT :counted) n)
     + (SELECT count(*) FROM (SELECT 1 {_MONEY_IN} AND p.version > coalesce(s.version, 0) LIMIT :counted) m)
""")  # noqa: S608  (no value is part of the text)
_LIST_MONEY = text(f"""
SELECT e.recorded_at, a.name, a.currency, p.amount_minor, p.version > coalesce(s.version, 0)
{_MONEY_IN} ORDER BY e.recorded_at DESC, p.id DESC LIMIT :listed
""")
_VERSIONS = text("""
SELECT a.id, b.version FROM accounts a JOIN balances b ON b.account_id = a.id WHERE a.owner_id = :user_id
""")
_MARK_MONEY = text("""
INSERT INTO seen_postings (account_id, version)
SELECT a.id, least(CAST(:version AS bigint), b.version)
  FROM accounts a JOIN balances b ON b.account_id = a.id WHERE a.id = :account_id AND a.owner_id = :user_id
ON CONFLICT (account_id) DO UPDATE SET version = greatest(seen_postings.version, excluded.version)
""")


def count_new(engine: Engine, user_id: uuid.UUID) -> int:
    """Return how much a person has not read, up to ``COUNTED`` of each sort."""
    with reading(engine) as connection:
        found: int = connection.execute(_COUNT, {"user_id": user_id, "counted": COUNTED, "window": WINDOW}).scalar_one()
    return found


def latest(engine: Engine, user_id: uuid.UUID) -> tuple[list[News], Seen]:
    """Return a person's newest notifications, newest first, and what marks them as read."""
    with reading(engine) as connection:
        # Versions first: what comes in meanwhile may be listed, and is then new once more, but is never missed.
        versions = {row.id: row.version for row in connection.execute(_VERSIONS, {"user_id": user_id})}
        rows = connection.execute(
            select(
                Notification.id, Notification.kind, Notification.created_at, Notification.details, Notification.read_at
            )
            .where(Notification.user_id == user_id)
            .order_by(Notification.id.desc())
            .limit(LISTED)
        ).all()
        money = connection.execute(_LIST_MONEY, {"user_id": user_id, "listed": LISTED, "window": WINDOW}).all()
    news = [News(row.kind, row.created_at, row.details, row.read_at is None) for row in rows]
    news += [
        News(Kind.MONEY_IN, when, {"account": name, "amount_minor": amount, "currency": currency}, is_new)
        for when, name, currency, amount, is_new in money
    ]
    news.sort(key=lambda item: item.when, reverse=True)
    return news[:LISTED], Seen(rows[0].id if rows else 0, versions)


def mark_read(engine: Engine, user_id: uuid.UUID, seen: Seen) -> None:
    """Mark what a list showed as read; what came after it stays new. Doing it twice changes nothing."""
    with engine.begin() as connection:
        connection.execute(
            update(Notification)
            .where(Notification.user_id == user_id, Notification.id <= seen.last_event, Notification.read_at.is_(None))
            .values(read_at=func.now())
        )
        for account_id, version in sorted(seen.versions.items()):
            connection.execute(_MARK_MONEY, {"account_id": account_id, "version": version, "user_id": user_id})
