"""Reading accounts and their history. Every query is limited to accounts of the person who asks."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from functools import cache
from typing import TYPE_CHECKING

from sqlalchemy import bindparam, select, text

from bank.database import execute, reading
from bank.models import Account, Balance

if TYPE_CHECKING:
    import uuid

    from sqlalchemy import Engine, TextClause

PAGE_LENGTH = 25
# Movements that one request looks through at most, so that a search costs the same however long a history is.
WINDOW = 5_000


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
    status: str

    @property
    def is_frozen(self) -> bool:
        """Whether the account can receive money but not send any."""
        return self.status == "frozen"


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
class Search:
    """What movements to look for; what is not given does not restrict.

    ``text`` is part of a reference, a name or a number, in capitals or not. Amounts are in minor units without their
    sign; both ends of amounts and dates (UTC) are included.
    """

    text: str = ""
    kind: str = ""
    least_minor: int | None = None
    most_minor: int | None = None
    since: date | None = None
    until: date | None = None

    def conditions(self) -> dict[str, dict[str, object]]:
        """Return what the search adds to the query, as SQL and its parameters."""
        found: dict[str, dict[str, object]] = {}
        if self.text:
            found[_TEXT] = {"text": self.text.casefold(), "number": "".join(self.text.split()).upper()}
        if self.kind:
            found["e.kind = :kind"] = {"kind": self.kind}
        if self.least_minor is not None:
            found["abs(p.amount_minor) >= :least"] = {"least": self.least_minor}
        if self.most_minor is not None:
            found["abs(p.amount_minor) <= :most"] = {"most": self.most_minor}
        if self.since is not None:
            found["e.booked_at >= :since"] = {"since": _midnight(self.since)}
        if self.until is not None:
            found["e.booked_at < :until"] = {"until": _midnight(self.until) + timedelta(days=1)}
        return found


EVERYTHING = Search()


@dataclass(frozen=True)
class Page:
    """Part of a history, newest first; ``next_before`` asks for the part after it.

    ``is_cut`` means that a search ended at its window before the page was full.
    """

    movements: list[Movement]
    next_before: int | None
    is_cut: bool = False


def _midnight(day: date) -> datetime:
    return datetime(day.year, day.month, day.day, tzinfo=UTC)


# Made once: building them takes longer than asking the database.
_OWN = (
    select(
        Account.id,
        Account.number,
        Account.name,
        Account.kind,
        Account.currency,
        Balance.balance_minor,
        Balance.held_minor,
        (Balance.balance_minor - Balance.held_minor + Balance.overdraft_limit_minor).label("available_minor"),
        Account.status,
    )
    .join(Balance, Balance.account_id == Account.id)
    .where(Account.owner_id == bindparam("owner_id"), Account.status != "closed")
)
_OWN_LIST = _OWN.order_by(Account.kind, Account.name, Account.number)
_OWN_ONE = _OWN.where(Account.id == bindparam("account_id"))


def list_of(engine: Engine, owner_id: uuid.UUID) -> list[AccountView]:
    """Return the accounts of a person that are not closed."""
    with reading(engine) as connection:
        return [AccountView(*row) for row in execute(connection, _OWN_LIST, {"owner_id": owner_id})]


def get(engine: Engine, owner_id: uuid.UUID, account_id: uuid.UUID) -> AccountView | None:
    """Return one account, or None if it is not this person's."""
    with reading(engine) as connection:
        row = execute(connection, _OWN_ONE, {"owner_id": owner_id, "account_id": account_id}).fetchone()
    return AccountView(*row) if row else None


# One account's movements; whoever uses it adds conditions and an order.
MOVEMENTS = """
SELECT p.version, e.id, e.kind, e.booked_at, p.amount_minor, p.balance_after_minor, e.reference,
       named.other_name, named.other_number
  FROM postings p
  JOIN journal_entries e ON e.id = p.entry_id
  JOIN accounts own ON own.id = p.account_id
  LEFT JOIN LATERAL (
        SELECT a.number, a.name, a.kind, a.owner_id FROM postings o JOIN accounts a ON a.id = o.account_id
         WHERE o.entry_id = p.entry_id AND o.account_id <> p.account_id ORDER BY o.id LIMIT 1) other ON true
  LEFT JOIN users u ON u.id = other.owner_id
 CROSS JOIN LATERAL (
        SELECT coalesce(nullif(e.counterparty, ''),
                        CASE WHEN other.owner_id = own.owner_id THEN other.name ELSE u.display_name END,
                        '') AS other_name,
               CASE WHEN other.kind <> 'internal' THEN other.number
                    ELSE nullif(e.counterparty_number, '') END AS other_number) named
 WHERE p.account_id = :account_id AND {conditions}
"""
# An account's versions have no gaps, so a window of them is a range of the index, however long the history is.
_WINDOW = "p.version < :before AND p.version >= :floor{more} ORDER BY p.version DESC LIMIT :length"
_OWNED = "\n   AND own.owner_id = :owner_id AND own.status <> 'closed'"
_TEXT = """(
    strpos(lower(e.reference), :text) > 0 OR strpos(lower(named.other_name), :text) > 0
    OR (:number <> '' AND strpos(named.other_number, :number) > 0))"""


@cache
def _window(more: str) -> TextClause:
    """Return the query for a part of a history; ``more`` is one of a few dozen combinations of conditions."""
    return text(MOVEMENTS.format(conditions=_WINDOW.format(more=more)))


def movement(engine: Engine, account_id: uuid.UUID, entry_id: uuid.UUID) -> Movement | None:
    """Return the line that an entry makes in an account's history."""
    query = text(MOVEMENTS.format(conditions="p.entry_id = :entry_id"))
    with reading(engine) as connection:
        row = connection.execute(query, {"account_id": account_id, "entry_id": entry_id}).one_or_none()
    return Movement(*row) if row else None


def history(
    engine: Engine,
    account_id: uuid.UUID,
    before: int | None = None,
    *,
    length: int = PAGE_LENGTH,
    search: Search = EVERYTHING,
    owner_id: uuid.UUID | None = None,
) -> Page:
    """Return part of an account's history, which is empty if ``owner_id`` is given and not the owner's.

    Without it, the caller has proved that the account may be seen.

    Pages follow the account's version, so rows that arrive meanwhile are neither repeated nor skipped. A search looks
    through ``WINDOW`` movements; the page may then hold fewer than ``length`` of them, or none, and still go on.
    """
    conditions = search.conditions()
    parameters = {name: value for values in conditions.values() for name, value in values.items()}
    more = "".join(f"\n   AND {condition}" for condition in conditions)
    if owner_id is not None:
        more += _OWNED
        parameters["owner_id"] = owner_id
    start, floor = 2**63 - 1 if before is None else before, 1
    with reading(engine) as connection:
        if conditions:
            newest = connection.execute(select(Balance.version).where(Balance.account_id == account_id)).scalar_one()
            start = min(start, newest + 1)
            floor = max(1, start - WINDOW)
        values = parameters | {"account_id": account_id, "before": start, "floor": floor, "length": length + 1}
        rows = execute(connection, _window(more), values).fetchall()
    movements = [Movement(*row) for row in rows[:length]]
    if len(rows) > length:
        return Page(movements, movements[-1].version)
    return Page(movements, floor, is_cut=True) if floor > 1 else Page(movements, None)
