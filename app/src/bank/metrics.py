"""What Prometheus can read: requests, money, log-ins, and the state of the pool. Labels never hold ids.

Under gunicorn each worker writes to files in ``PROMETHEUS_MULTIPROC_DIR`` and any worker can answer for all.
The variable must be set before this module is imported.
"""

from __future__ import annotations

import os
import platform
import re
import time
from typing import TYPE_CHECKING

from flask import g, request
from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.metrics_core import GaugeMetricFamily
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector

from bank import __version__
from bank.services.fraud import Decision, Indicator

if TYPE_CHECKING:
    from collections.abc import Iterator

    from flask import Flask, Response
    from prometheus_client.metrics_core import Metric

    from bank.services.reconcile import Figures

# 200 ms, 500 ms, 800 ms and 1 s are exact edges, because objectives are set on them.
BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.2, 0.5, 0.8, 1.0, 2.5, 5.0)
METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE"})
TRANSFER_OUTCOMES = (
    "completed", "waiting", "insufficient_funds", "frozen", "unknown_recipient", "refused", "conflict", "error",
)  # fmt: skip
ALERT_SEVERITIES = ("p1", "p2", "p3", "p4", "other")
ALERT_STATES = ("firing", "resolved")
LOGIN_OUTCOMES = ("success", "failure", "error")
ATTEMPT_LIMITS = ("log-in", "proof", "sign-up")
LOGIN_FACTORS = ("password", "totp", "recovery")

# What the load balancer sets X-Request-Start to: microseconds since 1970.
_QUEUED_SINCE = re.compile(r"t=([0-9]{16})", re.ASCII)

REQUEST_SECONDS = Histogram(
    "flask_http_request_duration_seconds",
    "Time to answer a request.",
    ("method", "url_rule", "status"),
    buckets=BUCKETS,
)
REQUESTS = Counter("flask_http_request_total", "Requests answered.", ("method", "status"))
EXCEPTIONS = Counter("flask_http_request_exceptions_total", "Requests that ended in an error of ours.", ("method",))
QUEUE_SECONDS = Histogram(
    "bank_http_queue_duration_seconds",
    "Time from the load balancer, which had the whole request, until it was begun.",
    buckets=BUCKETS,
)
IN_PROGRESS = Gauge("bank_http_requests_in_progress", "Requests being answered.", multiprocess_mode="livesum")
TRANSFERS = Counter("bank_transfers_total", "Transfers asked for, by how they ended.", ("type", "outcome"))
TRANSFERRED = Counter(
    "bank_transfer_amount_minor_units_total", "Money moved, in minor units of its currency.", ("currency",)
)
TRANSFER_SECONDS = Histogram("bank_transfer_duration_seconds", "Time to carry out a transfer.", buckets=BUCKETS)
REPLAYS = Counter("bank_idempotent_replays_total", "Forms sent again with a used key.", ("result",))
FRAUD_SCORE = Histogram(
    "bank_fraud_score",
    "How suspicious orders looked, from 0 to 100.",
    # The default limits for flagging and holding, 60 and 80, lie just above an edge: scores are whole numbers.
    buckets=(0, 9, 19, 29, 39, 49, 59, 69, 79, 89, 100),
)
FRAUD = Counter("bank_fraud_decisions_total", "Orders that were judged, by what was done with them.", ("decision",))
FRAUD_HITS = Counter(
    "bank_fraud_indicator_hits_total", "Orders that an indicator of fraud gave points.", ("indicator",)
)
LOGINS = Counter("bank_logins_total", "Attempts to log in, by how they ended.", ("outcome", "factor"))
ACCOUNT_LOCKS = Counter("bank_account_locks_total", "Emails whose log-ins began to be slowed down.")
DATABASE_RETRIES = Counter("bank_db_retries_total", "Transactions run again, by SQLSTATE.", ("sqlstate",))
DATABASE_CONNECTIONS = Gauge(
    "bank_db_pool_connections_in_use", "Database connections lent out.", multiprocess_mode="livesum"
)
DATABASE_POOL_SIZE = Gauge(
    "bank_db_pool_connections_limit", "Database connections that may be lent out.", multiprocess_mode="livesum"
)
DATABASE_POOL_WAIT = Histogram(
    "bank_db_pool_wait_seconds",
    "Time until a database connection was lent out, a new one made if needed.",
    buckets=(0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0),
)
REDIS_SECONDS = Histogram(
    "bank_redis_command_duration_seconds",
    "Time that Redis took to answer.",
    ("command",),
    buckets=(0.0005, 0.001, 0.0025, 0.005, 0.01, 0.05, 0.1, 0.5, 2.0),
)
THREADS = Gauge(
    "bank_http_threads_limit", "Requests that can be answered at the same time.", multiprocess_mode="livesum"
)
RATE_LIMITED = Counter("bank_rate_limited_total", "Requests refused because there were too many before.", ("limit",))
ALERTS = Counter(
    "bank_alert_webhook_received_total", "Alerts that monitoring told the bank about.", ("severity", "status")
)
ALERT_TOLD_SECONDS = Histogram(
    "bank_alert_told_seconds",
    "Time from when the rule of an alert began to fire, which is after the time that the rule itself waits, until the "
    "bank was told for the first time. What passed between the fault and that moment is not in it, nor are alerts of "
    "which only the end was told.",
    ("severity",),
    buckets=(1, 5, 10, 15, 30, 60, 120, 300, 900, 3600),
)
ALERT_LASTED_SECONDS = Histogram(
    "bank_alert_lasted_seconds",
    "Time from when the rule of an alert began to fire until it no longer did, of alerts whose end the bank was told. "
    "What passed between the fault and the first moment is not in it.",
    ("severity",),
    buckets=(60, 300, 900, 1800, 3600, 7200, 14400, 43200, 86400, 259200),
)
LOG_LINES_DROPPED = Counter("bank_log_lines_dropped_total", "Log lines that could not be written.")
BUILD_INFO = Gauge(
    "bank_build_info", "Always 1; the labels tell what runs.", ("version", "python"), multiprocess_mode="max"
)


def initialise(*, pool_size: int, threads: int) -> None:
    """Give every series a first value, so that a rate exists before the first event."""
    for outcome in TRANSFER_OUTCOMES:
        for kind in ("transfer", "payment"):
            TRANSFERS.labels(kind, outcome)
    for outcome in LOGIN_OUTCOMES:
        for factor in LOGIN_FACTORS:
            LOGINS.labels(outcome, factor)
    for limit in ATTEMPT_LIMITS:
        RATE_LIMITED.labels(limit)
    for severity in ALERT_SEVERITIES:
        for state in ALERT_STATES:
            ALERTS.labels(severity, state)
        ALERT_TOLD_SECONDS.labels(severity)
        ALERT_LASTED_SECONDS.labels(severity)
    for result in ("replayed", "conflict"):
        REPLAYS.labels(result)
    _initialise_fraud()
    BUILD_INFO.labels(__version__, platform.python_version()).set(1)
    DATABASE_POOL_SIZE.set(pool_size)
    THREADS.set(threads)


def _initialise_fraud() -> None:
    for decision in Decision:
        FRAUD.labels(decision)
    for indicator in Indicator:
        FRAUD_HITS.labels(indicator)


class LedgerCollector(Collector):
    """The state of the ledger, read from the database when Prometheus asks, so that no worker reports it twice."""

    def __init__(self, figures: Figures) -> None:
        self._figures = figures

    def collect(self) -> Iterator[Metric]:
        """Give one gauge for each figure."""
        figures = self._figures
        for name, text, value in (
            ("bank_ledger_imbalance_minor_units", "By how much the ledger is off; must be 0.", figures.imbalance_minor),
            ("bank_reconcile_findings", "Rows that the last reconciliation found wrong; must be 0.", figures.findings),
            ("bank_pending_approvals", "Movements that wait for a second person.", figures.pending_approvals),
            (
                "bank_pending_approvals_oldest_seconds",
                "How long the oldest of them has been waiting; 0 if none is.",
                figures.oldest_approval_seconds,
            ),
            ("bank_standing_orders_overdue", "Standing orders that no scheduler has run.", figures.overdue_orders),
        ):
            yield GaugeMetricFamily(name, text, value=value)
        if figures.reconciled_at:
            yield GaugeMetricFamily(
                "bank_reconcile_last_timestamp_seconds",
                "When the whole ledger was last reconciled.",
                value=figures.reconciled_at.timestamp(),
            )
        if figures.audit_checked_at:
            yield GaugeMetricFamily(
                "bank_audit_chain_valid",
                "1 if the last check found the audit trail whole, else 0.",
                value=int(figures.audit_is_whole),
            )
            yield GaugeMetricFamily(
                "bank_audit_last_check_timestamp_seconds",
                "When the audit trail was last checked.",
                value=figures.audit_checked_at.timestamp(),
            )


def exposition(figures: Figures | None = None) -> bytes:
    """Return all metrics of all workers in the Prometheus text format, with the ledger's figures if they are known."""
    registry = CollectorRegistry()
    if figures:
        registry.register(LedgerCollector(figures))
    if os.environ.get("PROMETHEUS_MULTIPROC_DIR"):
        MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
        return generate_latest(registry)
    return generate_latest(REGISTRY) + generate_latest(registry)


def method_label() -> str:
    """Return the method of this request, strange ones under one name."""
    return request.method if request.method in METHODS else "OTHER"


def observe_requests(app: Flask) -> None:
    """Count and time every request of ``app`` by route, never by path."""

    @app.before_request
    def begin() -> None:
        IN_PROGRESS.inc()
        g.counted = True
        if "bank.proxied" in request.environ and (
            sent := _QUEUED_SINCE.fullmatch(request.environ.get("HTTP_X_REQUEST_START", ""))
        ):
            # The clocks of two hosts differ a little.
            QUEUE_SECONDS.observe(max(0.0, time.time() - int(sent[1]) / 1e6))

    @app.after_request
    def measure(response: Response) -> Response:
        started = g.get("started")
        if started is not None:
            method = method_label()
            rule = request.url_rule.rule if request.url_rule else "unmatched"
            status = str(response.status_code)
            REQUEST_SECONDS.labels(method, rule, status).observe(time.perf_counter() - started)
            REQUESTS.labels(method, status).inc()
        return response

    @app.teardown_request
    def end(_error: BaseException | None) -> None:
        if g.pop("counted", False):
            IN_PROGRESS.dec()
