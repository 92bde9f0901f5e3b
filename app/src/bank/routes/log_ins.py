"""What every way to log in has in common: what is counted, logged and recorded when it fails and when it does not."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bank import metrics
from bank.access import origin
from bank.database import in_transaction
from bank.log import log_security
from bank.resources import resources
from bank.routes import attempts
from bank.services import audit

if TYPE_CHECKING:
    from bank.services.users import Person


def refused(factor: str, user_id: str | None, *, reached: bool) -> None:
    """Tell everybody but the visitor why a log-in failed.

    Args:
        factor: What was wrong: ``password``, ``totp`` or ``recovery``.
        user_id: Whose log-in it was, if that was found out.
        reached: Whether this attempt was the one from which delays begin.
    """
    metrics.LOGINS.labels("failure", factor).inc()
    log_security("log-in refused", action="log-in", outcome="failure", kind="start", reason=factor, user_id=user_id)
    _record("log-in-refused", user_id or "", {"factor": factor})
    if reached:
        metrics.ACCOUNT_LOCKS.inc()
        log_security("log-ins slowed down", action="slow-down", outcome="failure", kind="denied", user_id=user_id)


def accepted(person: Person, email: str, factor: str, *, tries: int) -> None:
    """Record a log-in that is complete; ``tries`` is how many of its attempts were counted."""
    attempts.succeeded(attempts.log_in_counters(email), tries)
    _record("log-in", person.get_id(), {"factor": factor})
    metrics.LOGINS.labels("success", factor).inc()
    log_security("logged in", action="log-in", outcome="success", kind="start", reason=factor, user_id=person.get_id())


def _record(action: str, user_id: str, after: dict[str, Any]) -> None:
    target = audit.Object("user", user_id)
    in_transaction(
        resources().engine, lambda connection: audit.record(connection, origin(), action, target, after=after)
    )
