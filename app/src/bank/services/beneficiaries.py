"""Accounts that a person pays to again and again. Each person sees their own list only."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from sqlalchemy import delete, func, select
from sqlalchemy.dialects.postgresql import insert

from bank.database import reading
from bank.models import Account, Beneficiary
from bank.services import notifications

if TYPE_CHECKING:
    import uuid

    from sqlalchemy import Engine

MAX_NAME = 70
MAX_COUNT = 200


class BeneficiaryError(Exception):
    """The beneficiary was not added, and nothing changed."""


class UnknownAccountError(BeneficiaryError):
    """No open account of another person has this number."""


class TooManyError(BeneficiaryError):
    """The list is full."""


@dataclass(frozen=True)
class Saved:
    """A beneficiary as its owner sees it."""

    id: uuid.UUID
    name: str
    number: str


def list_of(engine: Engine, owner_id: uuid.UUID) -> list[Saved]:
    """Return a person's beneficiaries by name."""
    query = (
        select(Beneficiary.id, Beneficiary.name, Beneficiary.number)
        .where(Beneficiary.owner_id == owner_id)
        .order_by(func.lower(Beneficiary.name), Beneficiary.number)
    )
    with reading(engine) as connection:
        return [Saved(*row) for row in connection.execute(query)]


def add(engine: Engine, owner_id: uuid.UUID, name: str, number: str) -> None:
    """Add a beneficiary, and tell the person. A number that is in the list already stays as it is.

    The number is the idempotency key: adding it twice, also at the same time, adds it once.

    Args:
        engine: The database.
        owner_id: Whose list.
        name: 1 to 70 characters.
        number: A number with valid check digits.

    Raises:
        BeneficiaryError: One of the reasons above.
    """
    with engine.begin() as connection:
        payable = select(Account.id).where(
            Account.number == number, Account.owner_id != owner_id, Account.status != "closed"
        )
        if connection.execute(payable).one_or_none() is None:
            raise UnknownAccountError
        held = select(func.count()).select_from(Beneficiary).where(Beneficiary.owner_id == owner_id)
        if connection.execute(held).scalar_one() >= MAX_COUNT:
            raise TooManyError
        added = connection.execute(
            insert(Beneficiary)
            .values(owner_id=owner_id, name=name, number=number)
            .on_conflict_do_nothing()
            .returning(Beneficiary.id)
        ).one_or_none()
        if added:
            notifications.tell(connection, owner_id, notifications.Kind.BENEFICIARY_ADDED, name=name)


def remove(engine: Engine, owner_id: uuid.UUID, beneficiary_id: uuid.UUID) -> bool:
    """Remove a beneficiary; return whether it was in this person's list."""
    mine = delete(Beneficiary).where(Beneficiary.id == beneficiary_id, Beneficiary.owner_id == owner_id)
    with engine.begin() as connection:
        return connection.execute(mine.returning(Beneficiary.id)).one_or_none() is not None
