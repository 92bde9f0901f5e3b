"""Four eyes: a movement above the limit waits for somebody else than who asked for it; its money is reserved.

Rows are locked in this order: the approval, its hold, the balances. Whether a person may decide at all is for the
caller to check; this module makes sure that nobody decides about what they asked for or about their own money.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sqlalchemy import func, insert, literal, select, update
from sqlalchemy.orm import aliased

from bank.models import Account, Approval, FraudDecision, User
from bank.services import audit, holds, ledger, notifications
from bank.services.notifications import Kind

if TYPE_CHECKING:
    from datetime import datetime

    from sqlalchemy import Connection, Engine, Row

    from bank.config import Approvals

# Money that comes in needs no second person.
KINDS = frozenset({"transfer", "payment", "withdrawal", "reversal"})
# Of these, what customers ask for themselves.
CUSTOMERS_KINDS = frozenset({"transfer", "payment"})
MAX_REASON = 500


class ApprovalNotFoundError(ledger.LedgerError):
    """There is no such approval."""


class AlreadyDecidedError(ledger.LedgerError):
    """Somebody approved or rejected it before, or its time is over."""


class OwnApprovalError(ledger.LedgerError):
    """The person asked for this movement, or owns one of its accounts."""


@dataclass(frozen=True)
class ApprovalView:
    """A movement that waits, as the person who decides sees it; the amount is in minor units."""

    id: uuid.UUID
    kind: str
    amount_minor: int
    currency: str
    reference: str
    debit_number: str
    debit_owner: str | None
    credit_number: str
    credit_owner: str | None
    counterparty: str
    counterparty_number: str
    created_by: uuid.UUID
    creator_name: str
    created_at: datetime
    expires_at: datetime
    fraud_score: int | None
    """How suspicious it looked; None: it was not looked at."""
    fraud_indicators: dict[str, int] | None


def is_needed(movement: ledger.Movement, policy: Approvals) -> bool:
    """Tell whether the movement is above the limit of its currency."""
    return movement.kind in KINDS and movement.amount_minor > policy.limit_for(movement.currency)


def submit(
    connection: Connection,
    approval_id: uuid.UUID,
    *,
    movement: ledger.Movement,
    debit: ledger.Side,
    credit: ledger.Side,
    policy: Approvals,
) -> None:
    """Reserve the money of a movement between accounts that are locked, and let it wait.

    Raises:
        ledger.InsufficientFundsError: There is less available.
    """
    hold_id = holds.reserve(
        connection, debit, movement.amount_minor, reference=movement.reference, created_by=movement.created_by
    )
    connection.execute(
        insert(Approval).values(
            id=approval_id,
            kind=movement.kind,
            debit_account_id=debit.id,
            credit_account_id=credit.id,
            amount_minor=movement.amount_minor,
            currency=movement.currency,
            reference=movement.reference,
            counterparty=movement.counterparty,
            counterparty_number=movement.counterparty_number,
            reverses_id=movement.reverses_id,
            hold_id=hold_id,
            created_by=movement.created_by,
            expires_at=func.now() + literal(policy.timeout),
        )
    )


def pending(engine: Engine, limit: int = 200) -> list[ApprovalView]:
    """Return what waits for a decision, the oldest first."""
    debit, credit = aliased(Account), aliased(Account)
    payer, payee, creator = aliased(User), aliased(User), aliased(User)
    query = (
        select(
            Approval.id,
            Approval.kind,
            Approval.amount_minor,
            Approval.currency,
            Approval.reference,
            debit.number.label("debit_number"),
            payer.display_name.label("debit_owner"),
            credit.number.label("credit_number"),
            payee.display_name.label("credit_owner"),
            Approval.counterparty,
            Approval.counterparty_number,
            Approval.created_by,
            creator.display_name.label("creator_name"),
            Approval.created_at,
            Approval.expires_at,
            FraudDecision.score.label("fraud_score"),
            FraudDecision.indicators.label("fraud_indicators"),
        )
        .join(debit, debit.id == Approval.debit_account_id)
        .join(credit, credit.id == Approval.credit_account_id)
        .join(creator, creator.id == Approval.created_by)
        .outerjoin(FraudDecision, FraudDecision.approval_id == Approval.id)
        .outerjoin(payer, payer.id == debit.owner_id)
        .outerjoin(payee, payee.id == credit.owner_id)
        .where(Approval.status == "pending", Approval.expires_at > func.now())
        .order_by(Approval.created_at, Approval.id)
        .limit(limit)
    )
    with engine.connect() as connection:
        return [ApprovalView(**row) for row in connection.execute(query).mappings()]


def count_pending(engine: Engine) -> int:
    """Return how many movements wait for a decision."""
    query = select(func.count()).where(Approval.status == "pending", Approval.expires_at > func.now())
    with engine.connect() as connection:
        return connection.execute(query).scalar_one()


def approve(
    engine: Engine, approval_id: uuid.UUID, by: uuid.UUID, origin: audit.Origin | None = None
) -> ledger.Receipt:
    """Carry out what waits, and write to the audit trail that ``by`` approved it.

    Raises:
        ApprovalNotFoundError: There is no such approval.
        AlreadyDecidedError: It was decided before, or too late.
        OwnApprovalError: ``by`` may not decide about it.
        ledger.LedgerError: The movement is not possible any more; it goes on waiting.
    """

    def work(connection: Connection) -> ledger.Receipt:
        row = _undecided(connection, approval_id, by)
        movement = ledger.Movement(
            kind=row.kind,
            debit=row.debit_account_id,
            credit=row.credit_account_id,
            amount_minor=row.amount_minor,
            currency=row.currency,
            created_by=row.created_by,
            reference=row.reference,
            counterparty=row.counterparty,
            counterparty_number=row.counterparty_number,
            reverses_id=row.reverses_id,
        )
        entry_id = uuid.uuid4()
        locked = ledger.lock(connection, movement.ids)
        debit, credit = ledger.sides_of(movement, locked)
        holds.release(connection, row.hold_id, "posted", entry_id=entry_id, posted_minor=row.amount_minor)
        ledger.book(connection, entry_id, movement, debit.id, credit.id)
        _decide(connection, approval_id, status="approved", decided_by=by, entry_id=entry_id)
        _tell(connection, row, Kind.TRANSFER_APPROVED)
        _record(connection, origin or audit.Origin(by), approval_id, "approved", entry_id=str(entry_id))
        return ledger.Receipt(entry_id, approval_id=approval_id)

    return ledger.in_transaction(engine, work)


def reject(
    engine: Engine, approval_id: uuid.UUID, by: uuid.UUID, reason: str = "", origin: audit.Origin | None = None
) -> None:
    """Refuse what waits, and write that to the audit trail; its money is available again.

    Raises:
        ApprovalNotFoundError: There is no such approval.
        AlreadyDecidedError: It was decided before, or too late.
        OwnApprovalError: ``by`` may not decide about it.
    """

    def work(connection: Connection) -> None:
        row = _undecided(connection, approval_id, by)
        holds.release(connection, row.hold_id, "voided")
        _decide(connection, approval_id, status="rejected", decided_by=by, reason=reason[:MAX_REASON])
        _tell(connection, row, Kind.TRANSFER_REJECTED)
        _record(connection, origin or audit.Origin(by), approval_id, "rejected", reason=reason[:MAX_REASON])

    ledger.in_transaction(engine, work)


def expire_due(engine: Engine) -> int:
    """End the approvals whose time is over, each in a transaction of its own, and release their money.

    Returns:
        How many ended.
    """

    def work(connection: Connection) -> bool:
        row = connection.execute(
            select(
                Approval.id,
                Approval.hold_id,
                Approval.kind,
                Approval.created_by,
                Approval.amount_minor,
                Approval.currency,
            )
            .where(Approval.status == "pending", Approval.expires_at <= func.now())
            .order_by(Approval.expires_at)
            .limit(1)
            .with_for_update(skip_locked=True)
        ).one_or_none()
        if row is None:
            return False
        holds.release(connection, row.hold_id, "expired")
        _decide(connection, row.id, status="expired")
        _tell(connection, row, Kind.TRANSFER_REJECTED)
        _record(connection, audit.Origin(), row.id, "expired")
        return True

    ended = 0
    while ledger.in_transaction(engine, work):
        ended += 1
    return ended


def _undecided(connection: Connection, approval_id: uuid.UUID, by: uuid.UUID) -> Row[*tuple[object, ...]]:
    row = connection.execute(
        select(
            Approval.kind,
            Approval.status,
            Approval.debit_account_id,
            Approval.credit_account_id,
            Approval.amount_minor,
            Approval.currency,
            Approval.reference,
            Approval.counterparty,
            Approval.counterparty_number,
            Approval.reverses_id,
            Approval.hold_id,
            Approval.created_by,
            (Approval.expires_at <= func.now()).label("is_over"),
        )
        .where(Approval.id == approval_id)
        .with_for_update()
    ).one_or_none()
    if row is None:
        raise ApprovalNotFoundError
    if row.status != "pending" or row.is_over:
        raise AlreadyDecidedError
    owners = select(Account.owner_id).where(Account.id.in_([row.debit_account_id, row.credit_account_id]))
    if by == row.created_by or by in connection.execute(owners).scalars().all():
        raise OwnApprovalError
    return row


def _tell(connection: Connection, row: Row[*tuple[object, ...]], kind: Kind) -> None:
    """Tell the customer who asked for a movement; staff see the queue."""
    if row.kind in CUSTOMERS_KINDS:
        notifications.tell(connection, row.created_by, kind, amount_minor=row.amount_minor, currency=row.currency)


def _decide(connection: Connection, approval_id: uuid.UUID, **values: object) -> None:
    connection.execute(update(Approval).where(Approval.id == approval_id).values(**values))


def _record(
    connection: Connection, origin: audit.Origin, approval_id: uuid.UUID, status: str, **details: object
) -> None:
    audit.record(
        connection,
        origin,
        f"approval-{status}",
        audit.Object("approval", str(approval_id)),
        before={"status": "pending"},
        after={"status": status, **details},
    )
