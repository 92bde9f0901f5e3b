"""What happened on an account in one month, read from a single snapshot.

A month is one of UTC and holds what was booked in it by the database's clock: the closing balance is the sum of all
postings up to its end, and the opening balance of the next month.
"""

from __future__ import annotations

import calendar
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING

from sqlalchemy import text

from bank import account_numbers
from bank.database import reading
from bank.services import accounts

if TYPE_CHECKING:
    import uuid

    from sqlalchemy import Engine


@dataclass(frozen=True)
class Line:
    """A movement, and the booked balance after it in the order of the statement."""

    movement: accounts.Movement
    balance_minor: int

    @property
    def other_number(self) -> str:
        """Return the last digits of the other side's number; empty if it has none."""
        number = self.movement.other_number
        return account_numbers.masked(number) if number else ""


@dataclass(frozen=True)
class Statement:
    """An account's month; amounts in minor units of ``currency``. ``last`` is today if the month is not over."""

    number: str
    name: str
    owner: str
    currency: str
    first: date
    last: date
    opening_minor: int
    lines: list[Line]

    @property
    def closing_minor(self) -> int:
        """Return the balance after the last line."""
        return self.lines[-1].balance_minor if self.lines else self.opening_minor

    @property
    def paid_in_minor(self) -> int:
        """Return the sum of what came in."""
        return sum(max(line.movement.amount_minor, 0) for line in self.lines)

    @property
    def paid_out_minor(self) -> int:
        """Return the sum of what went out, as a positive number."""
        return sum(max(-line.movement.amount_minor, 0) for line in self.lines)


_SPAN = text("""
SELECT min((e.booked_at AT TIME ZONE 'UTC')::date), (now() AT TIME ZONE 'UTC')::date
  FROM postings p JOIN journal_entries e ON e.id = p.entry_id
 WHERE p.account_id = :account_id AND p.version = 1
""")
_HEAD = text("""
SELECT a.number, a.name, u.display_name, a.currency, (now() AT TIME ZONE 'UTC')::date,
       coalesce((SELECT sum(p.amount_minor) FROM postings p JOIN journal_entries e ON e.id = p.entry_id
                  WHERE p.account_id = a.id AND e.booked_at < :start), 0)::bigint
  FROM accounts a JOIN users u ON u.id = a.owner_id
 WHERE a.id = :account_id
""")
_LINES = text(accounts.MOVEMENTS.format(conditions="e.booked_at >= :start AND e.booked_at < :end ORDER BY p.version"))


def months(engine: Engine, account_id: uuid.UUID) -> list[date]:
    """Return the first day of each month that has a statement, newest first; the running month is the first of them."""
    with reading(engine) as connection:
        first, today = connection.execute(_SPAN, {"account_id": account_id}).one()
    found = []
    month = today.replace(day=1)
    while first is not None and month >= first.replace(day=1):
        found.append(month)
        month = (month - timedelta(days=1)).replace(day=1)
    return found


def read(engine: Engine, account_id: uuid.UUID, month: date) -> Statement:
    """Return the statement of a month; the caller has proved that the account may be seen.

    Args:
        engine: The database.
        account_id: An account of a customer.
        month: Any day of the month.
    """
    first = month.replace(day=1)
    last = first.replace(day=calendar.monthrange(first.year, first.month)[1])
    span = {
        "account_id": account_id,
        "start": datetime.combine(first, datetime.min.time(), UTC),
        "end": datetime.combine(last, datetime.min.time(), UTC) + timedelta(days=1),
    }
    snapshot = engine.connect().execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)
    with snapshot as connection:
        number, name, owner, currency, today, opening = connection.execute(_HEAD, span).one()
        rows = connection.execute(_LINES, span).all()
    lines, balance = [], opening
    for row in rows:
        movement = accounts.Movement(*row)
        balance += movement.amount_minor
        lines.append(Line(movement, balance))
    return Statement(number, name, owner, currency, first, min(last, today), opening, lines)
