"""Carrying out movements of money: book at once, or let them wait for a second person."""

from __future__ import annotations

import uuid
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from bank.config import Approvals
from bank.database import reading
from bank.services import approvals, fraud, ledger, screening

if TYPE_CHECKING:
    from sqlalchemy import Connection, Engine

DEFAULT_POLICY = Approvals()


@dataclass(frozen=True)
class Preview:
    """What a movement would do if it were carried out just now; money in minor units, None without a limit."""

    available_after_minor: int | None
    needs_approval: bool


def preview(engine: Engine, movement: ledger.Movement, policy: Approvals) -> Preview:
    """Tell what a movement would do, without locking, claiming or changing anything.

    Raises:
        ledger.LedgerError: Why it would not be possible.
    """
    with reading(engine) as connection:
        debit, _ = ledger.sides_of(movement, ledger.look(connection, movement.ids, movement.numbers))
    if not debit.can_spare(movement.amount_minor):
        raise ledger.InsufficientFundsError
    return Preview(debit.available_after(movement.amount_minor), approvals.is_needed(movement, policy))


def carry_out(
    engine: Engine,
    claim: ledger.Claim,
    movement: ledger.Movement,
    policy: Approvals = DEFAULT_POLICY,
    judge: screening.Judge | None = None,
) -> ledger.Receipt:
    """Carry out a movement once, however often it is asked for with the same key.

    Args:
        engine: The database.
        claim: Whose order it is, and its key.
        movement: What to do.
        policy: Above which amount a second person must approve.
        judge: Tells whether it looks like fraud and must wait for a second person, whatever its amount.

    Raises:
        ledger.LedgerError: Why it is not possible; the key can be used again unless it was KeyReusedError.
    """
    try:
        return ledger.in_transaction(
            engine, lambda connection: carry_out_within(connection, claim, movement, policy, judge)
        )
    except screening.MustWaitError as error:
        # Nothing has happened yet: the key is free again, and is now claimed for what waits.
        judged = screening.Judged(error.screened)
    return ledger.in_transaction(
        engine, lambda connection: carry_out_within(connection, claim, movement, policy, judged, waits=True)
    )


def carry_out_within(
    connection: Connection,
    claim: ledger.Claim | None,
    movement: ledger.Movement,
    policy: Approvals,
    judge: screening.Judge | None = None,
    *,
    waits: bool = False,
) -> ledger.Receipt:
    """Carry out a movement as part of a transaction; without a claim, the caller has one of its own.

    Raises:
        screening.MustWaitError: The judge holds a movement that was not to wait; the transaction must end.
        ledger.LedgerError: Why it is not possible.
    """
    waits = waits or approvals.is_needed(movement, policy)
    result = uuid.uuid4()
    receipt = ledger.Receipt(None, approval_id=result) if waits else ledger.Receipt(result)
    if claim is None:
        locked = ledger.lock(connection, movement.ids, movement.numbers)
    else:
        found = ledger.claim_and_lock(connection, claim, receipt, movement.ids, movement.numbers)
        if isinstance(found, ledger.Receipt):
            return found
        locked = found
    debit, credit = ledger.sides_of(movement, locked)
    if not debit.can_spare(movement.amount_minor):
        raise ledger.InsufficientFundsError
    screened = judge.judge(connection, movement, debit, credit) if judge else None
    if waits:
        approvals.submit(connection, result, movement=movement, debit=debit, credit=credit, policy=policy)
        if screened:
            screening.record(connection, screening.row_of(screened, movement, credit, approval_id=result))
    elif screened is None:
        ledger.book(connection, result, movement, debit.id, credit.id)
    elif screened.decision is fraud.Decision.HELD:
        raise screening.MustWaitError(screened)
    else:
        beside = screening.row_of(screened, movement, credit, entry_id=result)
        ledger.book(connection, result, movement, debit.id, credit.id, statement=screening.BOOK_JUDGED, beside=beside)
    return replace(receipt, screened=screened) if screened else receipt
