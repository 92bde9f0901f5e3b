"""Corrections: the journal is never changed, so a wrong entry is answered by its opposite, which names it.

The database refuses a second reversal of an entry, the reversal of a reversal, and one that is not the exact opposite.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import select, text

from bank.models import JournalEntry, Posting
from bank.services import audit, ledger, movements

if TYPE_CHECKING:
    import uuid

    from sqlalchemy import Connection, Engine

    from bank.config import Approvals

LEGS = 2
_UNDER_WAY = text("""
SELECT EXISTS (SELECT FROM journal_entries WHERE reverses_id = :entry_id)
    OR EXISTS (SELECT FROM approvals WHERE reverses_id = :entry_id AND status = 'pending')
""")


class EntryNotFoundError(ledger.LedgerError):
    """There is no such entry."""


class NotReversibleError(ledger.LedgerError):
    """The entry is a reversal itself, or has more than two postings."""


def reverse(
    engine: Engine,
    *,
    entry_id: uuid.UUID,
    by: uuid.UUID,
    key: str,
    reference: str = "",
    policy: Approvals = movements.DEFAULT_POLICY,
    origin: audit.Origin | None = None,
) -> ledger.Receipt:
    """Move the money of an entry back, and write that to the audit trail; the caller has checked that ``by`` may.

    Raises:
        EntryNotFoundError: There is no such entry.
        NotReversibleError: It cannot be reversed.
        ledger.AlreadyReversedError: It was reversed before, or that waits for approval.
        ledger.InsufficientFundsError: Who received the money has spent it.
        ledger.LedgerError: Why it is not possible otherwise.
    """
    claim = ledger.Claim.of(by, key, "reversal", entry_id, reference)
    with engine.connect() as connection:
        entry = connection.execute(
            select(JournalEntry.kind, JournalEntry.currency).where(JournalEntry.id == entry_id)
        ).one_or_none()
        legs = connection.execute(
            select(Posting.account_id, Posting.amount_minor)
            .where(Posting.entry_id == entry_id)
            .order_by(Posting.amount_minor)
        ).all()
        # Asked here too, for a reason that says more than "no money left"; the database has the last word.
        if connection.execute(_UNDER_WAY, {"entry_id": entry_id}).scalar():
            if earlier := ledger.replay(connection, claim):
                return earlier
            raise ledger.AlreadyReversedError
    if entry is None:
        raise EntryNotFoundError
    if entry.kind == "reversal" or len(legs) != LEGS:
        raise NotReversibleError
    paid, received = legs
    movement = ledger.Movement(
        kind="reversal",
        debit=received.account_id,
        credit=paid.account_id,
        amount_minor=received.amount_minor,
        currency=entry.currency,
        created_by=by,
        reference=reference,
        reverses_id=entry_id,
    )

    def work(connection: Connection) -> ledger.Receipt:
        receipt = movements.carry_out_within(connection, claim, movement, policy)
        if not receipt.replayed:
            audit.record(
                connection,
                origin or audit.Origin(by),
                "reversal" if receipt.entry_id else "reversal-asked",
                audit.Object("entry", str(entry_id)),
                after={"result": str(receipt.result), "amount_minor": movement.amount_minor, "reference": reference},
            )
        return receipt

    return ledger.in_transaction(engine, work)
