"""How often somebody may ask: counters in Redis that all instances share.

While Redis does not answer, a caller chooses: count in this process alone, so that reading and paying go on, or
refuse, where guessing is the danger.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from limits import RateLimitItemPerMinute
from limits.errors import StorageError
from limits.storage import MemoryStorage, RedisStorage
from limits.strategies import SlidingWindowCounterRateLimiter

from bank import metrics, tracing

if TYPE_CHECKING:
    from limits import RateLimitItem
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
    """Limits by name, each so many requests in a sliding minute."""

    def __init__(self, redis: Redis, per_minute: dict[str, int]) -> None:
        self._items: dict[str, RateLimitItem] = {
            name: RateLimitItemPerMinute(limit, namespace=name) for name, limit in per_minute.items()
        }
        storage = RedisStorage(
            "redis://", connection_pool=redis.connection_pool, key_prefix="bank:limit", wrap_exceptions=True
        )
        self._shared = SlidingWindowCounterRateLimiter(storage)
        self._alone = SlidingWindowCounterRateLimiter(MemoryStorage())
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
        verdict = None
        if time.monotonic() >= self._ask_again_at:
            try:
                with metrics.REDIS_SECONDS.labels("LIMIT").time(), tracing.span("LIMIT", "db.redis"):
                    verdict = self._count(self._shared, name, who)
            except StorageError:
                self._ask_again_at = time.monotonic() + PAUSE_SECONDS
        if verdict is None:
            if needs_redis:
                raise LimiterUnavailableError
            verdict = self._count(self._alone, name, who)
        if not verdict.allowed:
            metrics.RATE_LIMIT_HITS.labels(name).inc()
        return verdict

    def _count(self, counter: SlidingWindowCounterRateLimiter, name: str, who: str) -> Verdict:
        item = self._items[name]
        allowed = counter.hit(item, who)
        state = counter.get_window_stats(item, who)
        seconds = min(WINDOW_SECONDS, max(1, math.ceil(state.reset_time - time.time())))
        return Verdict(name, allowed, item.amount, max(0, state.remaining), seconds)
