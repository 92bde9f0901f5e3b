"""Access tokens of the API: signed, short-lived, limited to scopes, and revocable."""

from __future__ import annotations

import secrets
import time
import uuid
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import jwt
from redis.exceptions import RedisError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from redis import Redis

    from bank.keys import Keyring

ALGORITHM = "HS256"
ISSUER = "bank"
AUDIENCE = "bank-api"
MAX_LENGTH = 2_000
# Tokens whose signature a process need not compute again; a program sends the same one for minutes.
REMEMBERED = 1_000
SCOPES = {
    "accounts:read": "Read one's accounts and their history.",
    "transfers:write": "Move money between accounts of this bank.",
    "payments:write": "Pay to accounts at other banks.",
}


class InvalidTokenError(Exception):
    """The token is not one of ours, is expired, or was revoked."""


@dataclass(frozen=True)
class Token:
    """What a valid token says."""

    id: str
    user_id: uuid.UUID
    credentials_version: int
    scopes: frozenset[str]
    expires_at: int
    """Seconds since 1970."""
    is_new_place: bool = False
    """Whether the person had never logged in from where it was issued to."""

    @property
    def revocation_key(self) -> str:
        """Return the key that Redis holds once the token was revoked."""
        return f"bank:token:revoked:{self.id}"


class Tokens:
    """Issues tokens and believes its own."""

    def __init__(self, redis: Redis, keys: Keyring, lifetime_seconds: int) -> None:
        # A key of its own: what is signed for another purpose with the secret key is no token.
        self._key = keys.key("api token")
        self._redis = redis
        self._verified = lru_cache(REMEMBERED)(self._verify)
        self.lifetime_seconds = lifetime_seconds

    def issue(
        self, user_id: uuid.UUID, credentials_version: int, scopes: Iterable[str], *, is_new_place: bool = False
    ) -> str:
        """Return a token for somebody who has just proved who they are."""
        now = int(time.time())
        claims: dict[str, str | int | bool] = {
            "iss": ISSUER,
            "aud": AUDIENCE,
            "sub": str(user_id),
            "ver": credentials_version,
            "scope": " ".join(sorted(scopes)),
            "iat": now,
            "exp": now + self.lifetime_seconds,
            "jti": secrets.token_urlsafe(16),
        }
        if is_new_place:
            claims["new_place"] = True
        return jwt.encode(claims, self._key, ALGORITHM)

    def read(self, encoded: str) -> Token:
        """Return what a token says; whether it was revoked is another question.

        Raises:
            InvalidTokenError: It must not be believed.
        """
        token = self._verified(encoded)
        if token.expires_at <= time.time():
            raise InvalidTokenError
        return token

    def _verify(self, encoded: str) -> Token:
        """Check what cannot change: who signed the token, and for what."""
        if len(encoded) > MAX_LENGTH:
            raise InvalidTokenError
        try:
            claims = jwt.decode(
                encoded,
                self._key,
                algorithms=[ALGORITHM],
                audience=AUDIENCE,
                issuer=ISSUER,
                options={"require": ["exp", "iat", "sub", "jti", "aud", "iss", "ver", "scope"]},
            )
            return Token(
                claims["jti"],
                uuid.UUID(claims["sub"]),
                int(claims["ver"]),
                frozenset(claims["scope"].split()),
                int(claims["exp"]),
                claims.get("new_place") is True,
            )
        except (jwt.InvalidTokenError, ValueError, TypeError, AttributeError) as error:
            raise InvalidTokenError from error

    def revoke(self, token: Token) -> None:
        """Stop a token from being believed.

        Raises:
            redis.exceptions.RedisError: It could not be recorded; the token goes on working.
        """
        self._redis.set(token.revocation_key, "1", ex=max(1, token.expires_at - int(time.time()) + 1))

    def is_revoked(self, token: Token) -> bool:
        """Tell whether a token was revoked.

        While Redis does not answer, a revoked token is believed until it expires: paying must not stop with Redis,
        and the database still refuses whoever was disabled or changed their password.
        """
        try:
            return bool(self._redis.exists(token.revocation_key))
        except RedisError:
            return False
