"""Standing orders: the same transfer every week or month, paid by whichever scheduler comes first, once.

Each due date has one row in ``standing_order_runs``, written in the transaction that pays. A payment that is not
possible, for lack of money for instance, is recorded in the same way and is not tried again for that date.
Dates are of UTC, by the database's clock.
"""

from __future__ import annotations

import calendar
import uuid
from dataclasses import dataclass
from datetime import date, timedelta
from functools import partial
from typing import TYPE_CHECKING

from sqlalchemy import Date, func, insert, select, true, update
from sqlalchemy.exc import DBAPIError

from bank import database
from bank.log import logger
from bank.models import Account, StandingOrder, StandingOrderRun
from bank.services import ledger, movements, notifications

if TYPE_CHECKING:
    from sqlalchemy import Connection, Engine, Row

    from bank.config import Approvals

FREQUENCIES = ("monthly", "weekly")
MONTHS_OF_YEAR = 12
MAX_AHEAD = timedelta(days=366 * 5)
# SQLSTATE class 23: a rule of the database, such as an account that was closed meanwhile.
RULE_BROKEN = "23"


class DatesError(ledger.LedgerError):
    """The first date is over or too far away, or the last date comes before the first."""


class OrderNotFoundError(ledger.LedgerError):
    """The person has no active standing order with this id."""


@dataclass(frozen=True)
class NewOrder:
    """What a customer orders; the amount is in minor units of ``currency``."""

    user_id: uuid.UUID
    key: str
    from_account: uuid.UUID
    to_number: str
    amount_minor: int
    currency: str
    reference: str
    frequency: str
    first_date: date
    last_date: date | None = None

    @property
    def claim(self) -> ledger.Claim:
        """Return the key, bound to what is ordered.

        Raises:
            ledger.LedgerError: The key cannot be stored.
        """
        return ledger.Claim.of(
            self.user_id, self.key, "standing order", self.from_account, self.to_number, self.amount_minor,
            self.currency, self.reference, self.frequency, self.first_date, self.last_date,
        )  # fmt: skip

    @property
    def payee(self) -> str:
        """Return the number of the account that is paid."""
        return self.to_number


@dataclass(frozen=True)
class OrderView:
    """A standing order with what became of it last; ``last_reason`` says why a payment failed."""

    id: uuid.UUID
    from_account: uuid.UUID
    from_name: str
    to_number: str
    amount_minor: int
    currency: str
    reference: str
    frequency: str
    first_date: date
    last_date: date | None
    next_date: date | None
    status: str
    last_due: date | None
    last_outcome: str | None
    last_reason: str | None


@dataclass(frozen=True)
class Run:
    """What became of an order on one due date: ``paid``, ``waiting`` for approval, or ``failed``."""

    order_id: uuid.UUID
    owner_id: uuid.UUID
    due_date: date
    outcome: str
    reason: str
    amount_minor: int
    currency: str


def next_due(first: date, frequency: str, after: date) -> date:
    """Return the first due date after ``after``.

    A month without the day of ``first`` pays on its last day, and the month after that on the day again.
    """
    if after < first:
        return first
    if frequency == "weekly":
        return first + timedelta(weeks=(after - first).days // 7 + 1)
    months = (after.year - first.year) * MONTHS_OF_YEAR + after.month - first.month
    due = _months_later(first, months)
    return due if due > after else _months_later(first, months + 1)


def _months_later(first: date, months: int) -> date:
    years, month = divmod(first.month - 1 + months, MONTHS_OF_YEAR)
    year = first.year + years
    return date(year, month + 1, min(first.day, calendar.monthrange(year, month + 1)[1]))


def today(engine: Engine) -> date:
    """Return the day that the database's clock shows."""
    with engine.connect() as connection:
        return _today(connection)


def _today(connection: Connection) -> date:
    return connection.execute(select(func.timezone("UTC", func.now()).cast(Date))).scalar_one()


def create(engine: Engine, order: NewOrder) -> ledger.Receipt:
    """Take an order; the receipt names it.

    Raises:
        DatesError: The dates do not fit.
        ledger.LedgerError: The transfer would not be possible, apart from whether there is enough money.
    """
    movement = _movement(order.user_id, order.from_account, order.to_number, order)
    if order.frequency not in FREQUENCIES:
        raise ledger.LedgerError("the frequency is not known")
    claim = order.claim
    receipt = ledger.Receipt(None, standing_order_id=uuid.uuid4())

    def work(connection: Connection) -> ledger.Receipt:
        if earlier := ledger.claim(connection, claim, receipt):
            return earlier
        now = _today(connection)
        last = order.last_date or order.first_date
        if not now <= order.first_date <= last or max(order.first_date, last) > now + MAX_AHEAD:
            raise DatesError
        debit, credit = ledger.sides_of(movement, ledger.lock(connection, movement.ids, movement.numbers))
        connection.execute(
            insert(StandingOrder).values(
                id=receipt.standing_order_id,
                owner_id=order.user_id,
                from_account_id=debit.id,
                to_account_id=credit.id,
                amount_minor=order.amount_minor,
                currency=order.currency,
                reference=order.reference,
                frequency=order.frequency,
                first_date=order.first_date,
                last_date=order.last_date,
                next_date=order.first_date,
            )
        )
        return receipt

    return ledger.in_transaction(engine, work)


def _movement(
    owner_id: uuid.UUID, debit: uuid.UUID, credit: uuid.UUID | str, order: NewOrder | Row[*tuple[object, ...]]
) -> ledger.Movement:
    return ledger.Movement(
        kind="transfer",
        debit=debit,
        credit=credit,
        amount_minor=order.amount_minor,
        currency=order.currency,
        created_by=owner_id,
        owner_id=owner_id,
        reference=order.reference,
    )


def list_of(engine: Engine, owner_id: uuid.UUID) -> list[OrderView]:
    """Return the standing orders of a person, active ones first."""
    payer, payee = Account.__table__.alias(), Account.__table__.alias()
    last = (
        select(StandingOrderRun)
        .where(StandingOrderRun.order_id == StandingOrder.id)
        .order_by(StandingOrderRun.due_date.desc())
        .limit(1)
        .lateral()
    )
    query = (
        select(
            StandingOrder.id,
            payer.c.id.label("from_account"),
            payer.c.name.label("from_name"),
            payee.c.number.label("to_number"),
            StandingOrder.amount_minor,
            StandingOrder.currency,
            StandingOrder.reference,
            StandingOrder.frequency,
            StandingOrder.first_date,
            StandingOrder.last_date,
            StandingOrder.next_date,
            StandingOrder.status,
            last.c.due_date.label("last_due"),
            last.c.outcome.label("last_outcome"),
            last.c.reason.label("last_reason"),
        )
        .join(payer, payer.c.id == StandingOrder.from_account_id)
        .join(payee, payee.c.id == StandingOrder.to_account_id)
        .outerjoin(last, true())
        .where(StandingOrder.owner_id == owner_id)
        .order_by(StandingOrder.next_date.is_(None), StandingOrder.next_date, StandingOrder.created_at.desc())
    )
    with database.reading(engine) as connection:
        return [OrderView(**row) for row in connection.execute(query).mappings()]


def cancel(engine: Engine, owner_id: uuid.UUID, order_id: uuid.UUID) -> None:
    """End an order; doing so again changes nothing. What was paid stays paid.

    Raises:
        OrderNotFoundError: The person has no such order.
    """

    def work(connection: Connection) -> None:
        status = connection.execute(
            select(StandingOrder.status)
            .where(StandingOrder.id == order_id, StandingOrder.owner_id == owner_id)
            .with_for_update()
        ).scalar_one_or_none()
        if status is None:
            raise OrderNotFoundError
        if status == "active":
            _change(connection, order_id, "cancelled", None)

    ledger.in_transaction(engine, work)


def run_due(engine: Engine, day: date, policy: Approvals = movements.DEFAULT_POLICY) -> list[Run]:
    """Pay what is due up to and including ``day``, missed dates too; any number of programs may do so at once.

    Args:
        engine: The database.
        day: Never later than today.
        policy: Above which amount a payment waits for approval.
    """
    runs: list[Run] = []
    troubled: list[uuid.UUID] = []
    while True:
        taken: list[uuid.UUID] = []
        work = partial(_run_next, day=day, policy=policy, troubled=troubled, taken=taken)
        try:
            run = ledger.in_transaction(engine, work)
        except (ledger.BusyError, DBAPIError) as error:
            if not taken:
                raise
            # The next pass tries again; the others are not kept waiting.
            troubled += taken
            logger.error("standing order not run", exc_info=error, **_fields(taken[-1], "error"))
            continue
        if run is None:
            return runs
        runs.append(run)
        log = logger.info if run.outcome != "failed" else logger.warning
        log("standing order run", **_fields(run.order_id, run.outcome, run.reason))


def _run_next(
    connection: Connection, day: date, policy: Approvals, troubled: list[uuid.UUID], taken: list[uuid.UUID]
) -> Run | None:
    order = connection.execute(
        select(
            StandingOrder.id,
            StandingOrder.owner_id,
            StandingOrder.from_account_id,
            StandingOrder.to_account_id,
            StandingOrder.amount_minor,
            StandingOrder.currency,
            StandingOrder.reference,
            StandingOrder.frequency,
            StandingOrder.first_date,
            StandingOrder.last_date,
            StandingOrder.next_date,
        )
        .where(StandingOrder.status == "active", StandingOrder.next_date <= day, StandingOrder.id.not_in(troubled))
        .order_by(StandingOrder.next_date, StandingOrder.id)
        .limit(1)
        .with_for_update(skip_locked=True)
    ).one_or_none()
    if order is None:
        return None
    taken.append(order.id)
    receipt, reason = _pay(connection, order, policy)
    outcome = "failed" if receipt is None else "paid" if receipt.entry_id else "waiting"
    connection.execute(
        insert(StandingOrderRun).values(
            order_id=order.id,
            due_date=order.next_date,
            outcome=outcome,
            reason=reason,
            entry_id=receipt.entry_id if receipt else None,
            approval_id=receipt.approval_id if receipt else None,
        )
    )
    if outcome == "failed":
        notifications.tell(
            connection,
            order.owner_id,
            notifications.Kind.STANDING_ORDER_FAILED,
            amount_minor=order.amount_minor,
            currency=order.currency,
        )
    following = next_due(order.first_date, order.frequency, order.next_date)
    if order.last_date and following > order.last_date:
        _change(connection, order.id, "finished", None)
    else:
        _change(connection, order.id, "active", following)
    return Run(
        order.id, order.owner_id, order.next_date, outcome, reason, order.amount_minor, order.currency
    )  # fmt: skip


def _pay(
    connection: Connection, order: Row[*tuple[object, ...]], policy: Approvals
) -> tuple[ledger.Receipt | None, str]:
    """Return the receipt; or why there is none, with nothing changed."""
    movement = _movement(order.owner_id, order.from_account_id, order.to_account_id, order)
    try:
        with connection.begin_nested():
            return movements.carry_out_within(connection, None, movement, policy), ""
    except ledger.LedgerError as error:
        return None, error.outcome
    except DBAPIError as error:
        if not database.sqlstate(error).startswith(RULE_BROKEN) or ledger.is_overtaken(error):
            raise
        return None, ledger.LedgerError.outcome


def _change(connection: Connection, order_id: uuid.UUID, status: str, next_date: date | None) -> None:
    connection.execute(
        update(StandingOrder).where(StandingOrder.id == order_id).values(status=status, next_date=next_date)
    )


def _fields(order_id: uuid.UUID, outcome: str, reason: str = "") -> dict[str, str]:
    return {
        "event.dataset": "bank.transaction",
        "event.action": "standing-order",
        "event.outcome": "success" if outcome in {"paid", "waiting"} else "failure",
        "event.reason": reason or outcome,
        "bank.standing_order.id": str(order_id),
    }
