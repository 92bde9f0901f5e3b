"""Counting attempts of a request: which counters there are, and what the person sees when there were too many."""

from __future__ import annotations

import hashlib
import re
import secrets
from typing import TYPE_CHECKING

from flask import request
from werkzeug.exceptions import TooManyRequests

from bank import metrics
from bank.log import log_security
from bank.resources import resources
from bank.services import throttle
from bank.services.screening import network_of
from bank.services.throttle import Counter

if TYPE_CHECKING:
    from collections.abc import Sequence

    from werkzeug.wrappers import Response

# A browser from which a person logged in before has a counter of its own, so that strangers who fail on purpose
# slow down each other and not the person.
DEVICE_COOKIE = "__Host-bank-device"
DEVICE_SECONDS = 365 * 86400
_DEVICE = re.compile(r"([A-Za-z0-9_-]{22})\.([0-9a-f]{64})", re.ASCII)
_PURPOSE = "device"


def address_counter(subject: str, limit: int) -> Counter:
    """Return the counter of the address that this request comes from."""
    return _counter(f"{subject}:address:{network_of(request.remote_addr or '')}", limit)


def log_in_counters(email: str) -> list[Counter]:
    """Return what counts attempts to log in with an email: its own counter, or its device's, and the address's.

    Whether anybody has this email makes no difference.
    """
    login = resources().settings.login
    keys = resources().keys
    device = _device(email)
    own = f"device:{hashlib.sha256(device.encode()).hexdigest()}" if device else f"email:{keys.mac('attempts', email)}"
    return [_counter(f"log-in:{own}", login.account_failures), address_counter("log-in", login.address_failures)]


def own_counter(user_id: str) -> Counter:
    """Return what counts proofs asked of somebody who is logged in, such as their current password."""
    return _counter(f"proof:{user_id}", resources().settings.login.account_failures)


def _device(email: str) -> str | None:
    """Return the name of this browser if the person with this email logged in from it before."""
    found = _DEVICE.fullmatch(request.cookies.get(DEVICE_COOKIE, ""))
    return found[1] if found and resources().keys.is_mac(_PURPOSE, f"{found[1]} {email}", found[2]) else None


def knows_device(email: str) -> bool:
    """Tell whether the person with this email logged in from this browser before."""
    return _device(email) is not None


def remember_device(response: Response, email: str) -> None:
    """Let the browser show next time that this person logged in from it."""
    if knows_device(email):
        return
    keys = resources().keys
    nonce = secrets.token_urlsafe(16)
    response.set_cookie(
        DEVICE_COOKIE,
        f"{nonce}.{keys.mac(_PURPOSE, f'{nonce} {email}')}",
        max_age=DEVICE_SECONDS,
        path="/",
        secure=True,
        httponly=True,
        samesite="Lax",
    )


def _counter(key: str, limit: int) -> Counter:
    login = resources().settings.login
    return Counter(key, limit, login.first_delay_seconds, login.longest_delay_seconds)


def reserve(counters: Sequence[Counter]) -> bool:
    """Count an attempt before it is made.

    Returns:
        Whether the first of the counters reached its limit by this attempt.

    Raises:
        werkzeug.exceptions.TooManyRequests: The attempt must not be made; it says how long to wait.
        redis.exceptions.RedisError: Redis does not answer; the attempt must not be made either.
    """
    try:
        reached = throttle.reserve(resources().redis, counters)
    except throttle.BlockedError as error:
        metrics.RATE_LIMITED.labels(counters[0].key.partition(":")[0]).inc()
        log_security("too many attempts", action="rate-limit", outcome="failure", kind="denied")
        raise TooManyRequests(retry_after=error.seconds) from None
    return counters[0] in reached


def succeeded(counters: Sequence[Counter], attempts: int = 1) -> None:
    """Forget the failures behind the first counter, and take this person's own attempts back from the others."""
    throttle.forget(resources().redis, counters[0])
    if counters[1:]:
        throttle.take_back(resources().redis, [(counter, attempts) for counter in counters[1:]])
