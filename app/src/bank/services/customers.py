"""Customers as the bank's staff sees them: found by email or account number, never listed as a whole."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from sqlalchemy import select, text

from bank import account_numbers
from bank.models import Account, User
from bank.services import accounts, audit, notifications
from bank.services.notifications import Kind

if TYPE_CHECKING:
    import uuid

    from sqlalchemy import Engine


@dataclass(frozen=True)
class Customer:
    """A person with accounts."""

    id: uuid.UUID
    name: str
    email: str
    is_enabled: bool


def find(engine: Engine, words: str) -> uuid.UUID | None:
    """Return the customer with exactly this email or account number."""
    number = account_numbers.normalise(words)
    if number:
        query = select(Account.owner_id).where(Account.number == number, Account.owner_id.is_not(None))
    else:
        query = select(User.id).where(User.email == words.strip().lower(), User.role == "customer")
    if "\x00" in words:
        return None
    with engine.connect() as connection:
        return connection.execute(query).scalar_one_or_none()


def get(engine: Engine, customer_id: uuid.UUID) -> Customer | None:
    """Return a customer; a member of staff is none."""
    query = select(User.id, User.display_name, User.email, User.is_enabled)
    with engine.connect() as connection:
        row = connection.execute(query.where(User.id == customer_id, User.role == "customer")).one_or_none()
    return Customer(*row) if row else None


def account(engine: Engine, account_id: uuid.UUID) -> tuple[Customer, accounts.AccountView] | None:
    """Return an account that is not closed, with its owner."""
    with engine.connect() as connection:
        owner = connection.execute(select(Account.owner_id).where(Account.id == account_id)).scalar_one_or_none()
    customer = get(engine, owner) if owner else None
    view = accounts.get(engine, customer.id, account_id) if customer else None
    return (customer, view) if customer and view else None


def set_frozen(engine: Engine, origin: audit.Origin, account_id: uuid.UUID, *, frozen: bool, reason: str) -> bool:
    """Freeze an account or release it, note it in the audit trail and tell the owner.

    Returns:
        Whether anything changed: it is a customer's account, and was not so already.
    """
    change = text("SELECT set_account_frozen(:id, :frozen)")
    with engine.begin() as connection:
        if not connection.execute(change, {"id": account_id, "frozen": frozen}).scalar_one():
            return False
        owner, name = connection.execute(select(Account.owner_id, Account.name).where(Account.id == account_id)).one()
        kind = Kind.ACCOUNT_FROZEN if frozen else Kind.ACCOUNT_RELEASED
        if owner:
            notifications.tell(connection, owner, kind, account=name)
        states = ("open", "frozen") if frozen else ("frozen", "open")
        audit.record(
            connection,
            origin,
            "account-freeze" if frozen else "account-release",
            audit.Object("account", str(account_id)),
            before={"status": states[0]},
            after={"status": states[1], "reason": reason},
        )
    return True
