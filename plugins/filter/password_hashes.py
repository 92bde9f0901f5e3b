"""Password hashes that come out the same in each run, so that a second run changes nothing."""

import base64
import hashlib

from ansible.errors import AnsibleFilterError

try:
    import bcrypt
except ImportError:
    bcrypt = None

BCRYPT_LIMIT = 72
STANDARD_ALPHABET = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
BCRYPT_ALPHABET = b"./ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"


def bcrypt_hash(password: str, context: str, rounds: int = 10) -> str:
    """Return the bcrypt hash of ``password``, salted from ``context``.

    The salt only has to differ between accounts, so it is derived from where the account lives. It must not be
    derived from the password: the salt is public, and would be a fast hash to guess against.

    Args:
        password: The password. bcrypt sees no more than 72 bytes, so a longer one is refused.
        context: Names the account, for example ``operator@prometheus1.bank.internal``.
        rounds: Base-2 logarithm of the work, 10 to 15.

    Raises:
        AnsibleFilterError: The password cannot be hashed whole, or the bcrypt library is missing.
    """
    if bcrypt is None:
        raise AnsibleFilterError("bcrypt_hash needs bcrypt on the control node: install requirements.txt")
    if not isinstance(password, str) or not password:
        raise AnsibleFilterError("bcrypt_hash needs a password that is text and not empty")
    if not context:
        raise AnsibleFilterError("bcrypt_hash needs a context that names the account")
    if not 10 <= int(rounds) <= 15:
        raise AnsibleFilterError(f"bcrypt_hash takes 10 to 15 rounds, not {rounds}")
    secret = password.encode()
    if len(secret) > BCRYPT_LIMIT:
        raise AnsibleFilterError(f"bcrypt_hash takes at most {BCRYPT_LIMIT} bytes; this password has {len(secret)}")
    if b"\0" in secret:
        raise AnsibleFilterError("bcrypt_hash takes no password that holds a NUL character")
    digest = hashlib.sha256(context.encode()).digest()[:16]
    letters = base64.b64encode(digest).rstrip(b"=").translate(bytes.maketrans(STANDARD_ALPHABET, BCRYPT_ALPHABET))
    return bcrypt.hashpw(secret, b"$2b$%02d$" % int(rounds) + letters).decode()


class FilterModule:
    """Filters offered to templates."""

    def filters(self) -> dict:
        """Return the filters by name."""
        return {"bcrypt_hash": bcrypt_hash}
