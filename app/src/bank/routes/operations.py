"""For those who run the bank: liveness, readiness and metrics."""

from __future__ import annotations

from flask import Blueprint, Response, abort, jsonify
from prometheus_client import CONTENT_TYPE_LATEST
from sqlalchemy.exc import SQLAlchemyError

from bank import metrics
from bank.log import logger
from bank.permissions import public
from bank.resources import resources
from bank.security import came_through_proxy
from bank.services import health as checks
from bank.services import reconcile

blueprint = Blueprint("operations", __name__)


@blueprint.get("/health")
@public
def health() -> Response:
    """Say that this process answers; nothing else is asked."""
    return jsonify(status="alive")


@blueprint.get("/health/ready")
@public
def ready() -> tuple[Response, int]:
    """Say whether this instance can move money, and name what fails; the public learns the status only."""
    found = checks.check_all(resources())
    failed = [name for name, problem in found.items() if problem]
    status = "ready" if not failed else "degraded" if checks.DISPENSABLE.issuperset(failed) else "unavailable"
    if failed:
        logger.warning(
            "not ready" if status == "unavailable" else "ready, but degraded",
            **{
                "event.dataset": "bank.error",
                "event.action": "readiness-check",
                "event.outcome": "failure",
                "event.reason": "; ".join(f"{name}: {found[name]}" for name in failed)[:500],
            },
        )
    body: dict[str, object] = {"status": status}
    if not came_through_proxy():
        body["checks"] = {name: "failed" if problem else "ok" for name, problem in found.items()}
        body["failed"] = failed
    return jsonify(body), 503 if status == "unavailable" else 200


@blueprint.get("/metrics")
@public
def exposition() -> Response:
    """Give all metrics to Prometheus, which asks each instance directly and never through the load balancer."""
    if came_through_proxy():
        abort(404)
    try:
        figures = reconcile.figures(resources().engine)
    except SQLAlchemyError as error:
        # Prometheus sees the series missing, and everything else.
        logger.warning("the ledger's figures are not known", exc_info=error, **{"event.dataset": "bank.error"})
        figures = None
    return Response(metrics.exposition(figures), content_type=CONTENT_TYPE_LATEST)
