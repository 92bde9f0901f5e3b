"""What happens by the clock. Any number of instances may run: each piece of work is claimed by a row or a lock."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import date, timedelta
from typing import TYPE_CHECKING, TypeVar

from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError

from bank.log import logger
from bank.services import approvals, audit, holds, interest, ledger, reconcile, standing_orders

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable

    from sqlalchemy import Engine

    from bank.config import Settings

T = TypeVar("T")

RECONCILE_LOCK = 0x7265636F6E  # "recon"; one reconciliation at a time
AUDIT_LOCK = 0x636861696E  # "chain"; one check of the audit trail at a time


@dataclass(frozen=True)
class Pass:
    """What one pass did."""

    runs: list[standing_orders.Run] = field(default_factory=list)
    holds_expired: int = 0
    approvals_expired: int = 0
    interest_paid: int = 0

    def count(self, outcome: str) -> int:
        """Return how many standing orders ended so."""
        return sum(run.outcome == outcome for run in self.runs)


def run_due(engine: Engine, settings: Settings, day: date) -> Pass:
    """Do once what is due on ``day``: expire what waited too long, pay standing orders and last month's interest."""
    ended = approvals.expire_due(engine), holds.expire_due(engine)
    runs = standing_orders.run_due(engine, day, settings.approvals)
    last_month = day.replace(day=1) - timedelta(days=1)
    paid = interest.pay(engine, last_month, settings.scheduler.savings_rate_ppm)
    return Pass(runs, holds_expired=ended[1], approvals_expired=ended[0], interest_paid=len(paid))


def reconcile_if_due(engine: Engine, minutes: int) -> reconcile.Result | None:
    """Reconcile unless that was done in the last ``minutes``, or somebody is at it."""
    result = _if_due(engine, "reconciliations", minutes, RECONCILE_LOCK, reconcile.reconcile)
    if result is None:
        return None
    for found in result.findings.values():
        for finding in found:
            logger.error(
                "the ledger does not add up",
                **{
                    "event.dataset": "bank.error",
                    "event.action": "reconcile",
                    "event.outcome": "failure",
                    "event.reason": f"{finding.check.name}: {finding.subject}: {finding.problem}",
                },
            )
    return result


def check_audit_if_due(engine: Engine, minutes: int) -> audit.Verdict | None:
    """Check the audit trail unless that was done in the last ``minutes``, or somebody is at it.

    The log line carries the head, and so takes it away from the host of the database: whoever could write the whole
    trail anew cannot write that line anew.
    """
    verdict = _if_due(engine, "audit_checks", minutes, AUDIT_LOCK, audit.check)
    if verdict is not None:
        log, found = (logger.error, "broken") if verdict.problem else (logger.info, "whole")
        log(
            f"the audit trail is {found}",
            **{
                "event.dataset": "bank.audit",
                "event.kind": "event",
                "event.action": "audit-anchor",
                "event.outcome": "failure" if verdict.problem else "success",
                "event.reason": verdict.problem or "",
                "bank.audit.head": verdict.head,
                "bank.audit.rows": verdict.rows,
            },
        )
    return verdict


def _if_due(engine: Engine, table: str, minutes: int, key: int, work: Callable[[Engine], T]) -> T | None:
    """Do what leaves a row in ``table``, unless there is one of the last ``minutes``, or somebody else is at it."""
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        is_due = text(f"""
            SELECT NOT EXISTS (SELECT FROM {table} WHERE finished_at > now() - make_interval(mins => :minutes))
               AND pg_try_advisory_lock(:key)
        """)  # noqa: S608  (the names are those above)
        if not connection.execute(is_due, {"minutes": minutes, "key": key}).scalar():
            return None
        try:
            return work(engine)
        finally:
            connection.execute(text("SELECT pg_advisory_unlock(:key)"), {"key": key})


def run_forever(engine: Engine, settings: Settings, stop: threading.Event) -> None:
    """Work until ``stop`` is set; what fails, as when the database does not answer, is tried at the next interval."""
    while not stop.is_set():
        try:
            done = run_due(engine, settings, standing_orders.today(engine))
            reconcile_if_due(engine, settings.scheduler.reconcile_minutes)
            check_audit_if_due(engine, settings.scheduler.audit_minutes)
        except (SQLAlchemyError, ledger.LedgerError) as error:
            logger.error("scheduled work failed", exc_info=error, **{"event.dataset": "bank.error"})
        else:
            if done != Pass():
                logger.info(
                    "scheduled work done",
                    **{
                        "event.action": "scheduler",
                        "event.outcome": "success",
                        "event.reason": (
                            f"{len(done.runs)} standing orders, {done.interest_paid} accounts with interest, "
                            f"{done.holds_expired} holds and {done.approvals_expired} approvals expired"
                        ),
                    },
                )
        stop.wait(settings.scheduler.interval_seconds)
