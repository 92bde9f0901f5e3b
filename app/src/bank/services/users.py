"""Finding users, and proving who they are."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING

from flask_login import UserMixin
from sqlalchemy import bindparam, exists, insert, select, update
from sqlalchemy.exc import IntegrityError

from bank import permissions
from bank.database import execute, reading
from bank.models import SecondFactor, User
from bank.services import audit, notifications, passwords

if TYPE_CHECKING:
    from sqlalchemy import Connection, Engine, Row

MAX_EMAIL = 254


class EmailTakenError(Exception):
    """Somebody has this email already."""


class WrongPasswordError(Exception):
    """This is not the person's password."""


@dataclass(frozen=True)
class Person(UserMixin):  # type: ignore[misc]
    """Who is logged in."""

    id: uuid.UUID
    display_name: str
    role: str
    credentials_version: int = 0
    has_second_factor: bool = False

    def get_id(self) -> str:
        """Return the id that the session keeps."""
        return str(self.id)

    @property
    def is_staff(self) -> bool:
        """Whether the person works for the bank."""
        return self.role != permissions.Role.CUSTOMER

    def may(self, permission: permissions.Permission) -> bool:
        """Tell whether the person's role has a permission."""
        return permission in permissions.of_role(self.role)


_PERSON = (
    User.id,
    User.display_name,
    User.role,
    User.credentials_version,
    exists().where(SecondFactor.user_id == User.id).label("has_second_factor"),
)


# Made once: building it takes longer than asking the database.
_ENABLED = select(*_PERSON).where(User.id == bindparam("id"), User.is_enabled)


def normal_email(email: str) -> str:
    """Return an email as the bank stores and compares it."""
    return email.strip().lower()


def find(engine: Engine, user_id: str) -> Person | None:
    """Return an enabled user; one who was disabled since the log-in is not found."""
    try:
        key = uuid.UUID(user_id)
    except ValueError:
        return None
    with reading(engine) as connection:
        row = execute(connection, _ENABLED, {"id": key}).fetchone()
    return Person(*row) if row else None


def authenticate(engine: Engine, email: str, password: str) -> Person | None:
    """Return the user whose email and password these are; a second factor, if there is one, is still to be asked.

    Unknown users, disabled users and wrong passwords give the same answer in the same time. Only a hash imported
    from elsewhere takes another time than Argon2id, until its first log-in here.
    """
    email = normal_email(email)
    row = None
    if 0 < len(email) <= MAX_EMAIL and "\x00" not in email:
        query = select(*_PERSON, User.password_hash, User.is_enabled).where(User.email == email)
        with engine.connect() as connection:
            row = connection.execute(query).one_or_none()
    # No connection is held while the hash is computed.
    if not passwords.matches(row.password_hash if row else None, password) or row is None or not row.is_enabled:
        return None
    _renew_hash(engine, row, password)
    return Person(*row[: len(_PERSON)])


def _renew_hash(engine: Engine, row: Row[*tuple[object, ...]], password: str) -> None:
    if passwords.is_outdated(row.password_hash):
        with engine.begin() as connection:
            connection.execute(
                update(User)
                .where(User.id == row.id, User.password_hash == row.password_hash)
                .values(password_hash=passwords.make_hash(password))
            )


def email_of(engine: Engine, user_id: uuid.UUID) -> str:
    """Return the email of a person who exists."""
    with engine.connect() as connection:
        return connection.execute(select(User.email).where(User.id == user_id)).scalar_one()


def confirm_password(engine: Engine, user_id: uuid.UUID, password: str) -> None:
    """Make sure that it is the person who asks.

    Raises:
        WrongPasswordError: It is not their password.
    """
    with engine.connect() as connection:
        stored = connection.execute(select(User.password_hash).where(User.id == user_id, User.is_enabled)).scalar()
    if not passwords.matches(stored, password):
        raise WrongPasswordError


def change_password(engine: Engine, user_id: uuid.UUID, current: str, new: str, origin: audit.Origin) -> int:
    """Give a person another password; sessions that exist are dead from now on.

    Returns:
        The version of the person's credentials from now on.

    Raises:
        WrongPasswordError: ``current`` is not their password.
        bank.services.passwords.PasswordError: The new one is not good enough.
    """
    confirm_password(engine, user_id, current)
    passwords.check_new(new, email_of(engine, user_id))
    new_hash = passwords.make_hash(new)
    with engine.begin() as connection:
        version = connection.execute(
            update(User)
            .where(User.id == user_id)
            .values(password_hash=new_hash, credentials_version=User.credentials_version + 1)
            .returning(User.credentials_version)
        ).scalar_one()
        notifications.tell(connection, user_id, notifications.Kind.PASSWORD_CHANGED)
        audit.record(connection, origin, "password-change", audit.Object("user", str(user_id)))
    return version


def insert_user(
    connection: Connection, email: str, display_name: str, role: str, password_hash: str, *, user_id: uuid.UUID
) -> uuid.UUID:
    """Add a user in the caller's transaction.

    Raises:
        EmailTakenError: Somebody has this email; the caller's transaction must end.
    """
    values = {"id": user_id, "email": email, "display_name": display_name, "role": role, "password_hash": password_hash}
    try:
        connection.execute(insert(User).values(values))
    except IntegrityError as error:
        raise EmailTakenError from error
    return user_id


def create_staff(
    engine: Engine, *, email: str, display_name: str, role: permissions.Role, password: str, origin: audit.Origin
) -> uuid.UUID:
    """Add somebody who works for the bank.

    Returns:
        The new user's id.

    Raises:
        EmailTakenError: Somebody has this email already.
        bank.services.passwords.PasswordError: The password is not good enough.
    """
    email = normal_email(email)
    passwords.check_new(password, email)
    password_hash = passwords.make_hash(password)
    with engine.begin() as connection:
        user_id = insert_user(connection, email, display_name, role, password_hash, user_id=uuid.uuid4())
        audit.record(connection, origin, "user-create", audit.Object("user", str(user_id)), after={"role": str(role)})
    return user_id
