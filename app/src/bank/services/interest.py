"""Interest on savings accounts, paid once for each account and month.

Each day earns by the booked balance at its end, Actual/365 (Fixed) (ISDA 2006 Definitions, section 4.16 (d)):
``sum of the days' balances * rate / 365``, in whole numbers, and rounded once at the end to the nearest minor unit,
half upwards, as Council Regulation (EC) No 1103/97, article 5, rounds amounts of money. A day below zero earns nothing.
"""

from __future__ import annotations

import calendar
import uuid
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING

from sqlalchemy import select, text
from sqlalchemy.dialects.postgresql import insert as upsert

from bank.models import Account, InterestPeriod
from bank.services import ledger

if TYPE_CHECKING:
    from sqlalchemy import Connection, Engine

DAYS_OF_YEAR = 365
MILLION = 1_000_000
_DAYS = text("""
SELECT greatest((e.booked_at AT TIME ZONE 'UTC')::date, :first) AS day, sum(p.amount_minor)::bigint
  FROM postings p JOIN journal_entries e ON e.id = p.entry_id
 WHERE p.account_id = :account_id AND e.booked_at < :end
 GROUP BY day ORDER BY day
""")


@dataclass(frozen=True)
class Interest:
    """What an account earned in a month, in minor units; 0 books nothing."""

    account_id: uuid.UUID
    amount_minor: int


def earned(day_sum_minor: int, rate_ppm: int) -> int:
    """Return the interest in minor units.

    Args:
        day_sum_minor: Sum of the balances at the end of each day, in minor units.
        rate_ppm: The rate of a year in millionths.
    """
    divisor = DAYS_OF_YEAR * MILLION
    return (2 * day_sum_minor * rate_ppm + divisor) // (2 * divisor)


def day_sum(changes: list[tuple[date, int]], end: date) -> int:
    """Add up the balances at the end of each day.

    Args:
        changes: By how much the balance changed on which day, in order; the first is the opening balance.
        end: The day after the last that counts.
    """
    balance = total = 0
    for (day, change), (following, _) in pairwise([*changes, (end, 0)]):
        balance += change
        total += max(balance, 0) * (following - day).days
    return total


def pay(engine: Engine, month: date, rate_ppm: int) -> list[Interest]:
    """Pay the interest of a month that is over to all savings accounts that have not had it.

    Args:
        engine: The database.
        month: Any day of the month.
        rate_ppm: The rate of a year in millionths; 0 pays nobody.
    """
    if not rate_ppm:
        return []
    first, end = _span(month)
    had = select(InterestPeriod.account_id).where(
        InterestPeriod.account_id == Account.id, InterestPeriod.month == first
    )
    until = _midnight(end)
    query = (
        select(Account.id, Account.currency)
        .where(Account.kind == "savings", Account.status == "open", Account.created_at < until, ~had.exists())
        .order_by(Account.id)
    )
    with engine.connect() as connection:
        candidates = connection.execute(query).all()
    paid = []
    for account_id, currency in candidates:
        found = ledger.in_transaction(
            engine, partial(_pay, account_id=account_id, currency=currency, month=first, rate_ppm=rate_ppm)
        )
        if found:
            paid.append(found)
    return paid


def _span(month: date) -> tuple[date, date]:
    """Return the first day of a month and of the next one."""
    first = month.replace(day=1)
    return first, first + timedelta(days=calendar.monthrange(first.year, first.month)[1])


def _midnight(day: date) -> datetime:
    return datetime.combine(day, datetime.min.time(), UTC)


def _pay(
    connection: Connection, *, account_id: uuid.UUID, currency: str, month: date, rate_ppm: int
) -> Interest | None:
    first, end = _span(month)
    rows = connection.execute(_DAYS, {"account_id": account_id, "first": first, "end": _midnight(end)})
    total = day_sum([(row[0], row[1]) for row in rows], end)
    amount, entry_id = earned(total, rate_ppm), uuid.uuid4()
    claimed = connection.execute(
        upsert(InterestPeriod)
        .values(
            account_id=account_id,
            month=first,
            rate_ppm=rate_ppm,
            day_sum_minor=total,
            amount_minor=amount,
            entry_id=entry_id if amount else None,
        )
        .on_conflict_do_nothing()
        .returning(InterestPeriod.account_id)
    ).one_or_none()
    if claimed is None:
        return None
    if amount:
        movement = ledger.Movement(
            kind="interest",
            debit=ledger.SETTLEMENT[currency],
            credit=account_id,
            amount_minor=amount,
            currency=currency,
            created_by=None,
            reference=f"{first:%Y-%m}",
        )
        debit, credit = ledger.sides_of(movement, ledger.lock(connection, movement.ids))
        ledger.book(connection, entry_id, movement, debit.id, credit.id)
    return Interest(account_id, amount)
