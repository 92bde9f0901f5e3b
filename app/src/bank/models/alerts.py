"""Alerts that monitoring sent, so that staff sees them where they work."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import CheckConstraint, DateTime, Index, Text, func
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from bank.models.base import Base


class Alert(Base):
    """One time that an alert fired. Alertmanager names it by fingerprint and start, however often it tells us."""

    __tablename__ = "alerts"
    __table_args__ = (
        CheckConstraint("length(fingerprint) BETWEEN 1 AND 64", name="fingerprint_length"),
        CheckConstraint("status IN ('firing', 'resolved')", name="status_known"),
        CheckConstraint("(status = 'resolved') = (closed_at IS NOT NULL)", name="closed_once"),
        Index("ix_alerts_status_starts_at", "status", "starts_at"),
    )

    fingerprint: Mapped[str] = mapped_column(Text, primary_key=True)
    starts_at: Mapped[datetime] = mapped_column(DateTime(timezone=True), primary_key=True)
    name: Mapped[str] = mapped_column(Text)
    severity: Mapped[str] = mapped_column(Text)
    status: Mapped[str] = mapped_column(Text)
    labels: Mapped[dict[str, str]] = mapped_column(JSONB)
    annotations: Mapped[dict[str, str]] = mapped_column(JSONB)
    ends_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))
    """When it ended, by monitoring's clock."""
    received_at: Mapped[datetime] = mapped_column(DateTime(timezone=True), server_default=func.now())
    closed_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))
    """When the bank heard of the end."""
