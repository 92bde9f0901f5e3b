"""Transfers between two accounts of this bank."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from bank.services import ledger, movements

if TYPE_CHECKING:
    import uuid

    from sqlalchemy import Engine

    from bank.config import Approvals
    from bank.services import screening


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

    @property
    def claim(self) -> ledger.Claim:
        """Return the key, bound to what is ordered.

        Raises:
            ledger.LedgerError: The key cannot be stored.
        """
        # Without a kind among the parts: keys that the first release stored must be recognised.
        return ledger.Claim.of(
            self.user_id,
            self.key,
            self.from_account,
            self.to_number,
            self.amount_minor,
            self.currency,
            self.reference,
        )

    @property
    def payee(self) -> str:
        """Return the number of the account that is paid."""
        return self.to_number


def transfer(
    engine: Engine,
    order: Order,
    policy: Approvals = movements.DEFAULT_POLICY,
    judge: screening.Judge | None = None,
) -> ledger.Receipt:
    """Carry out an order, or find that it was carried out before.

    Args:
        engine: The database.
        order: A positive amount, a key of 1 to 255 characters and a reference of at most 140.
        policy: Above which amount the transfer waits for approval.
        judge: Tells whether it looks like fraud and must wait, whatever its amount.

    Raises:
        ledger.LedgerError: Why it is not possible; the key can be used again unless it was KeyReusedError.
    """
    return movements.carry_out(engine, order.claim, order.movement, policy, judge)
