"""Transfers between two accounts of this bank."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from bank.services import approvals, ledger, movements

if TYPE_CHECKING:
    import uuid

    from sqlalchemy import Engine

    from bank.config import Approvals


@dataclass(frozen=True)
class Order:
    """A person's order to move money; the amount is in minor units of ``currency``."""

    user_id: uuid.UUID
    key: str
    from_account: uuid.UUID
    to_number: str
    amount_minor: int
    currency: str
    reference: str

    @property
    def movement(self) -> ledger.Movement:
        """Return what the ledger is to do.

        Raises:
            ledger.LedgerError: The order is not complete.
        """
        return ledger.Movement(
            kind="transfer",
            debit=self.from_account,
            credit=self.to_number,
            amount_minor=self.amount_minor,
            currency=self.currency,
            created_by=self.user_id,
            owner_id=self.user_id,
            reference=self.reference,
        )


@dataclass(frozen=True)
class Preview:
    """What an order would do if it were carried out just now."""

    available_after_minor: int | None
    needs_approval: bool


def preview(engine: Engine, order: Order, policy: Approvals) -> Preview:
    """Tell what an order would do, without locking, claiming or changing anything.

    Raises:
        ledger.LedgerError: Why it would not be possible.
    """
    movement = order.movement
    with engine.connect() as connection:
        debit, _ = ledger.sides_of(movement, ledger.look(connection, movement.ids, movement.numbers))
    if not debit.can_spare(order.amount_minor):
        raise ledger.InsufficientFundsError
    return Preview(debit.available_after(order.amount_minor), approvals.is_needed(movement, policy))


def transfer(engine: Engine, order: Order, policy: Approvals = movements.DEFAULT_POLICY) -> ledger.Receipt:
    """Carry out an order, or find that it was carried out before.

    Args:
        engine: The database.
        order: A positive amount, a key of 1 to 255 characters and a reference of at most 140.
        policy: Above which amount the transfer waits for approval.

    Raises:
        ledger.LedgerError: Why it is not possible; the key can be used again unless it was KeyReusedError.
    """
    # Without a kind among the parts: keys that the first release stored must be recognised.
    claim = ledger.Claim.of(
        order.user_id,
        order.key,
        order.from_account,
        order.to_number,
        order.amount_minor,
        order.currency,
        order.reference,
    )
    return movements.carry_out(engine, claim, order.movement, policy)
