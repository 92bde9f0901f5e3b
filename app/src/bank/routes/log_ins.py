"""What every way to log in has in common: what is counted, logged and recorded when it fails and when it does not."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from flask import request

from bank import metrics
from bank.access import origin
from bank.database import in_transaction
from bank.log import log_security
from bank.resources import resources
from bank.routes import attempts
from bank.services import audit, notifications, screening

if TYPE_CHECKING:
    import uuid

    from sqlalchemy import Connection

    from bank.services.screening import Novelty
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


def code_asked(person: Person) -> None:
    """Record that the password was right, and that the second factor is asked for."""
    log_security("code asked", action="log-in", outcome="success", kind="info", user_id=person.get_id())
    _record("log-in-code-asked", person.get_id(), {"factor": "password"})


def accepted(person: Person, email: str, factor: str, *, tries: int, knows_device: bool) -> Novelty:
    """Record a log-in that is complete, and tell the person where it came from a browser that was not known.

    Args:
        person: Who logged in.
        email: With which email.
        factor: What was given last: ``password``, ``totp`` or ``recovery``.
        tries: How many of its attempts were counted.
        knows_device: Whether the person logged in from the same browser before.

    Returns:
        What is new about it.
    """
    novelty = screening.novelty_of(resources().engine, person.id, request.remote_addr or "", knows_device=knows_device)
    attempts.succeeded(attempts.log_in_counters(email), tries)
    _record("log-in", person.get_id(), {"factor": factor}, tell=None if knows_device else person.id)
    metrics.LOGINS.labels("success", factor).inc()
    log_security("logged in", action="log-in", outcome="success", kind="start", reason=factor, user_id=person.get_id())
    return novelty


def _record(action: str, user_id: str, after: dict[str, Any], tell: uuid.UUID | None = None) -> None:
    def write(connection: Connection) -> None:
        if tell:
            notifications.tell(connection, tell, notifications.Kind.LOG_IN)
        audit.record(connection, origin(), action, audit.Object("user", user_id), after=after)

    in_transaction(resources().engine, write)
