"""Reserved money, in two steps: place a hold; then post all or part of it, void it, or let it expire.

A hold lowers what is available and leaves the booked balance alone. The database keeps the sum of an account's holds.
Rows are locked in this order: the hold, then the balances.
"""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING

from sqlalchemy import func, insert, select, update

from bank.models import Hold
from bank.services import ledger

if TYPE_CHECKING:
    from datetime import datetime

    from sqlalchemy import Connection, Engine, Row


class HoldNotFoundError(ledger.LedgerError):
    """There is no such hold."""


class HoldEndedError(ledger.LedgerError):
    """The hold was posted, voided or has expired."""


def reserve(
    connection: Connection,
    side: ledger.Side,
    amount_minor: int,
    *,
    hold_id: uuid.UUID | None = None,
    reference: str = "",
    created_by: uuid.UUID | None = None,
    expires_at: datetime | None = None,
) -> uuid.UUID:
    """Reserve money of an account that is locked.

    Returns:
        The id of the hold.

    Raises:
        ledger.InsufficientFundsError: There is less available.
    """
    if not side.can_spare(amount_minor):
        raise ledger.InsufficientFundsError
    hold_id = hold_id or uuid.uuid4()
    connection.execute(
        insert(Hold).values(
            id=hold_id,
            account_id=side.id,
            amount_minor=amount_minor,
            reference=reference,
            created_by=created_by,
            expires_at=expires_at,
        )
    )
    return hold_id


def release(
    connection: Connection,
    hold_id: uuid.UUID,
    status: str,
    *,
    entry_id: uuid.UUID | None = None,
    posted_minor: int | None = None,
) -> None:
    """End a hold that is locked and still held; its whole amount is available again."""
    connection.execute(
        update(Hold).where(Hold.id == hold_id).values(status=status, entry_id=entry_id, posted_minor=posted_minor)
    )


def place(
    engine: Engine,
    claim: ledger.Claim,
    account_id: uuid.UUID,
    amount_minor: int,
    *,
    reference: str = "",
    expires_at: datetime | None = None,
) -> ledger.Receipt:
    """Reserve ``amount_minor`` of an account for the person who claims; the receipt names the hold.

    Raises:
        ledger.LedgerError: The account is not open, or has too little available.
    """
    if amount_minor <= 0 or len(reference) > ledger.MAX_REFERENCE:
        raise ledger.LedgerError("the hold is not complete")
    receipt = ledger.Receipt(None, hold_id=uuid.uuid4())

    def work(connection: Connection) -> ledger.Receipt:
        locked = ledger.claim_and_lock(connection, claim, receipt, [account_id])
        if isinstance(locked, ledger.Receipt):
            return locked
        if not locked or locked[0].status != "open":
            raise ledger.AccountNotFoundError
        reserve(
            connection,
            locked[0],
            amount_minor,
            hold_id=receipt.hold_id,
            reference=reference,
            created_by=claim.user_id,
            expires_at=expires_at,
        )
        return receipt

    return ledger.in_transaction(engine, work)


def post(engine: Engine, claim: ledger.Claim, hold_id: uuid.UUID, movement: ledger.Movement) -> ledger.Receipt:
    """Turn a hold into a booked entry; what the movement's amount leaves of the hold is available again.

    Args:
        engine: The database.
        claim: The key of this order.
        hold_id: The hold; it must be on the account that ``movement`` debits.
        movement: At most the amount that is held.

    Raises:
        HoldEndedError: It has ended, or its time is over.
        ledger.LedgerError: It is not on this account or too small, or the movement is not possible.
    """
    entry_id = uuid.uuid4()
    receipt = ledger.Receipt(entry_id)

    def work(connection: Connection) -> ledger.Receipt:
        hold = _locked(connection, hold_id)
        locked = ledger.claim_and_lock(connection, claim, receipt, movement.ids, movement.numbers)
        if isinstance(locked, ledger.Receipt):
            return locked
        if hold is None or hold.account_id != movement.debit:
            raise HoldNotFoundError
        if hold.status != "held" or hold.is_over:
            raise HoldEndedError
        if movement.amount_minor > hold.amount_minor:
            raise ledger.InsufficientFundsError
        debit, credit = ledger.sides_of(movement, locked)
        release(connection, hold_id, "posted", entry_id=entry_id, posted_minor=movement.amount_minor)
        ledger.book(connection, entry_id, movement, debit.id, credit.id)
        return receipt

    return ledger.in_transaction(engine, work)


def void(engine: Engine, hold_id: uuid.UUID) -> None:
    """Give the money of a hold back; doing so again changes nothing.

    Raises:
        HoldNotFoundError: There is no such hold.
        HoldEndedError: It was posted.
    """

    def work(connection: Connection) -> None:
        hold = _locked(connection, hold_id)
        if hold is None:
            raise HoldNotFoundError
        if hold.status == "posted":
            raise HoldEndedError
        if hold.status == "held":
            release(connection, hold_id, "voided")

    ledger.in_transaction(engine, work)


def expire_due(engine: Engine) -> int:
    """End the holds whose time is over, each in a transaction of its own; any number of programs may do so at once.

    Returns:
        How many holds ended.
    """

    def work(connection: Connection) -> bool:
        hold_id = connection.execute(
            select(Hold.id)
            .where(Hold.status == "held", Hold.expires_at <= func.now())
            .order_by(Hold.expires_at)
            .limit(1)
            .with_for_update(skip_locked=True)
        ).scalar_one_or_none()
        if hold_id is not None:
            release(connection, hold_id, "expired")
        return hold_id is not None

    ended = 0
    while ledger.in_transaction(engine, work):
        ended += 1
    return ended


def _locked(connection: Connection, hold_id: uuid.UUID) -> Row[uuid.UUID, int, str, bool | None] | None:
    return connection.execute(
        select(Hold.account_id, Hold.amount_minor, Hold.status, (Hold.expires_at <= func.now()).label("is_over"))
        .where(Hold.id == hold_id)
        .with_for_update()
    ).one_or_none()
