"""How far an account may go below zero."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import func, select
from sqlalchemy.exc import DBAPIError

from bank import database
from bank.money import MAX_MINOR
from bank.services import audit, ledger

if TYPE_CHECKING:
    import uuid

    from sqlalchemy import Connection, Engine


class LimitInUseError(ledger.LedgerError):
    """The account is further below zero than the new limit allows."""


def set_limit(engine: Engine, account_id: uuid.UUID, limit_minor: int, origin: audit.Origin) -> None:
    """Let an account go ``limit_minor`` minor units below zero, and write that to the audit trail.

    The caller has checked that whoever ``origin`` names may do so.

    Raises:
        ledger.AccountNotFoundError: There is no open account of a customer with this id.
        LimitInUseError: The account has used more already.
        ledger.LedgerError: The limit is negative or too large.
    """
    if not 0 <= limit_minor <= MAX_MINOR:
        raise ledger.LedgerError("the limit is not usable")

    def work(connection: Connection) -> None:
        locked = ledger.lock(connection, [account_id])
        if not connection.execute(select(func.set_overdraft_limit(account_id, limit_minor))).scalar_one():
            raise ledger.AccountNotFoundError
        audit.record(
            connection,
            origin,
            "overdraft-limit",
            audit.Object("account", str(account_id)),
            before={"limit_minor": locked[0].overdraft_limit_minor},
            after={"limit_minor": limit_minor},
        )

    try:
        ledger.in_transaction(engine, work)
    except DBAPIError as error:
        if database.constraint(error) == "ck_balances_within_overdraft":
            raise LimitInUseError from error
        raise
