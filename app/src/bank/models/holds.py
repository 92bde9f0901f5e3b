"""Money that is reserved, and movements of money that wait for a second person."""

from __future__ import annotations

import uuid
from datetime import datetime

from sqlalchemy import BigInteger, CheckConstraint, DateTime, ForeignKey, Index, Text, func, text
from sqlalchemy.orm import Mapped, mapped_column

from bank.models.base import Base

_HELD = text("status = 'held'")
_PENDING = text("status = 'pending'")


class Hold(Base):
    """Part of an account's money that is reserved until it is posted, voided or expires.

    A trigger keeps ``balances.held_minor``; a hold ends once and is not changed otherwise.
    """

    __tablename__ = "holds"
    __table_args__ = (
        CheckConstraint("amount_minor > 0", name="amount_positive"),
        CheckConstraint("status IN ('held', 'posted', 'voided', 'expired')", name="status_known"),
        CheckConstraint("length(reference) <= 140", name="reference_length"),
        CheckConstraint("(status = 'held') = (ended_at IS NULL)", name="ended"),
        CheckConstraint("(status = 'posted') = (entry_id IS NOT NULL AND posted_minor IS NOT NULL)", name="posted"),
        CheckConstraint("posted_minor BETWEEN 1 AND amount_minor", name="posted_part"),
        Index("ix_holds_account_id", "account_id", postgresql_where=_HELD),
        Index("ix_holds_expires_at", "expires_at", postgresql_where=_HELD),
    )

    id: Mapped[uuid.UUID] = mapped_column(primary_key=True, server_default=func.gen_random_uuid())
    account_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("accounts.id"))
    amount_minor: Mapped[int] = mapped_column(BigInteger)
    status: Mapped[str] = mapped_column(Text, server_default=text("'held'"))
    reference: Mapped[str] = mapped_column(Text, server_default=text("''"))
    created_by: Mapped[uuid.UUID | None] = mapped_column(ForeignKey("users.id"))
    created_at: Mapped[datetime] = mapped_column(DateTime(timezone=True), server_default=func.now())
    expires_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))
    ended_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))
    posted_minor: Mapped[int | None] = mapped_column(BigInteger)
    entry_id: Mapped[uuid.UUID | None] = mapped_column(
        ForeignKey("journal_entries.id", deferrable=True, initially="DEFERRED")
    )


class Approval(Base):
    """A movement of money from one account to another that waits for somebody else than who asked for it."""

    __tablename__ = "approvals"
    __table_args__ = (
        CheckConstraint("kind IN ('transfer', 'payment', 'withdrawal', 'reversal')", name="kind_known"),
        CheckConstraint("status IN ('pending', 'approved', 'rejected', 'expired')", name="status_known"),
        CheckConstraint("amount_minor > 0", name="amount_positive"),
        CheckConstraint("currency ~ '^[A-Z]{3}$'", name="currency_code"),
        CheckConstraint("(kind = 'reversal') = (reverses_id IS NOT NULL)", name="reversal"),
        CheckConstraint("decided_by <> created_by", name="four_eyes"),
        CheckConstraint("(status = 'pending') = (decided_at IS NULL)", name="decided"),
        CheckConstraint("(status IN ('approved', 'rejected')) = (decided_by IS NOT NULL)", name="decided_by_somebody"),
        CheckConstraint("(status = 'approved') = (entry_id IS NOT NULL)", name="carried_out"),
        CheckConstraint("length(reason) <= 500", name="reason_length"),
        Index("ix_approvals_expires_at", "expires_at", postgresql_where=_PENDING),
        Index("ix_approvals_debit_account_id", "debit_account_id", postgresql_where=_PENDING),
        Index(
            "uq_approvals_reverses_id",
            "reverses_id",
            unique=True,
            postgresql_where=text("status = 'pending' AND reverses_id IS NOT NULL"),
        ),
    )

    id: Mapped[uuid.UUID] = mapped_column(primary_key=True, server_default=func.gen_random_uuid())
    kind: Mapped[str] = mapped_column(Text)
    status: Mapped[str] = mapped_column(Text, server_default=text("'pending'"))
    debit_account_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("accounts.id"))
    credit_account_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("accounts.id"))
    amount_minor: Mapped[int] = mapped_column(BigInteger)
    currency: Mapped[str] = mapped_column(Text)
    reference: Mapped[str] = mapped_column(Text, server_default=text("''"))
    counterparty: Mapped[str] = mapped_column(Text, server_default=text("''"))
    counterparty_number: Mapped[str] = mapped_column(Text, server_default=text("''"))
    reverses_id: Mapped[uuid.UUID | None] = mapped_column(ForeignKey("journal_entries.id"))
    hold_id: Mapped[uuid.UUID | None] = mapped_column(ForeignKey("holds.id"))
    created_by: Mapped[uuid.UUID] = mapped_column(ForeignKey("users.id"))
    created_at: Mapped[datetime] = mapped_column(DateTime(timezone=True), server_default=func.now())
    expires_at: Mapped[datetime] = mapped_column(DateTime(timezone=True))
    decided_by: Mapped[uuid.UUID | None] = mapped_column(ForeignKey("users.id"))
    decided_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))
    reason: Mapped[str] = mapped_column(Text, server_default=text("''"))
    entry_id: Mapped[uuid.UUID | None] = mapped_column(
        ForeignKey("journal_entries.id", deferrable=True, initially="DEFERRED")
    )
