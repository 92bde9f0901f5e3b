"""Moving money between two accounts, in one database transaction.

READ COMMITTED with row locks: both balance rows are locked in the order of their ids, so that opposing transfers
wait for each other instead of deadlocking, and the amount is compared with a balance that cannot move.
"""

from __future__ import annotations

import hashlib
import json
import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sqlalchemy import insert, select
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.exc import DBAPIError

from bank.database import LOCK_NOT_AVAILABLE, in_transaction, sqlstate
from bank.models import Account, Balance, IdempotencyKey, JournalEntry, Posting

if TYPE_CHECKING:
    from sqlalchemy import Connection, Engine, Row

MAX_REFERENCE = 140
MAX_KEY = 255


class TransferError(Exception):
    """The transfer was not carried out, and nothing changed."""

    outcome = "refused"


class AccountNotFoundError(TransferError):
    """The account to pay from is not the person's."""


class UnknownRecipientError(TransferError):
    """No account that can be paid to has this number."""

    outcome = "unknown_recipient"


class SameAccountError(TransferError):
    """Both sides are the same account."""


class CurrencyMismatchError(TransferError):
    """The accounts are kept in different currencies."""


class InsufficientFundsError(TransferError):
    """The account would fall below its limit."""

    outcome = "insufficient_funds"


class KeyReusedError(TransferError):
    """The idempotency key belongs to a transfer with other details."""

    outcome = "conflict"


class BusyError(TransferError):
    """The accounts stayed locked for too long; trying again with the same key is safe."""

    outcome = "error"


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
    def fingerprint(self) -> str:
        """Return a hash of what is ordered, to tell a repeated order from another with the same key."""
        parts = [str(self.from_account), self.to_number, self.amount_minor, self.currency, self.reference]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


@dataclass(frozen=True)
class Receipt:
    """The outcome of an order; ``replayed`` means that it had been carried out before."""

    entry_id: uuid.UUID
    replayed: bool


def transfer(engine: Engine, order: Order) -> Receipt:
    """Carry out an order, or find that it was carried out before.

    Args:
        engine: The database.
        order: A positive amount, a key of 1 to 255 characters and a reference of at most 140.

    Raises:
        TransferError: One of the reasons above; the key can be used again unless it was KeyReusedError.
    """
    if order.amount_minor <= 0 or not 0 < len(order.key) <= MAX_KEY or len(order.reference) > MAX_REFERENCE:
        raise TransferError("the order is not complete")
    try:
        return in_transaction(engine, lambda connection: _carry_out(connection, order))
    except DBAPIError as error:
        if sqlstate(error) == LOCK_NOT_AVAILABLE:
            raise BusyError from error
        raise


def _carry_out(connection: Connection, order: Order) -> Receipt:
    entry_id = uuid.uuid4()
    claim = (
        upsert(IdempotencyKey)
        .values(user_id=order.user_id, key=order.key, fingerprint=order.fingerprint, entry_id=entry_id)
        .on_conflict_do_nothing()
        .returning(IdempotencyKey.entry_id)
    )
    # A second request with this key waits here until the first has committed or failed.
    if connection.execute(claim).one_or_none() is None:
        return _replay(connection, order)

    source = _account(connection, Account.id == order.from_account, Account.owner_id == order.user_id)
    if source is None:
        raise AccountNotFoundError
    target = _account(connection, Account.number == order.to_number, Account.kind != "internal")
    if target is None:
        raise UnknownRecipientError
    if source.id == target.id:
        raise SameAccountError
    if not source.currency == target.currency == order.currency:
        raise CurrencyMismatchError

    locked = connection.execute(
        select(Balance.account_id, Balance.balance_minor, Balance.overdraft_limit_minor)
        .where(Balance.account_id.in_([source.id, target.id]))
        .order_by(Balance.account_id)
        .with_for_update(key_share=True)
    )
    balances = {row.account_id: row for row in locked}
    payer = balances[source.id]
    limit = payer.overdraft_limit_minor
    if limit is not None and payer.balance_minor + limit < order.amount_minor:
        raise InsufficientFundsError

    connection.execute(
        insert(JournalEntry).values(
            id=entry_id,
            kind="transfer",
            currency=order.currency,
            reference=order.reference,
            created_by=order.user_id,
        )
    )
    connection.execute(
        insert(Posting).values(
            [
                {"entry_id": entry_id, "account_id": source.id, "amount_minor": -order.amount_minor},
                {"entry_id": entry_id, "account_id": target.id, "amount_minor": order.amount_minor},
            ]
        )
    )
    return Receipt(entry_id, replayed=False)


def _replay(connection: Connection, order: Order) -> Receipt:
    found = connection.execute(
        select(IdempotencyKey.fingerprint, IdempotencyKey.entry_id).where(
            IdempotencyKey.user_id == order.user_id, IdempotencyKey.key == order.key
        )
    ).one()
    if found.fingerprint != order.fingerprint:
        raise KeyReusedError
    return Receipt(found.entry_id, replayed=True)


def _account(connection: Connection, *conditions: object) -> Row[uuid.UUID, str] | None:
    query = select(Account.id, Account.currency).where(Account.status == "open", *conditions)  # type: ignore[arg-type]
    return connection.execute(query).one_or_none()
