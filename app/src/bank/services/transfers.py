"""Transfers between two accounts of this bank."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from bank.services import ledger, movements

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


def transfer(engine: Engine, order: Order, policy: Approvals = movements.DEFAULT_POLICY) -> ledger.Receipt:
    """Carry out an order, or find that it was carried out before.

    Args:
        engine: The database.
        order: A positive amount, a key of 1 to 255 characters and a reference of at most 140.
        policy: Above which amount the transfer waits for approval.

    Raises:
        ledger.LedgerError: Why it is not possible; the key can be used again unless it was KeyReusedError.
    """
    movement = ledger.Movement(
        kind="transfer",
        debit=order.from_account,
        credit=order.to_number,
        amount_minor=order.amount_minor,
        currency=order.currency,
        created_by=order.user_id,
        owner_id=order.user_id,
        reference=order.reference,
    )
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
    return movements.carry_out(engine, claim, movement, policy)
