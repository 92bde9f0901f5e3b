"""Carrying out an order that came in from somewhere, and leaving what operators look at: counts, a log line, labels."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bank import metrics, tracing
from bank.log import logger
from bank.services import ledger

if TYPE_CHECKING:
    from collections.abc import Callable


def carry_out(kind: str, order: ledger.Order, work: Callable[[], ledger.Receipt]) -> ledger.Receipt:
    """Run ``work`` for an order and record how it ended.

    Args:
        kind: ``transfer``, ``payment``, ``deposit``, ``withdrawal`` or ``reversal``.
        order: What is ordered.
        work: Carries it out.

    Raises:
        bank.services.ledger.LedgerError: What ``work`` raised.
    """
    try:
        with metrics.TRANSFER_SECONDS.time(), tracing.span(kind):
            receipt = work()
    except ledger.LedgerError as error:
        if isinstance(error, ledger.KeyReusedError):
            metrics.REPLAYS.labels("conflict").inc()
        _record(kind, order, error.outcome, "refused")
        raise
    except Exception:
        metrics.TRANSFERS.labels(kind, "error").inc()
        raise
    if receipt.replayed:
        metrics.REPLAYS.labels("replayed").inc()
        tracing.label(outcome="replayed")
    elif receipt.approval_id:
        _record(kind, order, "waiting", "waits for approval", **{"bank.approval.id": str(receipt.approval_id)})
    else:
        metrics.TRANSFERRED.labels(order.currency).inc(order.amount_minor)
        tracing.label(transfer_id=str(receipt.entry_id))
        _record(kind, order, "completed", "completed", **{"bank.transfer.id": str(receipt.entry_id)})
    return receipt


def _record(kind: str, order: ledger.Order, outcome: str, verb: str, **more: str) -> None:
    metrics.TRANSFERS.labels(kind, outcome).inc()
    tracing.label(outcome=outcome)
    fields = {
        "event.dataset": "bank.transaction",
        "event.kind": "event",
        "event.category": ["process"],
        "event.type": ["info"],
        "event.action": kind,
        "event.outcome": "failure" if verb == "refused" else "success",
        "event.reason": outcome,
        "user.id": str(order.user_id),
        "bank.amount_minor": order.amount_minor,
        "bank.currency": order.currency,
    }
    logger.info(f"{kind} {verb}", **(fields | more))
