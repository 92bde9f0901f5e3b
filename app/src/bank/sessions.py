"""Sessions live in Redis; the cookie holds nothing but a random token, and Redis only a hash of it.

Redis also keeps, for each person, which sessions are theirs, so that they can see and end them. A session ends when
it was idle too long, when it reached its greatest age, or at log-out. It is read from Redis
when something first asks for it, so that health checks, metrics and static files work without Redis.
"""

from __future__ import annotations

import hashlib
import json
import re
import secrets
import time
from collections.abc import Iterator  # noqa: TC003
from dataclasses import dataclass
from datetime import UTC, datetime
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
DEVICE_KEY = "device"
# How exact "last used" is, in seconds: a session that only reads is written this often.
SEEN_SECONDS = 60


class SessionStoreUnavailableError(Exception):
    """Redis did not answer, so nobody's session can be read or written."""


def session_id(token: str) -> str:
    """Return what a session is called outside its cookie; the token cannot be found from it."""
    return hashlib.sha256(token.encode()).hexdigest()


def storage_key(token: str) -> str:
    """Return the key under which Redis holds the session of a cookie."""
    return _key(session_id(token))


def _key(name: str) -> str:
    return f"bank:session:{name}"


def _index_key(user_id: str) -> str:
    return f"bank:sessions-of:{user_id}"


class BankSession(SessionMixin):  # a MutableMapping
    """A session that is loaded on first use."""

    def __init__(self, store: Redis, limits: Limits, token: str | None) -> None:
        self._store = store
        self._limits = limits
        self._token = token
        self._data: dict[str, Any] | None = None
        self._created = 0
        self._seen = 0
        self._stale: list[str] = []
        self._exists = False
        self._is_use = True
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
                    self._seen = record.get("seen", 0)
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
    def id(self) -> str | None:
        """What this session is called in the list of its person."""
        self._loaded()
        return session_id(self._token) if self._token else None

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

    def leave_idle(self) -> None:
        """Let this request not count as use: a page that loads itself again must not keep a session alive."""
        self._is_use = False

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
            if not self._is_use:
                if self.modified:
                    self._call("set", key, self._encode(data, self._seen), keepttl=True, xx=True)
            elif not self.modified and time.time() < self._seen + SEEN_SECONDS:
                self._call("expire", key, lifetime)
            # "xx": a session that another request has just ended must not come back.
            elif not self._call("set", key, self._encode(data), ex=lifetime, xx=True):
                return None, False
            return self._token, False
        if not data:
            return None, False
        self._token = secrets.token_urlsafe(TOKEN_BYTES)
        self._call("set", storage_key(self._token), self._encode(data), ex=lifetime, nx=True)
        if user_id := data.get(USER_KEY):
            index = _index_key(user_id)
            self._call("zadd", index, {session_id(self._token): self._created})
            self._call("expire", index, self._limits.absolute_seconds)
        return self._token, True

    def _lifetime(self, data: dict[str, Any]) -> int:
        idle = self._limits.idle_seconds if USER_KEY in data else self._limits.anonymous_seconds
        return max(1, min(idle, self._created + self._limits.absolute_seconds - int(time.time())))

    def _encode(self, data: dict[str, Any], seen: int | None = None) -> str:
        record = {"created": self._created, "seen": int(time.time()) if seen is None else seen, "data": data}
        return json.dumps(record, separators=(",", ":"))

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


@dataclass(frozen=True)
class SessionView:
    """One of a person's sessions."""

    id: str
    device: str
    since: datetime
    last_used: datetime


class SessionDirectory:
    """The sessions of each person."""

    def __init__(self, store: Redis) -> None:
        self._store = store

    def of(self, user_id: str) -> list[SessionView]:
        """Return a person's sessions, the newest first.

        Raises:
            redis.exceptions.RedisError: Redis does not answer.
        """
        index = _index_key(user_id)
        members: Any = self._store.zrevrange(index, 0, -1)
        names = [name.decode() for name in members]
        records: Any = self._store.mget([_key(name) for name in names]) if names else []
        if gone := [name for name, raw in zip(names, records, strict=True) if raw is None]:
            self._store.zrem(index, *gone)
        found = []
        for name, raw in zip(names, records, strict=True):
            if raw is not None:
                record = json.loads(raw)
                since, seen = (datetime.fromtimestamp(record[key], UTC) for key in ("created", "seen"))
                found.append(SessionView(name, record["data"].get(DEVICE_KEY, ""), since, seen))
        return found

    def end(self, user_id: str, name: str) -> bool:
        """End one of a person's sessions; False if it is not theirs, or over.

        Raises:
            redis.exceptions.RedisError: Redis does not answer.
        """
        return bool(self._store.zrem(_index_key(user_id), name)) and bool(self._store.delete(_key(name)))

    def end_all(self, user_id: str, keep: str | None = None) -> int:
        """End a person's sessions, except one, and return how many.

        Raises:
            redis.exceptions.RedisError: Redis does not answer.
        """
        return sum(self.end(user_id, found.id) for found in self.of(user_id) if found.id != keep)


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
