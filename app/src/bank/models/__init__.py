"""Tables of the bank."""

from bank.models.base import Base
from bank.models.holds import Approval, Hold
from bank.models.ledger import Account, Balance, IdempotencyKey, JournalEntry, Posting
from bank.models.people import AuditEvent, RecoveryCode, SecondFactor, SignUp
from bank.models.periodic import InterestPeriod, Reconciliation, StandingOrder, StandingOrderRun
from bank.models.users import User

__all__ = [
    "Account",
    "Approval",
    "AuditEvent",
    "Balance",
    "Base",
    "Hold",
    "IdempotencyKey",
    "InterestPeriod",
    "JournalEntry",
    "Posting",
    "Reconciliation",
    "RecoveryCode",
    "SecondFactor",
    "SignUp",
    "StandingOrder",
    "StandingOrderRun",
    "User",
]
