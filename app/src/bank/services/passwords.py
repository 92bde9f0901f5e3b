"""Password hashes (Argon2id)."""

from __future__ import annotations

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from bank import tracing

MAX_LENGTH = 1024
HASHER = PasswordHasher(time_cost=2, memory_cost=19456, parallelism=1)
# Verified when a user is unknown, so that the answer takes the same time.
_DUMMY = HASHER.hash("a password that nobody has")


def make_hash(password: str) -> str:
    """Hash a password with a new salt (about 30 ms of one core)."""
    return HASHER.hash(password)


def matches(password_hash: str | None, password: str) -> bool:
    """Tell whether the password belongs to the hash; without a hash it takes as long and is never true."""
    if len(password) > MAX_LENGTH:
        return False
    try:
        with tracing.span("argon2", "crypto"):
            HASHER.verify(password_hash or _DUMMY, password)
    except (VerificationError, InvalidHashError):
        return False
    return password_hash is not None


def is_outdated(password_hash: str) -> bool:
    """Tell whether the hash was made with other cost settings than today's."""
    return HASHER.check_needs_rehash(password_hash)
