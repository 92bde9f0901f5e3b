"""People who can log in."""

from __future__ import annotations

import uuid
from datetime import datetime

from sqlalchemy import CheckConstraint, DateTime, Text, UniqueConstraint, func, text
from sqlalchemy.orm import Mapped, mapped_column

from bank.models.base import Base


class User(Base):
    """A customer or a member of staff. ``id`` is opaque and may stand in logs; ``email`` may not."""

    __tablename__ = "users"
    __table_args__ = (
        UniqueConstraint("email"),
        CheckConstraint("email = lower(email) AND length(email) BETWEEN 3 AND 254", name="email_normal"),
        CheckConstraint("role IN ('customer', 'teller', 'supervisor', 'auditor', 'admin')", name="role_known"),
    )

    id: Mapped[uuid.UUID] = mapped_column(primary_key=True, server_default=func.gen_random_uuid())
    email: Mapped[str] = mapped_column(Text)
    display_name: Mapped[str] = mapped_column(Text)
    password_hash: Mapped[str] = mapped_column(Text)
    role: Mapped[str] = mapped_column(Text, server_default=text("'customer'"))
    is_enabled: Mapped[bool] = mapped_column(server_default=text("true"))
    credentials_version: Mapped[int] = mapped_column(server_default=text("0"))
    """Grows when the password or the second factor changes; sessions begun before are dead."""
    created_at: Mapped[datetime] = mapped_column(DateTime(timezone=True), server_default=func.now())
