"""How orders of customers were judged before their money moved."""

from __future__ import annotations

import uuid
from datetime import datetime
from typing import Any

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    DateTime,
    ForeignKey,
    Identity,
    Index,
    SmallInteger,
    Text,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from bank.models.base import Base

_APPROVAL = text("approval_id IS NOT NULL")


class FraudDecision(Base):
    """One order, once: its score, what made it up, and whether it was carried out or held. Nothing here ever changes.

    What became of an order that was held is with its approval.
    """

    __tablename__ = "fraud_decisions"
    __table_args__ = (
        CheckConstraint("score BETWEEN 0 AND 100", name="score_range"),
        CheckConstraint("amount_minor > 0", name="amount_positive"),
        CheckConstraint("decision IN ('allowed', 'flagged', 'held')", name="decision_known"),
        CheckConstraint("num_nonnulls(entry_id, approval_id) = 1", name="one_result"),
        CheckConstraint("decision <> 'held' OR approval_id IS NOT NULL", name="held_waits"),
        Index("ix_fraud_decisions_user_id_decided_at", "user_id", "decided_at"),
        Index("ix_fraud_decisions_user_id_payee", "user_id", "payee"),
        Index("ix_fraud_decisions_suspicious", "id", postgresql_where=text("decision <> 'allowed'")),
        Index("uq_fraud_decisions_approval_id", "approval_id", unique=True, postgresql_where=_APPROVAL),
    )

    id: Mapped[int] = mapped_column(BigInteger, Identity(always=True), primary_key=True)
    decided_at: Mapped[datetime] = mapped_column(DateTime(timezone=True), server_default=func.now())
    user_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("users.id"))
    kind: Mapped[str] = mapped_column(Text)
    amount_minor: Mapped[int] = mapped_column(BigInteger)
    currency: Mapped[str] = mapped_column(Text)
    payee: Mapped[str] = mapped_column(Text)
    """Number of the account that is paid, at this bank or another."""
    score: Mapped[int] = mapped_column(SmallInteger)
    decision: Mapped[str] = mapped_column(Text)
    rules: Mapped[str] = mapped_column(Text)
    """Version of the rules that made the score."""
    indicators: Mapped[dict[str, int]] = mapped_column(JSONB)
    """Points of each indicator that had any."""
    inputs: Mapped[dict[str, Any]] = mapped_column(JSONB)
    """What the rules saw."""
    entry_id: Mapped[uuid.UUID | None] = mapped_column(ForeignKey("journal_entries.id"))
    approval_id: Mapped[uuid.UUID | None] = mapped_column(ForeignKey("approvals.id"))
