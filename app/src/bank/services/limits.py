"""How often somebody may ask: counters in Redis that all instances share.

While Redis does not answer, a caller chooses: count in this process alone, so that reading and paying go on, or
refuse, where guessing is the danger.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from limits.storage import MemoryStorage
from redis import Redis
from redis.exceptions import RedisError

from bank import metrics, tracing

if TYPE_CHECKING:
    from typing import Any

WINDOW_SECONDS = 60
# So long Redis is not asked again after it failed: each attempt may cost a request two seconds.
PAUSE_SECONDS = 5
PREFIX = "bank:limit:"
BARRED = -1
_COUNT = """
if KEYS[2] and redis.call('EXISTS', KEYS[2]) == 1 then return -1 end
local count = redis.call('INCR', KEYS[1])
if count == 1 then redis.call('EXPIRE', KEYS[1], ARGV[1]) end
return count
"""


class LimiterUnavailableError(Exception):
    """Redis does not answer, and this limit must not be kept without it."""


class BarredError(Exception):
    """There is a key that bars this request; nothing was counted."""


@dataclass(frozen=True)
class Verdict:
    """What a limit says to one request; without Redis it is this process's own, and no key was looked for."""

    name: str
    allowed: bool
    limit: int
    remaining: int
    reset_seconds: int
    is_shared: bool


class Limiter:
    """Limits by name, each so many requests in a minute of the clock; a count costs one round trip."""

    def __init__(self, redis: Redis, per_minute: dict[str, int]) -> None:
        self._limits = per_minute
        # A plain client, because it is here that the time is taken.
        self._count = Redis(connection_pool=redis.connection_pool).register_script(_COUNT)
        self._alone = MemoryStorage()
        self._ask_again_at = time.monotonic()

    def hit(self, name: str, who: str, *, needs_redis: bool = False, unless: str = "") -> Verdict:
        """Count one request of ``who``.

        Args:
            name: Which limit.
            who: An opaque id or an address.
            needs_redis: Do not count in this process alone when Redis does not answer.
            unless: A key in Redis that bars the request; it is looked for with the same question.

        Raises:
            BarredError: The key exists.
            LimiterUnavailableError: Redis does not answer, and ``needs_redis`` is set.
        """
        minute, second = divmod(int(time.time()), WINDOW_SECONDS)
        key = f"{name}/{who}/{minute}"
        shared = self._shared_count(key, unless)
        if shared == BARRED:
            raise BarredError
        if shared is None and needs_redis:
            raise LimiterUnavailableError
        count = self._alone.incr(key, WINDOW_SECONDS) if shared is None else shared
        limit = self._limits[name]
        if count > limit:
            metrics.RATE_LIMITED.labels(name).inc()
        return Verdict(
            name, count <= limit, limit, max(0, limit - count), WINDOW_SECONDS - second, is_shared=shared is not None
        )

    def _shared_count(self, key: str, unless: str) -> int | None:
        if time.monotonic() < self._ask_again_at:
            return None
        keys = [PREFIX + key, unless] if unless else [PREFIX + key]
        try:
            with metrics.REDIS_SECONDS.labels("LIMIT").time(), tracing.span("LIMIT", "db.redis"):
                count: Any = self._count(keys, [WINDOW_SECONDS])
        except RedisError:
            self._ask_again_at = time.monotonic() + PAUSE_SECONDS
            return None
        return int(count)
