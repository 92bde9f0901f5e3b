"""What happens by the calendar: standing orders and interest; and the record of reconciliations."""

from __future__ import annotations

import uuid
from datetime import date, datetime
from decimal import Decimal

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Date,
    DateTime,
    ForeignKey,
    Identity,
    Index,
    Integer,
    Numeric,
    Text,
    func,
    text,
)
from sqlalchemy.orm import Mapped, mapped_column

from bank.models.base import Base


class StandingOrder(Base):
    """A customer's order to transfer the same amount every week or month."""

    __tablename__ = "standing_orders"
    __table_args__ = (
        CheckConstraint("amount_minor > 0", name="amount_positive"),
        CheckConstraint("currency ~ '^[A-Z]{3}$'", name="currency_code"),
        CheckConstraint("length(reference) <= 140", name="reference_length"),
        CheckConstraint("frequency IN ('weekly', 'monthly')", name="frequency_known"),
        CheckConstraint("status IN ('active', 'cancelled', 'finished')", name="status_known"),
        CheckConstraint("(status = 'active') = (next_date IS NOT NULL)", name="next_known"),
        CheckConstraint("last_date >= first_date", name="dates_ordered"),
        CheckConstraint("from_account_id <> to_account_id", name="two_accounts"),
        Index("ix_standing_orders_owner_id", "owner_id"),
        Index("ix_standing_orders_next_date", "next_date", postgresql_where=text("status = 'active'")),
    )

    id: Mapped[uuid.UUID] = mapped_column(primary_key=True, server_default=func.gen_random_uuid())
    owner_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("users.id"))
    from_account_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("accounts.id"))
    to_account_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("accounts.id"))
    amount_minor: Mapped[int] = mapped_column(BigInteger)
    currency: Mapped[str] = mapped_column(Text)
    reference: Mapped[str] = mapped_column(Text, server_default=text("''"))
    frequency: Mapped[str] = mapped_column(Text)
    first_date: Mapped[date] = mapped_column(Date)
    last_date: Mapped[date | None] = mapped_column(Date)
    next_date: Mapped[date | None] = mapped_column(Date)
    status: Mapped[str] = mapped_column(Text, server_default=text("'active'"))
    created_at: Mapped[datetime] = mapped_column(DateTime(timezone=True), server_default=func.now())


class StandingOrderRun(Base):
    """What became of a standing order on one due date; the key makes a second payment impossible."""

    __tablename__ = "standing_order_runs"
    __table_args__ = (
        CheckConstraint("outcome IN ('paid', 'waiting', 'failed')", name="outcome_known"),
        CheckConstraint("(outcome = 'paid') = (entry_id IS NOT NULL)", name="paid"),
        CheckConstraint("(outcome = 'waiting') = (approval_id IS NOT NULL)", name="waiting"),
    )

    order_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("standing_orders.id"), primary_key=True)
    due_date: Mapped[date] = mapped_column(Date, primary_key=True)
    outcome: Mapped[str] = mapped_column(Text)
    reason: Mapped[str] = mapped_column(Text, server_default=text("''"))
    entry_id: Mapped[uuid.UUID | None] = mapped_column(ForeignKey("journal_entries.id"))
    approval_id: Mapped[uuid.UUID | None] = mapped_column(ForeignKey("approvals.id"))
    recorded_at: Mapped[datetime] = mapped_column(DateTime(timezone=True), server_default=func.now())


class InterestPeriod(Base):
    """Interest of one account for one month; the key makes a second payment impossible.

    ``rate_ppm`` is the rate of a year in millionths, ``day_sum_minor`` the sum of the balances at the end of each day.
    """

    __tablename__ = "interest_periods"
    __table_args__ = (
        CheckConstraint("extract(day FROM month) = 1", name="month_first"),
        CheckConstraint("amount_minor >= 0", name="amount_sign"),
        CheckConstraint("(amount_minor > 0) = (entry_id IS NOT NULL)", name="booked"),
    )

    account_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("accounts.id"), primary_key=True)
    month: Mapped[date] = mapped_column(Date, primary_key=True)
    rate_ppm: Mapped[int] = mapped_column(Integer)
    day_sum_minor: Mapped[Decimal] = mapped_column(Numeric)
    amount_minor: Mapped[int] = mapped_column(BigInteger)
    entry_id: Mapped[uuid.UUID | None] = mapped_column(
        ForeignKey("journal_entries.id", deferrable=True, initially="DEFERRED")
    )
    recorded_at: Mapped[datetime] = mapped_column(DateTime(timezone=True), server_default=func.now())


class Reconciliation(Base):
    """One run of the checks of the whole ledger, kept so that every instance can report it."""

    __tablename__ = "reconciliations"
    __table_args__ = (CheckConstraint("findings >= 0 AND imbalance_minor >= 0", name="figures_sign"),)

    id: Mapped[int] = mapped_column(BigInteger, Identity(always=True), primary_key=True)
    finished_at: Mapped[datetime] = mapped_column(DateTime(timezone=True), server_default=func.now())
    findings: Mapped[int] = mapped_column(BigInteger)
    imbalance_minor: Mapped[Decimal] = mapped_column(Numeric)
