"""Opening accounts."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING

from sqlalchemy import insert

from bank import account_numbers
from bank.models import Account, Balance

if TYPE_CHECKING:
    import uuid

    from sqlalchemy import Connection


def open_account(connection: Connection, owner_id: uuid.UUID, *, name: str, kind: str, currency: str) -> uuid.UUID:
    """Open an account with a random number and no money, in the caller's transaction; return its id."""
    # Apart from the bank's own accounts, whose numbers are small.
    number = account_numbers.make(10**15 + secrets.randbelow(9 * 10**15))
    account_id = connection.execute(
        insert(Account)
        .values(owner_id=owner_id, number=number, name=name, kind=kind, currency=currency)
        .returning(Account.id)
    ).scalar_one()
    connection.execute(insert(Balance).values(account_id=account_id))
    return account_id
