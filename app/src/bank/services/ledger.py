"""The one place that books money: claims the key, locks the accounts, writes the entry, in one transaction.

READ COMMITTED with row locks: the balances of all accounts that take part are locked in the order of their ids, so
that opposing movements wait for each other instead of deadlocking, and an amount is compared with a balance that
cannot move. A booking costs two statements between BEGIN and COMMIT.
"""

from __future__ import annotations

import hashlib
import json
import uuid
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol, TypeVar

from sqlalchemy import TextClause, text
from sqlalchemy.exc import DBAPIError

from bank import database
from bank.money import EXPONENTS, MAX_MINOR

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from sqlalchemy import Connection, Engine

    from bank.services.screening import Screened

T = TypeVar("T")

# What the database calls a posting or a hold on an account that was frozen or closed after it was looked at.
_USABLE = "account_usable"
# The indexes that keep an entry from being reversed twice.
_ONE_REVERSAL = frozenset({"uq_journal_entries_reverses_id", "uq_approvals_reverses_id"})
MAX_REFERENCE = 140
MAX_KEY = 255
# The bank's own account of each currency, through which money comes in and goes out; made by the first migration.
SETTLEMENT = {
    currency: uuid.UUID(f"00000000-0000-4000-8000-{number:012d}")
    for number, currency in enumerate(("EUR", "GBP", "USD", "CHF", "JPY", "KWD"), start=1)
}


class LedgerError(Exception):
    """Nothing was carried out, and nothing changed."""

    outcome = "refused"


class AccountNotFoundError(LedgerError):
    """The account to take money from is not the person's, not open, or does not exist."""


class AccountFrozenError(LedgerError):
    """The account to take money from is frozen: it can only receive."""

    outcome = "frozen"


class UnknownRecipientError(LedgerError):
    """No open account that can be paid to has this number."""

    outcome = "unknown_recipient"


class SameAccountError(LedgerError):
    """Both sides are the same account."""


class CurrencyMismatchError(LedgerError):
    """The accounts are kept in different currencies."""


class InsufficientFundsError(LedgerError):
    """The account would fall below its limit, or into money that is reserved."""

    outcome = "insufficient_funds"


class AlreadyReversedError(LedgerError):
    """The entry was reversed before, or its reversal waits for approval."""


class KeyReusedError(LedgerError):
    """The idempotency key belongs to something else that was asked for."""

    outcome = "conflict"


class BusyError(LedgerError):
    """The accounts stayed locked for too long; trying again with the same key is safe."""

    outcome = "error"


@dataclass(frozen=True)
class Claim:
    """A person's key for one order, and a hash of what is ordered to tell it from another with the same key."""

    user_id: uuid.UUID
    key: str
    fingerprint: str

    def __post_init__(self) -> None:
        """Refuse a key that cannot be stored.

        Raises:
            LedgerError: The key does not have 1 to 255 characters.
        """
        if not 0 < len(self.key) <= MAX_KEY:
            raise LedgerError("the key must have 1 to 255 characters")

    @classmethod
    def of(cls, user_id: uuid.UUID, key: str, *parts: object) -> Claim:
        """Make a claim whose fingerprint covers ``parts``: what is done, to what, and every detail of it."""
        plain = [part if isinstance(part, int) else str(part) for part in parts]
        return cls(user_id, key, hashlib.sha256(json.dumps(plain).encode()).hexdigest())


class Order(Protocol):
    """What all orders of people have in common; the amount is in minor units of ``currency``."""

    @property
    def user_id(self) -> uuid.UUID:
        """Return whose order it is."""

    @property
    def amount_minor(self) -> int:
        """Return the amount."""

    @property
    def currency(self) -> str:
        """Return the currency."""


@dataclass(frozen=True)
class Movement:
    """Money that goes from one account to another; the amount is in minor units of ``currency``.

    ``credit`` is an account's id, or the number of a customer's account. ``owner_id`` demands that the account that
    pays belongs to this person; staff and the bank itself act without it.
    """

    kind: str
    debit: uuid.UUID
    credit: uuid.UUID | str
    amount_minor: int
    currency: str
    created_by: uuid.UUID | None
    owner_id: uuid.UUID | None = None
    reference: str = ""
    counterparty: str = ""
    counterparty_number: str = ""
    reverses_id: uuid.UUID | None = None

    def __post_init__(self) -> None:
        """Refuse what no account could book.

        Raises:
            LedgerError: The amount, the currency or the reference is not usable.
        """
        if not 0 < self.amount_minor <= MAX_MINOR or self.currency not in EXPONENTS:
            raise LedgerError("the amount is not usable")
        if len(self.reference) > MAX_REFERENCE:
            raise LedgerError("the reference is too long")

    @property
    def ids(self) -> list[uuid.UUID]:
        """Return the accounts that are named by their ids."""
        return [self.debit] if isinstance(self.credit, str) else [self.debit, self.credit]

    @property
    def numbers(self) -> list[str]:
        """Return the accounts that are named by their numbers."""
        return [self.credit] if isinstance(self.credit, str) else []


@dataclass(frozen=True)
class Receipt:
    """What an order led to: a booked entry, or an approval that is waited for.

    ``replayed`` means that the order had been carried out before, and that nothing happened now. ``screened`` is how
    suspicious it looked, if it was looked at now.
    """

    entry_id: uuid.UUID | None
    replayed: bool = False
    approval_id: uuid.UUID | None = None
    hold_id: uuid.UUID | None = None
    standing_order_id: uuid.UUID | None = None
    screened: Screened | None = field(default=None, compare=False)

    @property
    def result(self) -> uuid.UUID | None:
        """Return the id of whatever came out of the order."""
        return self.entry_id or self.approval_id or self.hold_id or self.standing_order_id


@dataclass(frozen=True)
class Side:
    """An account whose balance is locked; amounts in minor units."""

    id: uuid.UUID
    number: str
    owner_id: uuid.UUID | None
    kind: str
    currency: str
    status: str
    balance_minor: int
    held_minor: int
    overdraft_limit_minor: int | None

    def can_spare(self, amount_minor: int) -> bool:
        """Tell whether the amount can be taken or reserved; the bank's own accounts have no limit."""
        left = self.available_after(amount_minor)
        return left is None or left >= 0

    def available_after(self, amount_minor: int) -> int | None:
        """Return what could still be taken after the amount; None means that there is no limit."""
        limit = self.overdraft_limit_minor
        return None if limit is None else self.balance_minor - self.held_minor + limit - amount_minor


_SIDES = """
SELECT a.id, a.number, a.owner_id, a.kind, a.currency, a.status, b.balance_minor, b.held_minor, b.overdraft_limit_minor
  FROM {claim}accounts a JOIN balances b ON b.account_id = a.id
 WHERE a.id = ANY(CAST(:ids AS uuid[])) OR a.number = ANY(CAST(:numbers AS text[]))
 ORDER BY b.account_id
"""
_LOCKED = "   FOR NO KEY UPDATE OF b"
# A second request with this key waits here until the first has committed or failed, and then finds no rows.
_CLAIM = """
WITH claim AS (
    INSERT INTO idempotency_keys (user_id, key, fingerprint, entry_id, approval_id, hold_id, standing_order_id)
    VALUES (:user_id, :key, :fingerprint, :entry_id, :approval_id, :hold_id, :standing_order_id)
    ON CONFLICT DO NOTHING RETURNING 1)
"""
_CLAIM_ONLY = text(_CLAIM + "TABLE claim")
_LOOK = text(_SIDES.format(claim=""))
_LOCK = text(_SIDES.format(claim="") + _LOCKED)
# No balance is locked before the key is claimed, since each row needs the claim's.
CLAIM_AND_LOCK = text(_CLAIM + _SIDES.format(claim="claim CROSS JOIN ") + _LOCKED)
_CLAIMED = text("""
SELECT k.fingerprint, coalesce(k.entry_id, p.entry_id), k.approval_id, k.hold_id, k.standing_order_id
  FROM idempotency_keys k LEFT JOIN approvals p ON p.id = k.approval_id
 WHERE k.user_id = :user_id AND k.key = :key
""")
_BOOK = """
WITH entry AS (
    INSERT INTO journal_entries
           (id, kind, currency, reference, counterparty, counterparty_number, reverses_id, created_by)
    VALUES (:id, :kind, :currency, :reference, :counterparty, :counterparty_number, :reverses_id, :created_by)
    RETURNING id){beside}
INSERT INTO postings (entry_id, account_id, amount_minor)
SELECT entry.id, leg.account_id, leg.amount_minor
  FROM entry CROSS JOIN (VALUES (CAST(:debit AS uuid), -CAST(:amount AS bigint)),
                                (CAST(:credit AS uuid), CAST(:amount AS bigint))) AS leg (account_id, amount_minor)
"""
BOOK = text(_BOOK.format(beside=""))


def booking_with(insert: str) -> TextClause:
    """Return the statement that books an entry and, in the same round trip, makes a row beside it."""
    return text(_BOOK.format(beside=f",\nbeside AS ({insert})"))


def in_transaction(engine: Engine, work: Callable[[Connection], T]) -> T:
    """Run ``work`` in one transaction, again when PostgreSQL asks for it or an account was frozen or closed meanwhile.

    Raises:
        BusyError: An account stayed locked for too long, or does not stay as it is.
        AlreadyReversedError: Somebody else reversed the same entry at the same time.
    """
    try:
        try:
            return database.in_transaction(engine, work)
        except DBAPIError as error:
            if not is_overtaken(error):
                raise
        # Now it sees the account as it is, and says why it is not possible.
        return database.in_transaction(engine, work)
    except DBAPIError as error:
        if database.sqlstate(error) == database.LOCK_NOT_AVAILABLE or is_overtaken(error):
            raise BusyError from error
        if database.constraint(error) in _ONE_REVERSAL:
            raise AlreadyReversedError from error
        raise


def is_overtaken(error: DBAPIError) -> bool:
    """Tell whether an account was frozen or closed after it was looked at; the transaction must be run again.

    Balances are locked, but who freezes waits for that lock only, and the accounts were read before it was had.
    """
    return database.constraint(error) == _USABLE


def lock(connection: Connection, ids: Iterable[uuid.UUID], numbers: Iterable[str] = ()) -> list[Side]:
    """Lock the balances of accounts until the end of the transaction, and return what they are."""
    return [Side(*row) for row in database.execute(connection, _LOCK, {"ids": list(ids), "numbers": list(numbers)})]


def look(connection: Connection, ids: Iterable[uuid.UUID], numbers: Iterable[str] = ()) -> list[Side]:
    """Return what accounts are just now, without locking them: good enough to tell a person what would happen."""
    return [Side(*row) for row in database.execute(connection, _LOOK, {"ids": list(ids), "numbers": list(numbers)})]


def claim_and_lock(
    connection: Connection, claim: Claim, result: Receipt, ids: Iterable[uuid.UUID], numbers: Iterable[str] = ()
) -> list[Side] | Receipt:
    """Claim a key for ``result`` and lock accounts; or return the receipt of the first order with this key.

    Raises:
        KeyReusedError: The key belongs to another order.
    """
    parameters = _parameters(claim, result) | {"ids": list(ids), "numbers": list(numbers)}
    rows = database.execute(connection, CLAIM_AND_LOCK, parameters).fetchall()
    if not rows and (earlier := replay(connection, claim)) and earlier.result != result.result:
        return earlier
    return [Side(*row) for row in rows]


def claim(connection: Connection, claim: Claim, result: Receipt) -> Receipt | None:
    """Claim a key for ``result`` where no balance is touched; or return the receipt of the first order with this key.

    Raises:
        KeyReusedError: The key belongs to another order.
    """
    if database.execute(connection, _CLAIM_ONLY, _parameters(claim, result)).fetchone():
        return None
    return replay(connection, claim)


def _parameters(claim: Claim, result: Receipt) -> dict[str, object]:
    return {
        "user_id": claim.user_id,
        "key": claim.key,
        "fingerprint": claim.fingerprint,
        "entry_id": result.entry_id,
        "approval_id": result.approval_id,
        "hold_id": result.hold_id,
        "standing_order_id": result.standing_order_id,
    }


def replay(connection: Connection, claim: Claim) -> Receipt | None:
    """Return the receipt of the order that this key belongs to, or None if it belongs to none.

    Raises:
        KeyReusedError: The key belongs to another order.
    """
    row = database.execute(connection, _CLAIMED, {"user_id": claim.user_id, "key": claim.key}).fetchone()
    if row is None:
        return None
    fingerprint, *results = row
    if fingerprint != claim.fingerprint:
        raise KeyReusedError
    entry_id, approval_id, hold_id, standing_order_id = results
    return Receipt(entry_id, True, approval_id, hold_id, standing_order_id)


def sides_of(movement: Movement, locked: list[Side]) -> tuple[Side, Side]:
    """Return the account that pays and the one that is paid, once nothing speaks against the movement.

    Money that is short is not looked at; see ``Side.can_spare``.

    Raises:
        LedgerError: One of the reasons above.
    """
    debit = next((side for side in locked if side.id == movement.debit and side.status != "closed"), None)
    if debit is None or (movement.owner_id is not None and debit.owner_id != movement.owner_id):
        raise AccountNotFoundError
    if debit.status == "frozen":
        raise AccountFrozenError
    credit = next((side for side in locked if side.status != "closed" and _is_paid(side, movement.credit)), None)
    if credit is None:
        raise UnknownRecipientError
    if debit.id == credit.id:
        raise SameAccountError
    if not debit.currency == credit.currency == movement.currency:
        raise CurrencyMismatchError
    return debit, credit


def _is_paid(side: Side, credit: uuid.UUID | str) -> bool:
    if isinstance(credit, str):
        return side.number == credit and side.kind != "internal"
    return side.id == credit


def book(
    connection: Connection,
    entry_id: uuid.UUID,
    movement: Movement,
    debit: uuid.UUID,
    credit: uuid.UUID,
    *,
    statement: TextClause = BOOK,
    beside: Mapping[str, object] | None = None,
) -> None:
    """Write an entry with its two postings, which move the balances; both accounts are locked already.

    Args:
        connection: Inside the transaction that locked them.
        entry_id: What the entry is to be called.
        movement: What the entry says.
        debit: The account that pays.
        credit: The account that is paid.
        statement: From :func:`booking_with`, if a row is to be made beside the entry.
        beside: The values of that row.
    """
    database.execute(
        connection,
        statement,
        {
            **(beside or {}),
            "id": entry_id,
            "kind": movement.kind,
            "currency": movement.currency,
            "reference": movement.reference,
            "counterparty": movement.counterparty,
            "counterparty_number": movement.counterparty_number,
            "reverses_id": movement.reverses_id,
            "created_by": movement.created_by,
            "debit": debit,
            "credit": credit,
            "amount": movement.amount_minor,
        },
    )
