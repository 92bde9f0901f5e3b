"""How often somebody may ask: counters in Redis that all instances share.

While Redis does not answer, a caller chooses: count in this process alone, so that reading and paying go on, or
refuse, where guessing is the danger.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from limits.errors import StorageError
from limits.storage import MemoryStorage, RedisStorage

from bank import metrics, tracing

if TYPE_CHECKING:
    from redis import Redis

WINDOW_SECONDS = 60
# So long Redis is not asked again after it failed: each attempt may cost a request two seconds.
PAUSE_SECONDS = 5


class LimiterUnavailableError(Exception):
    """Redis does not answer, and this limit must not be kept without it."""


@dataclass(frozen=True)
class Verdict:
    """What a limit says to one request."""

    name: str
    allowed: bool
    limit: int
    remaining: int
    reset_seconds: int


class Limiter:
    """Limits by name, each so many requests in a minute of the clock; a count costs one round trip."""

    def __init__(self, redis: Redis, per_minute: dict[str, int]) -> None:
        self._limits = per_minute
        self._shared = RedisStorage(
            "redis://", connection_pool=redis.connection_pool, key_prefix="bank:limit", wrap_exceptions=True
        )
        self._alone = MemoryStorage()
        self._ask_again_at = time.monotonic()

    def hit(self, name: str, who: str, *, needs_redis: bool = False) -> Verdict:
        """Count one request of ``who``.

        Args:
            name: Which limit.
            who: An opaque id or an address.
            needs_redis: Do not count in this process alone when Redis does not answer.

        Raises:
            LimiterUnavailableError: Redis does not answer, and ``needs_redis`` is set.
        """
        minute, second = divmod(int(time.time()), WINDOW_SECONDS)
        key = f"{name}/{who}/{minute}"
        count = self._shared_count(key)
        if count is None:
            if needs_redis:
                raise LimiterUnavailableError
            count = self._alone.incr(key, WINDOW_SECONDS)
        limit = self._limits[name]
        if count > limit:
            metrics.RATE_LIMITED.labels(name).inc()
        return Verdict(name, count <= limit, limit, max(0, limit - count), WINDOW_SECONDS - second)

    def _shared_count(self, key: str) -> int | None:
        if time.monotonic() < self._ask_again_at:
            return None
        try:
            with metrics.REDIS_SECONDS.labels("LIMIT").time(), tracing.span("LIMIT", "db.redis"):
                return self._shared.incr(key, WINDOW_SECONDS)
        except StorageError:
            self._ask_again_at = time.monotonic() + PAUSE_SECONDS
            return None
