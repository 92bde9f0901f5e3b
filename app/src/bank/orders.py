"""Carrying out an order that came in from somewhere, and leaving what operators look at: counts, a log line, labels."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bank import metrics, tracing
from bank.log import logger
from bank.services import ledger
from bank.services.fraud import Decision

if TYPE_CHECKING:
    from collections.abc import Callable

    from bank.services.screening import Screened


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
        return receipt
    if receipt.approval_id:
        outcome, verb, result = "waiting", "waits for approval", {"bank.approval.id": str(receipt.approval_id)}
    else:
        metrics.TRANSFERRED.labels(order.currency).inc(order.amount_minor)
        tracing.label(transfer_id=str(receipt.entry_id))
        outcome, verb, result = "completed", "completed", {"bank.transfer.id": str(receipt.entry_id)}
    _record(kind, order, outcome, verb, **result, **_score(receipt.screened))
    _suspect(kind, order, receipt.screened, result)
    return receipt


def _score(screened: Screened | None) -> dict[str, int]:
    """Count how suspicious an order looked, and return what its log line says of it."""
    if screened is None:
        return {}
    metrics.FRAUD_SCORE.observe(screened.assessment.score)
    metrics.FRAUD.labels(screened.decision).inc()
    for indicator in screened.assessment.points:
        metrics.FRAUD_HITS.labels(indicator).inc()
    tracing.label(fraud_score=screened.assessment.score)
    return {"bank.fraud.score": screened.assessment.score}


def _suspect(kind: str, order: ledger.Order, screened: Screened | None, result: dict[str, str]) -> None:
    """Write a line of its own about an order that staff should look at."""
    if screened is None or screened.decision is Decision.ALLOWED:
        return
    fields = {
        "event.dataset": "bank.fraud",
        "event.kind": "alert",
        "event.category": ["process"],
        "event.type": ["denied" if screened.decision is Decision.HELD else "info"],
        "event.action": kind,
        "event.outcome": "success",
        "event.reason": ", ".join(screened.assessment.points),
        "user.id": str(order.user_id),
        "bank.account.masked": screened.account,
        "bank.amount_minor": order.amount_minor,
        "bank.currency": order.currency,
        "bank.fraud.decision": screened.decision,
        "bank.fraud.indicators": list(screened.assessment.points),
        "bank.fraud.rules": screened.assessment.rules,
        "bank.fraud.score": screened.assessment.score,
    }
    logger.warning(f"{kind} looks like fraud: {screened.decision}", **(fields | result))


def _record(kind: str, order: ledger.Order, outcome: str, verb: str, **more: str | int) -> None:
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
