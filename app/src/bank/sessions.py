"""Sessions live in Redis; the cookie holds nothing but a random token, and Redis only a hash of it.

A session ends when it was idle too long, when it reached its greatest age, or at log-out. It is read from Redis
when something first asks for it, so that health checks, metrics and static files work without Redis.
"""

from __future__ import annotations

import hashlib
import json
import re
import secrets
import time
from collections.abc import Iterator  # noqa: TC003
from typing import TYPE_CHECKING, Any

from flask.sessions import SessionInterface, SessionMixin
from redis.exceptions import RedisError

if TYPE_CHECKING:
    from flask import Flask, Request, Response
    from redis import Redis

    from bank.config import Session as Limits

COOKIE = "__Host-bank-session"
TOKEN_BYTES = 32
_TOKEN = re.compile(r"[A-Za-z0-9_-]{43}", re.ASCII)
USER_KEY = "_user_id"


class SessionStoreUnavailableError(Exception):
    """Redis did not answer, so nobody's session can be read or written."""


def storage_key(token: str) -> str:
    """Return the key under which Redis holds the session of a cookie."""
    return f"bank:session:{hashlib.sha256(token.encode()).hexdigest()}"


class BankSession(SessionMixin):  # a MutableMapping
    """A session that is loaded on first use."""

    def __init__(self, store: Redis, limits: Limits, token: str | None) -> None:
        self._store = store
        self._limits = limits
        self._token = token
        self._data: dict[str, Any] | None = None
        self._created = 0
        self._stale: list[str] = []
        self._exists = False
        self.modified = False
        self.failed = False

    def _loaded(self) -> dict[str, Any]:
        if self._data is None:
            self._data = {}
            self._created = int(time.time())
            if self._token:
                raw = self._call("get", storage_key(self._token))
                record = json.loads(raw) if raw else None
                if record and time.time() < record["created"] + self._limits.absolute_seconds:
                    self._data, self._created, self._exists = record["data"], record["created"], True
                else:
                    self._token = None
        return self._data

    def _call(self, command: str, *arguments: Any, **options: Any) -> Any:  # noqa: ANN401
        try:
            return getattr(self._store, command)(*arguments, **options)
        except RedisError as error:
            self.failed = True
            self._data = self._data if self._data is not None else {}
            raise SessionStoreUnavailableError from error

    @property
    def touched(self) -> bool:
        """Whether this request used the session at all."""
        return self._data is not None and not self.failed

    def rotate(self) -> None:
        """Forget everything and take a new token; the old one stops working at the end of this request."""
        self._loaded()
        if self._token:
            self._stale.append(self._token)
        self._data, self._token, self._exists = {}, None, False
        self._created = int(time.time())
        self.modified = True

    def save(self) -> tuple[str | None, bool]:
        """Write the session to Redis.

        Returns:
            The token that the browser must hold from now on (None: none), and whether it is a new one.
        """
        data = self._loaded()
        if self._stale:
            self._call("delete", *[storage_key(token) for token in self._stale])
        lifetime = self._lifetime(data)
        if self._exists and self._token:
            key = storage_key(self._token)
            if not self.modified:
                self._call("expire", key, lifetime)
            # "xx": a session that another request has just ended must not come back.
            elif not self._call("set", key, self._encode(data), ex=lifetime, xx=True):
                return None, False
            return self._token, False
        if not data:
            return None, False
        self._token = secrets.token_urlsafe(TOKEN_BYTES)
        self._call("set", storage_key(self._token), self._encode(data), ex=lifetime, nx=True)
        return self._token, True

    def _lifetime(self, data: dict[str, Any]) -> int:
        idle = self._limits.idle_seconds if USER_KEY in data else self._limits.anonymous_seconds
        return max(1, min(idle, self._created + self._limits.absolute_seconds - int(time.time())))

    def _encode(self, data: dict[str, Any]) -> str:
        return json.dumps({"created": self._created, "data": data}, separators=(",", ":"))

    def __getitem__(self, key: str) -> Any:  # noqa: ANN401
        self.accessed = True
        return self._loaded()[key]

    def __setitem__(self, key: str, value: Any) -> None:  # noqa: ANN401
        self._loaded()[key] = value
        self.modified = True

    def __delitem__(self, key: str) -> None:
        del self._loaded()[key]
        self.modified = True

    def __iter__(self) -> Iterator[str]:
        return iter(self._loaded())

    def __len__(self) -> int:
        return len(self._loaded())


class RedisSessions(SessionInterface):
    """Connects Flask to the sessions in Redis."""

    def __init__(self, store: Redis, limits: Limits) -> None:
        self._store = store
        self._limits = limits

    def open_session(self, app: Flask, request: Request) -> BankSession:
        """Prepare the session of a request; Redis is not asked yet."""
        del app
        token = request.cookies.get(COOKIE, "")
        return BankSession(self._store, self._limits, token if _TOKEN.fullmatch(token) else None)

    def save_session(self, app: Flask, session: SessionMixin, response: Response) -> None:
        """Write the session and tell the browser its token."""
        del app
        if not isinstance(session, BankSession) or not session.touched:
            return
        had_token = session._token is not None or bool(session._stale)  # noqa: SLF001
        token, is_new = session.save()
        if is_new and token:
            # No max-age: the cookie goes with the browser, and the server keeps the limits.
            response.set_cookie(COOKIE, token, path="/", secure=True, httponly=True, samesite="Lax")
        elif token is None and had_token:
            response.delete_cookie(COOKIE, path="/", secure=True, httponly=True, samesite="Lax")
        response.vary.add("Cookie")
