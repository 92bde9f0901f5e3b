"""How far an account may go below zero."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import func, select
from sqlalchemy.exc import DBAPIError

from bank import database
from bank.money import MAX_MINOR
from bank.services import ledger

if TYPE_CHECKING:
    import uuid

    from sqlalchemy import Engine


class LimitInUseError(ledger.LedgerError):
    """The account is further below zero than the new limit allows."""


def set_limit(engine: Engine, account_id: uuid.UUID, limit_minor: int) -> None:
    """Let an account go ``limit_minor`` minor units below zero; the caller has checked who asks.

    Raises:
        ledger.AccountNotFoundError: There is no open account of a customer with this id.
        LimitInUseError: The account has used more already.
        ledger.LedgerError: The limit is negative or too large.
    """
    if not 0 <= limit_minor <= MAX_MINOR:
        raise ledger.LedgerError("the limit is not usable")
    try:
        found = ledger.in_transaction(
            engine,
            lambda connection: connection.execute(
                select(func.set_overdraft_limit(account_id, limit_minor))
            ).scalar_one(),
        )
    except DBAPIError as error:
        if database.constraint(error) == "ck_balances_within_overdraft":
            raise LimitInUseError from error
        raise
    if not found:
        raise ledger.AccountNotFoundError
