"""Reading accounts and their history. Every query is limited to accounts of the person who asks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from sqlalchemy import select, text

from bank.models import Account, Balance

if TYPE_CHECKING:
    import uuid
    from datetime import datetime

    from sqlalchemy import Engine, Select

PAGE_LENGTH = 25


@dataclass(frozen=True)
class AccountView:
    """An account; amounts in minor units. Booked money that is on hold is not available, an overdraft limit is."""

    id: uuid.UUID
    number: str
    name: str
    kind: str
    currency: str
    balance_minor: int
    held_minor: int
    available_minor: int


@dataclass(frozen=True)
class Movement:
    """One line of an account's history; a negative amount left the account."""

    version: int
    entry_id: uuid.UUID
    kind: str
    booked_at: datetime
    amount_minor: int
    balance_after_minor: int
    reference: str
    other_name: str
    other_number: str | None


@dataclass(frozen=True)
class Page:
    """Part of a history, newest first; ``next_before`` asks for the part after it."""

    movements: list[Movement]
    next_before: int | None


def _accounts_of(owner_id: uuid.UUID) -> Select[uuid.UUID, str, str, str, str, int, int, int]:
    return (
        select(
            Account.id,
            Account.number,
            Account.name,
            Account.kind,
            Account.currency,
            Balance.balance_minor,
            Balance.held_minor,
            (Balance.balance_minor - Balance.held_minor + Balance.overdraft_limit_minor).label("available_minor"),
        )
        .join(Balance, Balance.account_id == Account.id)
        .where(Account.owner_id == owner_id, Account.status == "open")
    )


def list_of(engine: Engine, owner_id: uuid.UUID) -> list[AccountView]:
    """Return the open accounts of a person."""
    with engine.connect() as connection:
        rows = connection.execute(_accounts_of(owner_id).order_by(Account.kind, Account.name, Account.number))
        return [AccountView(*row) for row in rows]


def get(engine: Engine, owner_id: uuid.UUID, account_id: uuid.UUID) -> AccountView | None:
    """Return one account, or None if it is not this person's."""
    with engine.connect() as connection:
        row = connection.execute(_accounts_of(owner_id).where(Account.id == account_id)).one_or_none()
    return AccountView(*row) if row else None


_HISTORY = text("""
SELECT p.version, e.id, e.kind, e.booked_at, p.amount_minor, p.balance_after_minor, e.reference,
       coalesce(nullif(e.counterparty, ''),
                CASE WHEN other.owner_id = own.owner_id THEN other.name ELSE u.display_name END, '') AS other_name,
       CASE WHEN other.kind <> 'internal' THEN other.number ELSE nullif(e.counterparty_number, '') END AS other_number
  FROM postings p
  JOIN journal_entries e ON e.id = p.entry_id
  JOIN accounts own ON own.id = p.account_id
  LEFT JOIN LATERAL (
        SELECT a.number, a.name, a.kind, a.owner_id FROM postings o JOIN accounts a ON a.id = o.account_id
         WHERE o.entry_id = p.entry_id AND o.account_id <> p.account_id ORDER BY o.id LIMIT 1) other ON true
  LEFT JOIN users u ON u.id = other.owner_id
 WHERE p.account_id = :account_id AND p.version < :before
 ORDER BY p.version DESC
 LIMIT :length
""")


def history(engine: Engine, account_id: uuid.UUID, before: int | None = None, length: int = PAGE_LENGTH) -> Page:
    """Return part of an account's history; the caller has proved that the account may be seen.

    Pages follow the account's version, so rows that arrive meanwhile are neither repeated nor skipped.
    """
    with engine.connect() as connection:
        rows = connection.execute(
            _HISTORY,
            {"account_id": account_id, "before": 2**63 - 1 if before is None else before, "length": length + 1},
        ).all()
    movements = [Movement(*row) for row in rows[:length]]
    return Page(movements, movements[-1].version if len(rows) > length else None)
