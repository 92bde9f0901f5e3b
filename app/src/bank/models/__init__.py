"""Tables of the bank."""

from bank.models.base import Base
from bank.models.ledger import Account, Balance, IdempotencyKey, JournalEntry, Posting
from bank.models.users import User

__all__ = ["Account", "Balance", "Base", "IdempotencyKey", "JournalEntry", "Posting", "User"]
