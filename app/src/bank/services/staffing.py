"""Looking after users: disabling them, removing a lost second factor, and changing roles with four eyes.

Nobody changes anything about oneself, and nobody decides about a change of role that they asked for or that concerns
them. Every act is in the audit trail, in the same transaction.
"""

from __future__ import annotations

import uuid  # noqa: TC003  (part of dataclasses)
from dataclasses import dataclass
from datetime import datetime  # noqa: TC003
from typing import TYPE_CHECKING

from sqlalchemy import func, insert, select, text, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import aliased

from bank.models import RoleChange, SecondFactor, User
from bank.permissions import Role
from bank.services import audit, second_factor

if TYPE_CHECKING:
    from sqlalchemy import Connection, Engine


class StaffingError(Exception):
    """Nothing was changed."""


class NotFoundError(StaffingError):
    """There is no such user or change."""


class OwnCaseError(StaffingError):
    """It concerns the person who acts, or was asked for by them."""


class AlreadyDoneError(StaffingError):
    """It is so already, waits already, or was decided before."""


@dataclass(frozen=True)
class UserView:
    """A user as an administrator sees them."""

    id: uuid.UUID
    email: str
    name: str
    role: str
    is_enabled: bool
    created_at: datetime
    has_second_factor: bool


@dataclass(frozen=True)
class Waiting:
    """A change of role that waits for a second person."""

    id: uuid.UUID
    user_id: uuid.UUID
    name: str
    from_role: str
    to_role: str
    asked_by: uuid.UUID
    asked_by_name: str
    asked_at: datetime


_COLUMNS = (
    User.id,
    User.email,
    User.display_name,
    User.role,
    User.is_enabled,
    User.created_at,
    select(SecondFactor.user_id).where(SecondFactor.user_id == User.id).exists().label("has_second_factor"),
)


def staff(engine: Engine) -> list[UserView]:
    """Return everybody who works for the bank, by role and name."""
    query = select(*_COLUMNS).where(User.role != Role.CUSTOMER).order_by(User.role, User.display_name, User.email)
    with engine.connect() as connection:
        return [UserView(*row) for row in connection.execute(query)]


def get(engine: Engine, user_id: uuid.UUID) -> UserView | None:
    """Return a user."""
    with engine.connect() as connection:
        row = connection.execute(select(*_COLUMNS).where(User.id == user_id)).one_or_none()
    return UserView(*row) if row else None


def find(engine: Engine, email: str) -> uuid.UUID | None:
    """Return the user with exactly this email."""
    if "\x00" in email:
        return None
    with engine.connect() as connection:
        return connection.execute(select(User.id).where(User.email == email.strip().lower())).scalar_one_or_none()


def _lock(connection: Connection, user_id: uuid.UUID, origin: audit.Origin) -> UserView:
    row = connection.execute(select(*_COLUMNS).where(User.id == user_id).with_for_update(of=User)).one_or_none()
    if row is None:
        raise NotFoundError
    if user_id == origin.actor_id:
        raise OwnCaseError
    return UserView(*row)


def set_enabled(engine: Engine, origin: audit.Origin, user_id: uuid.UUID, *, enabled: bool) -> None:
    """Let a user log in, or not; sessions of a disabled user are dead at once.

    Raises:
        StaffingError: One of the reasons above.
    """
    with engine.begin() as connection:
        user = _lock(connection, user_id, origin)
        if user.is_enabled == enabled:
            raise AlreadyDoneError
        # A larger version, so that sessions do not come back to life when the user is enabled again.
        connection.execute(
            update(User)
            .where(User.id == user_id)
            .values(is_enabled=enabled, credentials_version=User.credentials_version + 1)
        )
        audit.record(
            connection,
            origin,
            "user-enable" if enabled else "user-disable",
            audit.Object("user", str(user_id)),
            before={"is_enabled": user.is_enabled},
            after={"is_enabled": enabled},
        )


def remove_second_factor(engine: Engine, origin: audit.Origin, user_id: uuid.UUID) -> None:
    """Take a lost second factor away from somebody else.

    Raises:
        StaffingError: One of the reasons above.
    """
    if user_id == origin.actor_id:
        raise OwnCaseError
    if get(engine, user_id) is None:
        raise NotFoundError
    if not second_factor.remove(engine, user_id, origin):
        raise AlreadyDoneError


def ask_for_role(engine: Engine, origin: audit.Origin, user_id: uuid.UUID, role: Role) -> None:
    """Ask for another role of a member of staff, or for a first one; somebody else must agree.

    Raises:
        StaffingError: One of the reasons above.
    """
    try:
        with engine.begin() as connection:
            user = _lock(connection, user_id, origin)
            if user.role == role:
                raise AlreadyDoneError
            connection.execute(
                insert(RoleChange).values(user_id=user_id, from_role=user.role, to_role=role, asked_by=origin.actor_id)
            )
            audit.record(
                connection,
                origin,
                "role-change-ask",
                audit.Object("user", str(user_id)),
                before={"role": user.role},
                after={"role": role},
            )
    except IntegrityError as error:
        raise AlreadyDoneError from error


def waiting(engine: Engine) -> list[Waiting]:
    """Return the changes of roles that nobody has decided yet, the oldest first."""
    asker = aliased(User)
    query = (
        select(
            RoleChange.id,
            RoleChange.user_id,
            User.display_name,
            RoleChange.from_role,
            RoleChange.to_role,
            RoleChange.asked_by,
            asker.display_name,
            RoleChange.asked_at,
        )
        .join(User, User.id == RoleChange.user_id)
        .join(asker, asker.id == RoleChange.asked_by)
        .where(RoleChange.status == "pending")
        .order_by(RoleChange.asked_at)
    )
    with engine.connect() as connection:
        return [Waiting(*row) for row in connection.execute(query)]


def decide(engine: Engine, origin: audit.Origin, change_id: uuid.UUID, *, approve: bool) -> None:
    """Agree to a change of role, which ends the user's sessions, or refuse it.

    Raises:
        StaffingError: One of the reasons above.
    """
    with engine.begin() as connection:
        found = connection.execute(
            select(RoleChange.user_id, RoleChange.from_role, RoleChange.to_role, RoleChange.asked_by, RoleChange.status)
            .where(RoleChange.id == change_id)
            .with_for_update()
        ).one_or_none()
        if found is None:
            raise NotFoundError
        if origin.actor_id in {found.asked_by, found.user_id}:
            raise OwnCaseError
        if found.status != "pending":
            raise AlreadyDoneError
        if approve:
            query = text("SELECT approve_role_change(:change, :decider)")
            decision = {"change": change_id, "decider": origin.actor_id}
            if not connection.execute(query, decision).scalar_one():
                raise OwnCaseError
        else:
            connection.execute(
                update(RoleChange)
                .where(RoleChange.id == change_id)
                .values(status="rejected", decided_by=origin.actor_id, decided_at=func.now())
            )
        audit.record(
            connection,
            origin,
            "role-change-approve" if approve else "role-change-reject",
            audit.Object("user", str(found.user_id)),
            before={"role": found.from_role},
            after={"role": found.to_role if approve else found.from_role},
        )
