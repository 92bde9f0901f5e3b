"""Orders that a customer must confirm, and the bond between a confirmation and what is confirmed.

A code of an app does not know what it is for. The bank therefore seals what it shows: payee, amount and everything
else of one order, for one session. A code counts only together with the seal of the very order that comes with it,
so neither payee nor amount can change after the code (Regulation (EU) 2018/389, article 5).
"""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Protocol

from sqlalchemy import exists, or_, select

from bank.database import reading
from bank.models import Account, Beneficiary, IdempotencyKey
from bank.services import ledger

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from bank.config import Confirmation
    from bank.keys import Keyring

PURPOSE = "order confirmation"
# How long what was shown can be confirmed, in seconds.
SEAL_SECONDS = 600


class Order(ledger.Order, Protocol):
    """An order that may have to be confirmed."""

    @property
    def payee(self) -> str:
        """Return the number of the account that is paid."""

    @property
    def claim(self) -> ledger.Claim:
        """Return the key, bound to what is ordered."""


def is_needed(engine: Engine, order: Order, policy: Confirmation) -> bool:
    """Tell whether an order must be confirmed.

    One between a person's own accounts need not be (article 15 of the regulation), and one that was carried out
    before neither: sent again, it gets the first answer.

    Raises:
        bank.services.ledger.LedgerError: The order is not complete.
    """
    is_large = order.amount_minor > policy.limit_for(order.currency)
    if not (is_large or policy.new_payees):
        return False
    own = exists().where(Account.number == order.payee, Account.owner_id == order.user_id)
    done = exists().where(IdempotencyKey.user_id == order.user_id, IdempotencyKey.key == order.claim.key)
    saved = exists().where(Beneficiary.number == order.payee, Beneficiary.owner_id == order.user_id)
    with reading(engine) as connection:
        is_exempt, is_saved = connection.execute(select(or_(own, done), saved)).one()
    return not is_exempt and (is_large or not is_saved)


def seal(keys: Keyring, session: str, claim: ledger.Claim) -> str:
    """Return the proof that an order was shown in a session just now."""
    until = int(time.time()) + SEAL_SECONDS
    return f"{until}.{keys.mac(PURPOSE, _sealed(session, claim, until))}"


def is_sealed(keys: Keyring, session: str, claim: ledger.Claim, offered: str) -> bool:
    """Tell whether exactly this order was shown in this session, not too long ago."""
    until, _, mac = offered.partition(".")
    if not (until.isascii() and until.isdigit() and len(until) <= 12 and time.time() <= int(until)):  # noqa: PLR2004
        return False
    return keys.is_mac(PURPOSE, _sealed(session, claim, int(until)), mac)


def _sealed(session: str, claim: ledger.Claim, until: int) -> str:
    return json.dumps([session, str(claim.user_id), claim.key, claim.fingerprint, until])
