"""Slowing down who guesses: counters in Redis that all instances share.

Every attempt is counted before it is made, in one step with looking at the counters, so that attempts sent at once
to several instances cannot pass together. From the limit on, each further attempt doubles the time that must pass
before the next one; nothing is ever locked for good. A success takes its own attempts back.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

    from redis import Redis

PREFIX = "bank:attempts:"
# Counters are forgotten after this many times the longest delay without an attempt.
MEMORY_FACTOR = 4

# Clock and counters are Redis's own, so that instances need not agree about the time.
_RESERVE = """
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local wait = 0
for _, key in ipairs(KEYS) do
  local open_at = tonumber(redis.call('HGET', key, 'open_at') or '0')
  if open_at - now > wait then wait = open_at - now end
end
if wait > 0 then return {wait, 0} end
local reached = 0
for index, key in ipairs(KEYS) do
  local limit, first, longest = tonumber(ARGV[3 * index - 2]), tonumber(ARGV[3 * index - 1]), tonumber(ARGV[3 * index])
  local count = redis.call('HINCRBY', key, 'count', 1)
  if count >= limit then
    local delay = math.min(first * 2 ^ math.min(count - limit, 30), longest)
    redis.call('HSET', key, 'open_at', string.format('%.0f', now + delay))
    if count == limit then reached = reached + 2 ^ (index - 1) end
  end
  redis.call('PEXPIRE', key, longest * tonumber(ARGV[#ARGV]))
end
return {0, reached}
"""
_TAKE_BACK = """
for index, key in ipairs(KEYS) do
  if redis.call('EXISTS', key) == 1 and redis.call('HINCRBY', key, 'count', -tonumber(ARGV[index])) <= 0 then
    redis.call('DEL', key)
  end
end
"""


class BlockedError(Exception):
    """Too many attempts; ``seconds`` must pass before the next one is looked at."""

    def __init__(self, seconds: int) -> None:
        super().__init__(f"blocked for {seconds} s")
        self.seconds = seconds


@dataclass(frozen=True)
class Counter:
    """What is counted, and how patient the bank is with it; times in seconds."""

    key: str
    limit: int
    first_delay: int
    longest_delay: int


def reserve(client: Redis, counters: Sequence[Counter]) -> list[Counter]:
    """Count one attempt.

    Returns:
        The counters that reached their limit by this attempt.

    Raises:
        BlockedError: The attempt must not be made, and was not counted.
        redis.exceptions.RedisError: Redis does not answer; the attempt must not be made either.
    """
    arguments: list[int] = []
    for counter in counters:
        arguments += [counter.limit, counter.first_delay * 1000, counter.longest_delay * 1000]
    keys = [PREFIX + counter.key for counter in counters]
    answer: Any = client.eval(_RESERVE, len(keys), *keys, *arguments, MEMORY_FACTOR)
    wait, reached = answer
    if wait > 0:
        raise BlockedError(-(-wait // 1000))
    return [counter for index, counter in enumerate(counters) if reached >> index & 1]


def take_back(client: Redis, attempts: Sequence[tuple[Counter, int]]) -> None:
    """Give back attempts that turned out to be legitimate: each counter with how many."""
    keys = [PREFIX + counter.key for counter, _ in attempts]
    client.eval(_TAKE_BACK, len(keys), *keys, *(count for _, count in attempts))


def forget(client: Redis, counter: Counter) -> None:
    """Begin to count anew."""
    client.delete(PREFIX + counter.key)
