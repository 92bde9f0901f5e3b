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


def pay(engine: Engine, order: PaymentOrder, policy: Approvals = movements.DEFAULT_POLICY) -> ledger.Receipt:
    """Carry out a payment, or find that it was carried out before.

    Raises:
        InvalidCreditorError: The name or the IBAN cannot be used.
        OwnBankError: The creditor has an account here.
        ledger.LedgerError: Why it is not possible otherwise.
    """
    name = " ".join(order.creditor_name.split())
    iban = account_numbers.normalise_iban(order.creditor_iban)
    if iban is None or not 0 < len(name) <= MAX_NAME or not name.isprintable():
        raise InvalidCreditorError
    if account_numbers.is_own(iban):
        raise OwnBankError
    if order.currency not in ledger.SETTLEMENT:
        raise ledger.CurrencyMismatchError
    movement = ledger.Movement(
        kind="payment",
        debit=order.from_account,
        credit=ledger.SETTLEMENT[order.currency],
        amount_minor=order.amount_minor,
        currency=order.currency,
        created_by=order.user_id,
        owner_id=order.user_id,
        reference=order.reference,
        counterparty=name,
        counterparty_number=iban,
    )
    claim = ledger.Claim.of(
        order.user_id,
        order.key,
        "payment",
        order.from_account,
        name,
        iban,
        order.amount_minor,
        order.currency,
        order.reference,
    )
    return movements.carry_out(engine, claim, movement, policy)
