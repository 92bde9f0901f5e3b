"""Tables of the bank."""

from bank.models.base import Base
from bank.models.holds import Approval, Hold
from bank.models.ledger import Account, Balance, IdempotencyKey, JournalEntry, Posting
from bank.models.periodic import InterestPeriod, Reconciliation, StandingOrder, StandingOrderRun
from bank.models.users import User

__all__ = [
    "Account",
    "Approval",
    "Balance",
    "Base",
    "Hold",
    "IdempotencyKey",
    "InterestPeriod",
    "JournalEntry",
    "Posting",
    "Reconciliation",
    "StandingOrder",
    "StandingOrderRun",
    "User",
]
