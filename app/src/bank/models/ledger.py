"""The ledger: accounts, their balances, and the append-only journal of double entries.

Amounts are whole numbers of the currency's minor units. Triggers that the migrations install keep the rules
whatever program writes: an entry's postings sum to zero at COMMIT, a posting moves its account's balance,
and nothing in the journal is ever changed or removed.
"""

from __future__ import annotations

import uuid
from datetime import datetime

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    DateTime,
    ForeignKey,
    Identity,
    Index,
    Text,
    UniqueConstraint,
    func,
    text,
)
from sqlalchemy.orm import Mapped, mapped_column

from bank.models.base import Base


class Account(Base):
    """An account of a customer, or one of the bank's own (``kind`` internal, no owner)."""

    __tablename__ = "accounts"
    __table_args__ = (
        UniqueConstraint("number"),
        CheckConstraint("kind IN ('checking', 'savings', 'internal')", name="kind_known"),
        CheckConstraint("(kind = 'internal') = (owner_id IS NULL)", name="owner_present"),
        CheckConstraint("currency ~ '^[A-Z]{3}$'", name="currency_code"),
        CheckConstraint("status IN ('open', 'closed')", name="status_known"),
        Index("ix_accounts_owner_id", "owner_id"),
    )

    id: Mapped[uuid.UUID] = mapped_column(primary_key=True, server_default=func.gen_random_uuid())
    owner_id: Mapped[uuid.UUID | None] = mapped_column(ForeignKey("users.id"))
    number: Mapped[str] = mapped_column(Text)
    name: Mapped[str] = mapped_column(Text)
    kind: Mapped[str] = mapped_column(Text)
    currency: Mapped[str] = mapped_column(Text)
    status: Mapped[str] = mapped_column(Text, server_default=text("'open'"))
    created_at: Mapped[datetime] = mapped_column(DateTime(timezone=True), server_default=func.now())


class Balance(Base):
    """The booked balance of an account; apart from it so that the row that is locked is small.

    ``version`` counts the account's postings; ``held_minor`` is the sum of its holds that have not ended.
    No overdraft limit means no limit, for the bank's own accounts.
    """

    __tablename__ = "balances"
    __table_args__ = (
        CheckConstraint(
            "overdraft_limit_minor IS NULL OR balance_minor - held_minor >= -overdraft_limit_minor",
            name="within_overdraft",
        ),
        CheckConstraint("held_minor >= 0", name="held_sign"),
        CheckConstraint("overdraft_limit_minor >= 0", name="overdraft_limit_sign"),
    )

    account_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("accounts.id"), primary_key=True)
    balance_minor: Mapped[int] = mapped_column(BigInteger, server_default=text("0"))
    held_minor: Mapped[int] = mapped_column(BigInteger, server_default=text("0"))
    overdraft_limit_minor: Mapped[int | None] = mapped_column(BigInteger, server_default=text("0"))
    version: Mapped[int] = mapped_column(BigInteger, server_default=text("0"))
    updated_at: Mapped[datetime] = mapped_column(DateTime(timezone=True), server_default=func.now())


class JournalEntry(Base):
    """One movement of money, made of two or more postings. ``recorded_at`` is always the database's clock."""

    __tablename__ = "journal_entries"
    __table_args__ = (
        CheckConstraint(
            "kind IN ('opening', 'transfer', 'payment', 'salary', 'interest', 'deposit', 'withdrawal', 'fee', "
            "'reversal')",
            name="kind_known",
        ),
        CheckConstraint("currency ~ '^[A-Z]{3}$'", name="currency_code"),
        CheckConstraint("length(reference) <= 140", name="reference_length"),
        CheckConstraint("length(counterparty) <= 140", name="counterparty_length"),
        CheckConstraint("length(counterparty_number) <= 34", name="counterparty_number_length"),
        CheckConstraint("(kind = 'reversal') = (reverses_id IS NOT NULL)", name="reversal"),
        CheckConstraint("booked_at <= recorded_at", name="not_in_future"),
        Index(
            "uq_journal_entries_reverses_id",
            "reverses_id",
            unique=True,
            postgresql_where=text("reverses_id IS NOT NULL"),
        ),
    )

    id: Mapped[uuid.UUID] = mapped_column(primary_key=True, server_default=func.gen_random_uuid())
    kind: Mapped[str] = mapped_column(Text)
    currency: Mapped[str] = mapped_column(Text)
    reference: Mapped[str] = mapped_column(Text, server_default=text("''"))
    counterparty: Mapped[str] = mapped_column(Text, server_default=text("''"))
    """Name of the other side when it is outside the bank."""
    counterparty_number: Mapped[str] = mapped_column(Text, server_default=text("''"))
    """IBAN of the other side when it is outside the bank."""
    reverses_id: Mapped[uuid.UUID | None] = mapped_column(ForeignKey("journal_entries.id"))
    created_by: Mapped[uuid.UUID | None] = mapped_column(ForeignKey("users.id"))
    booked_at: Mapped[datetime] = mapped_column(DateTime(timezone=True), server_default=func.now())
    recorded_at: Mapped[datetime] = mapped_column(DateTime(timezone=True), server_default=func.now())


class Posting(Base):
    """One leg of an entry: positive adds to the account. Balance and version after it are set by a trigger."""

    __tablename__ = "postings"
    __table_args__ = (
        UniqueConstraint("account_id", "version"),
        CheckConstraint("amount_minor <> 0", name="amount_present"),
        Index("ix_postings_entry_id", "entry_id"),
    )

    id: Mapped[int] = mapped_column(BigInteger, Identity(always=True), primary_key=True)
    entry_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("journal_entries.id"))
    account_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("accounts.id"))
    amount_minor: Mapped[int] = mapped_column(BigInteger)
    balance_after_minor: Mapped[int] = mapped_column(BigInteger)
    version: Mapped[int] = mapped_column(BigInteger)


def _result(table: str) -> ForeignKey:
    """Refer to what a key led to; checked at COMMIT, since the key is claimed first."""
    return ForeignKey(f"{table}.id", deferrable=True, initially="DEFERRED")


class IdempotencyKey(Base):
    """A form or request that was carried out, so that sending it again changes nothing; one result each."""

    __tablename__ = "idempotency_keys"
    __table_args__ = (
        CheckConstraint("length(key) BETWEEN 1 AND 255", name="key_length"),
        CheckConstraint("num_nonnulls(entry_id, approval_id, hold_id, standing_order_id) = 1", name="one_result"),
    )

    user_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("users.id"), primary_key=True)
    key: Mapped[str] = mapped_column(Text, primary_key=True)
    fingerprint: Mapped[str] = mapped_column(Text)
    entry_id: Mapped[uuid.UUID | None] = mapped_column(_result("journal_entries"))
    approval_id: Mapped[uuid.UUID | None] = mapped_column(_result("approvals"))
    hold_id: Mapped[uuid.UUID | None] = mapped_column(_result("holds"))
    standing_order_id: Mapped[uuid.UUID | None] = mapped_column(_result("standing_orders"))
    created_at: Mapped[datetime] = mapped_column(DateTime(timezone=True), server_default=func.now())
