"""Cash at the counter: staff pay money in and out for a customer. The caller has checked that they may."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from bank.services import ledger, movements

if TYPE_CHECKING:
    import uuid

    from sqlalchemy import Engine

    from bank.config import Approvals


@dataclass(frozen=True)
class CashOrder:
    """What a member of staff (``by``) does for the owner of an account; the amount is in minor units."""

    by: uuid.UUID
    key: str
    account_id: uuid.UUID
    amount_minor: int
    currency: str
    reference: str = ""


def deposit(engine: Engine, order: CashOrder) -> ledger.Receipt:
    """Pay money in.

    Raises:
        ledger.UnknownRecipientError: The account does not exist or is closed.
        ledger.LedgerError: Why it is not possible otherwise.
    """
    return _carry_out(engine, order, "deposit", movements.DEFAULT_POLICY)


def withdraw(engine: Engine, order: CashOrder, policy: Approvals = movements.DEFAULT_POLICY) -> ledger.Receipt:
    """Pay money out; above the limit it waits for approval.

    Raises:
        ledger.AccountNotFoundError: The account does not exist or is closed.
        ledger.InsufficientFundsError: There is less available.
        ledger.LedgerError: Why it is not possible otherwise.
    """
    return _carry_out(engine, order, "withdrawal", policy)


def _carry_out(engine: Engine, order: CashOrder, kind: str, policy: Approvals) -> ledger.Receipt:
    settlement = ledger.SETTLEMENT.get(order.currency)
    if settlement is None or order.account_id in ledger.SETTLEMENT.values():
        raise ledger.LedgerError("cash is for accounts of customers, in a currency that the bank keeps")
    debit, credit = (settlement, order.account_id) if kind == "deposit" else (order.account_id, settlement)
    movement = ledger.Movement(
        kind=kind,
        debit=debit,
        credit=credit,
        amount_minor=order.amount_minor,
        currency=order.currency,
        created_by=order.by,
        reference=order.reference,
    )
    claim = ledger.Claim.of(
        order.by, order.key, kind, order.account_id, order.amount_minor, order.currency, order.reference
    )
    return movements.carry_out(engine, claim, movement, policy)
