"""People: sign-ups that wait, second factors, and the audit trail of what people and staff did."""

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
    LargeBinary,
    Text,
    UniqueConstraint,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from bank.models.base import Base


class SignUp(Base):
    """Somebody who asks to become a customer. Two people may give the same email: staff finds out whose it is."""

    __tablename__ = "sign_ups"
    __table_args__ = (
        CheckConstraint("email = lower(email) AND length(email) BETWEEN 3 AND 254", name="email_normal"),
        CheckConstraint("length(display_name) BETWEEN 1 AND 100", name="display_name_length"),
        Index("ix_sign_ups_email", "email"),
    )

    id: Mapped[uuid.UUID] = mapped_column(primary_key=True)
    email: Mapped[str] = mapped_column(Text)
    display_name: Mapped[str] = mapped_column(Text)
    password_hash: Mapped[str] = mapped_column(Text)
    created_at: Mapped[datetime] = mapped_column(DateTime(timezone=True), server_default=func.now())


class SecondFactor(Base):
    """A person's TOTP seed, encrypted, and the last time step whose code was used."""

    __tablename__ = "second_factors"

    user_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("users.id"), primary_key=True)
    seed: Mapped[bytes] = mapped_column(LargeBinary)
    last_step: Mapped[int] = mapped_column(BigInteger)
    created_at: Mapped[datetime] = mapped_column(DateTime(timezone=True), server_default=func.now())


class RecoveryCode(Base):
    """A hash of a code that works once instead of the second factor."""

    __tablename__ = "recovery_codes"

    user_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("users.id"), primary_key=True)
    code_hash: Mapped[bytes] = mapped_column(LargeBinary, primary_key=True)
    used_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))


_CREDENTIALS = text(
    "object_type = 'user' AND action IN ('log-in-refused', 'password-change', 'recovery-codes-renew', "
    "'second-factor-enrol', 'second-factor-remove')"
)


class AuditEvent(Base):
    """One act, linked to the one before it by its hash. Nothing here is ever changed or removed."""

    __tablename__ = "audit_events"
    __table_args__ = (
        UniqueConstraint("previous_hash"),
        CheckConstraint("number > 0", name="number_sign"),
        CheckConstraint("length(hash) = 32 AND length(previous_hash) = 32", name="hash_length"),
        Index("ix_audit_events_actor_id", "actor_id", "number"),
        Index("ix_audit_events_object", "object_type", "object_id", "number"),
        Index("ix_audit_events_credentials", "object_id", "occurred_at", postgresql_where=_CREDENTIALS),
    )

    number: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    occurred_at: Mapped[datetime] = mapped_column(DateTime(timezone=True))
    # No foreign key: an entry must stay true whatever happens to the person.
    actor_id: Mapped[uuid.UUID | None]
    action: Mapped[str] = mapped_column(Text)
    object_type: Mapped[str] = mapped_column(Text)
    object_id: Mapped[str] = mapped_column(Text)
    before: Mapped[dict[str, Any] | None] = mapped_column(JSONB(none_as_null=True))
    after: Mapped[dict[str, Any] | None] = mapped_column(JSONB(none_as_null=True))
    source_ip: Mapped[str] = mapped_column(Text, server_default=text("''"))
    request_id: Mapped[str] = mapped_column(Text, server_default=text("''"))
    previous_hash: Mapped[bytes] = mapped_column(LargeBinary)
    hash: Mapped[bytes] = mapped_column(LargeBinary)


class AuditCheck(Base):
    """One run along the whole audit trail: how many rows were good, the hash of the last, and what was wrong."""

    __tablename__ = "audit_checks"
    __table_args__ = (CheckConstraint("rows >= 0", name="rows_sign"),)

    id: Mapped[int] = mapped_column(BigInteger, Identity(always=True), primary_key=True)
    finished_at: Mapped[datetime] = mapped_column(DateTime(timezone=True), server_default=func.now())
    rows: Mapped[int] = mapped_column(BigInteger)
    head: Mapped[str] = mapped_column(Text)
    problem: Mapped[str | None] = mapped_column(Text)
