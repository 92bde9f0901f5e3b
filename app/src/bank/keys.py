"""Keys for encryption and signatures, derived from the one secret that the settings hold.

HKDF (RFC 5869) gives each purpose a key of its own. While the secret is being changed the earlier one still opens
what it sealed; ``bank rotate-keys`` seals that anew, after which the earlier secret can be taken out of the settings.
"""

from __future__ import annotations

import hashlib
import hmac
import os
from functools import lru_cache
from typing import TYPE_CHECKING

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

if TYPE_CHECKING:
    from bank.config import Settings

KEY_BYTES = 32
NONCE_BYTES = 12


class UnsealError(Exception):
    """The text was sealed with another secret, for another owner, or was changed."""


@lru_cache(maxsize=64)
def _derive(secret: str, purpose: str) -> bytes:
    return HKDF(SHA256(), KEY_BYTES, salt=None, info=f"bank {purpose}".encode()).derive(secret.encode())


class Keyring:
    """Today's secret and, while it is being changed, the one before it."""

    def __init__(self, current: str, earlier: str | None = None) -> None:
        self._secrets = (current, earlier) if earlier else (current,)

    @classmethod
    def of(cls, settings: Settings) -> Keyring:
        """Return the keyring that the settings give."""
        earlier = settings.earlier_secret_key
        return cls(settings.secret_key.get_secret_value(), earlier.get_secret_value() if earlier else None)

    def key(self, purpose: str) -> bytes:
        """Return the key of 256 bits that today's secret gives for a purpose."""
        return _derive(self._secrets[0], purpose)

    def seal(self, purpose: str, content: bytes, owner: str) -> bytes:
        """Encrypt and authenticate (AES-256-GCM, random nonce), bound to the owner's id."""
        nonce = os.urandom(NONCE_BYTES)
        return nonce + AESGCM(self.key(purpose)).encrypt(nonce, content, owner.encode())

    def unseal(self, purpose: str, sealed: bytes, owner: str) -> tuple[bytes, bool]:
        """Decrypt.

        Returns:
            The content, and whether today's secret had sealed it.

        Raises:
            UnsealError: No known secret fits, or the text belongs to somebody else.
        """
        for secret in self._secrets:
            try:
                content = AESGCM(_derive(secret, purpose)).decrypt(
                    sealed[:NONCE_BYTES], sealed[NONCE_BYTES:], owner.encode()
                )
            except (InvalidTag, ValueError):
                continue
            return content, secret == self._secrets[0]
        raise UnsealError

    def mac(self, purpose: str, content: str) -> str:
        """Return a keyed hash (HMAC-SHA-256), as 64 hexadecimal digits, made with today's secret."""
        return hmac.new(self.key(purpose), content.encode(), hashlib.sha256).hexdigest()

    def is_mac(self, purpose: str, content: str, offered: str) -> bool:
        """Tell whether a keyed hash is one of ours, made with any known secret."""
        return any(
            hmac.compare_digest(Keyring(secret).mac(purpose, content).encode(), offered.encode())
            for secret in self._secrets
        )
