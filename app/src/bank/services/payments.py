"""Payments to accounts at other banks: the money leaves through the bank's settlement account."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from bank import account_numbers
from bank.services import ledger, movements

if TYPE_CHECKING:
    import uuid

    from sqlalchemy import Engine

    from bank.config import Approvals
    from bank.services import screening

MAX_NAME = 70  # characters of a payee's name in a SEPA credit transfer (European Payments Council, EPC125-05)


class InvalidCreditorError(ledger.LedgerError):
    """The creditor has no name, or the IBAN's shape or check digits are wrong."""


class OwnBankError(ledger.LedgerError):
    """The IBAN belongs to this bank: it is a transfer, not a payment."""


@dataclass(frozen=True)
class PaymentOrder:
    """A customer's order to pay somebody at another bank; the amount is in minor units of ``currency``."""

    user_id: uuid.UUID
    key: str
    from_account: uuid.UUID
    creditor_name: str
    creditor_iban: str
    amount_minor: int
    currency: str
    reference: str

    @property
    def name(self) -> str:
        """Return the creditor's name with single spaces.

        Raises:
            InvalidCreditorError: There is none, or it is too long.
        """
        name = " ".join(self.creditor_name.split())
        if not 0 < len(name) <= MAX_NAME or not name.isprintable():
            raise InvalidCreditorError
        return name

    @property
    def payee(self) -> str:
        """Return the creditor's IBAN as it is stored.

        Raises:
            InvalidCreditorError: Its shape or check digits are wrong.
            OwnBankError: The creditor has an account here.
        """
        iban = account_numbers.normalise_iban(self.creditor_iban)
        if iban is None:
            raise InvalidCreditorError
        if account_numbers.is_own(iban):
            raise OwnBankError
        return iban

    @property
    def movement(self) -> ledger.Movement:
        """Return what the ledger is to do.

        Raises:
            ledger.LedgerError: The order is not complete.
        """
        if self.currency not in ledger.SETTLEMENT:
            raise ledger.CurrencyMismatchError
        return ledger.Movement(
            kind="payment",
            debit=self.from_account,
            credit=ledger.SETTLEMENT[self.currency],
            amount_minor=self.amount_minor,
            currency=self.currency,
            created_by=self.user_id,
            owner_id=self.user_id,
            reference=self.reference,
            counterparty=self.name,
            counterparty_number=self.payee,
        )

    @property
    def claim(self) -> ledger.Claim:
        """Return the key, bound to what is ordered.

        Raises:
            ledger.LedgerError: The key cannot be stored, or the order is not complete.
        """
        return ledger.Claim.of(
            self.user_id,
            self.key,
            "payment",
            self.from_account,
            self.name,
            self.payee,
            self.amount_minor,
            self.currency,
            self.reference,
        )


def pay(
    engine: Engine,
    order: PaymentOrder,
    policy: Approvals = movements.DEFAULT_POLICY,
    judge: screening.Judge | None = None,
) -> ledger.Receipt:
    """Carry out a payment, or find that it was carried out before.

    Args:
        engine: The database.
        order: Whom to pay, and how much.
        policy: Above which amount the payment waits for approval.
        judge: Tells whether it looks like fraud and must wait, whatever its amount.

    Raises:
        InvalidCreditorError: The name or the IBAN cannot be used.
        OwnBankError: The creditor has an account here.
        ledger.LedgerError: Why it is not possible otherwise.
    """
    return movements.carry_out(engine, order.claim, order.movement, policy, judge)
