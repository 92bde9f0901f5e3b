"""Becoming a customer: somebody asks, staff decides, and approving opens the first account."""

from __future__ import annotations

import uuid  # noqa: TC003  (part of the fields of SignUpView)
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sqlalchemy import delete, select
from sqlalchemy.dialects.postgresql import insert

from bank.models import SignUp, User
from bank.permissions import Role
from bank.services import audit, openings, passwords, users

if TYPE_CHECKING:
    from datetime import datetime

    from sqlalchemy import Engine

MAX_NAME = 100
FIRST_ACCOUNT = "Everyday account"
CURRENCY = "EUR"


class SignUpNotFoundError(Exception):
    """There is no such sign-up, or somebody decided about it before."""


@dataclass(frozen=True)
class SignUpView:
    """A sign-up that waits; ``rivals`` counts others with the same email, and ``email_known`` is for a customer's."""

    id: uuid.UUID
    email: str
    display_name: str
    created_at: datetime
    rivals: int
    email_known: bool


def ask(engine: Engine, key: uuid.UUID, *, email: str, display_name: str, password: str) -> None:
    """Ask to become a customer; the same key asks once.

    A known email does the same work and gives the same answer as a new one: staff sees it, the visitor does not.

    Raises:
        bank.services.passwords.PasswordError: The password is not good enough.
    """
    email = users.normal_email(email)
    passwords.check_new(password, email)
    values = {
        "id": key, "email": email, "display_name": display_name.strip(), "password_hash": passwords.make_hash(password)
    }  # fmt: skip
    with engine.begin() as connection:
        connection.execute(insert(SignUp).values(values).on_conflict_do_nothing())


def pending_sign_ups(engine: Engine, limit: int = 200) -> list[SignUpView]:
    """Return what waits for a decision, the oldest first."""
    with engine.connect() as connection:
        rows = connection.execute(
            select(SignUp.id, SignUp.email, SignUp.display_name, SignUp.created_at)
            .order_by(SignUp.created_at, SignUp.id)
            .limit(limit)
        ).all()
        emails = [row.email for row in rows]
        known = set(connection.execute(select(User.email).where(User.email.in_(emails))).scalars())
    return [SignUpView(*row, rivals=emails.count(row.email) - 1, email_known=row.email in known) for row in rows]


def approve_sign_up(engine: Engine, sign_up_id: uuid.UUID, origin: audit.Origin) -> uuid.UUID:
    """Make a customer of who asked, with a first account; other sign-ups with the same email end.

    Returns:
        The id of the new customer.

    Raises:
        SignUpNotFoundError: Nothing waits under this id.
        bank.services.users.EmailTakenError: Somebody has this email already; only rejecting is possible.
    """
    with engine.begin() as connection:
        columns = (SignUp.email, SignUp.display_name, SignUp.password_hash)
        row = connection.execute(delete(SignUp).where(SignUp.id == sign_up_id).returning(*columns)).one_or_none()
        if row is None:
            raise SignUpNotFoundError
        connection.execute(delete(SignUp).where(SignUp.email == row.email))
        user_id = users.insert_user(
            connection, row.email, row.display_name, Role.CUSTOMER, row.password_hash, user_id=sign_up_id
        )
        openings.open_account(connection, user_id, name=FIRST_ACCOUNT, kind="checking", currency=CURRENCY)
        audit.record(
            connection, origin, "sign-up-approve", audit.Object("user", str(user_id)), after={"role": "customer"}
        )
    return user_id


def reject_sign_up(engine: Engine, sign_up_id: uuid.UUID, origin: audit.Origin) -> None:
    """Turn somebody down; what they told the bank about themselves is deleted.

    Raises:
        SignUpNotFoundError: Nothing waits under this id.
    """
    with engine.begin() as connection:
        if not connection.execute(delete(SignUp).where(SignUp.id == sign_up_id)).rowcount:
            raise SignUpNotFoundError
        audit.record(connection, origin, "sign-up-reject", audit.Object("sign-up", str(sign_up_id)))
