"""Finding users, and proving who they are."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING

from flask_login import UserMixin
from sqlalchemy import select, update

from bank import permissions
from bank.database import reading
from bank.models import User
from bank.services import passwords

if TYPE_CHECKING:
    from sqlalchemy import Engine

MAX_EMAIL = 254


@dataclass(frozen=True)
class Person(UserMixin):  # type: ignore[misc]
    """Who is logged in."""

    id: uuid.UUID
    display_name: str
    role: str
    credentials_version: int = 0

    def get_id(self) -> str:
        """Return the id that the session keeps."""
        return str(self.id)

    def may(self, permission: permissions.Permission) -> bool:
        """Tell whether the person's role has a permission."""
        return permission in permissions.of_role(self.role)


def find(engine: Engine, user_id: str) -> Person | None:
    """Return an enabled user; one who was disabled since the log-in is not found."""
    try:
        key = uuid.UUID(user_id)
    except ValueError:
        return None
    query = select(User.id, User.display_name, User.role, User.credentials_version)
    with reading(engine) as connection:
        row = connection.execute(query.where(User.id == key, User.is_enabled)).one_or_none()
    return Person(*row) if row else None


def authenticate(engine: Engine, email: str, password: str) -> Person | None:
    """Return the user whose email and password these are.

    Unknown users, disabled users and wrong passwords give the same answer in the same time.
    """
    email = email.strip().lower()
    row = None
    if 0 < len(email) <= MAX_EMAIL and "\x00" not in email:
        query = select(
            User.id, User.display_name, User.role, User.credentials_version, User.password_hash, User.is_enabled
        )
        with engine.connect() as connection:
            row = connection.execute(query.where(User.email == email)).one_or_none()
    # No connection is held while the hash is computed.
    if not passwords.matches(row.password_hash if row else None, password) or row is None or not row.is_enabled:
        return None
    if passwords.is_outdated(row.password_hash):
        with engine.begin() as connection:
            connection.execute(
                update(User)
                .where(User.id == row.id, User.password_hash == row.password_hash)
                .values(password_hash=passwords.make_hash(password))
            )
    return Person(row.id, row.display_name, row.role, row.credentials_version)
