"""Tables of the bank."""

from bank.models.alerts import Alert
from bank.models.base import Base
from bank.models.customers import Beneficiary, Notification, RoleChange, SeenPostings
from bank.models.fraud import FraudDecision
from bank.models.holds import Approval, Hold
from bank.models.ledger import Account, Balance, IdempotencyKey, JournalEntry, Posting
from bank.models.people import AuditCheck, AuditEvent, RecoveryCode, SecondFactor, SignUp
from bank.models.periodic import InterestPeriod, Reconciliation, StandingOrder, StandingOrderRun
from bank.models.users import User

__all__ = [
    "Account",
    "Alert",
    "Approval",
    "AuditCheck",
    "AuditEvent",
    "Balance",
    "Base",
    "Beneficiary",
    "FraudDecision",
    "Hold",
    "IdempotencyKey",
    "InterestPeriod",
    "JournalEntry",
    "Notification",
    "Posting",
    "Reconciliation",
    "RecoveryCode",
    "RoleChange",
    "SecondFactor",
    "SeenPostings",
    "SignUp",
    "StandingOrder",
    "StandingOrderRun",
    "User",
]
