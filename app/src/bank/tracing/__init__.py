"""Traces: what a request did and how long each part took, sent to a collector by a thread of its own.

The rest of the bank calls :func:`span` and :func:`label`, which do nothing while tracing is off. A backend gets
what is handed to it here and looks at nothing by itself: no header, cookie, query, body or SQL parameter has a way
into a trace. Of a request that is not sampled it hears nothing at all, unless that fails: it costs what a request
costs without tracing.
"""

from __future__ import annotations

import random
import re
import secrets
from contextlib import AbstractContextManager, nullcontext
from contextvars import ContextVar
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from flask import Flask

    from bank.config import Settings

# W3C Trace Context, version 00: trace id, parent id, flags; ids of only zeros are invalid.
TRACEPARENT = re.compile(r"00-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-[0-9a-f]{2}", re.ASCII)
OPENTELEMETRY_PACKAGES = ("opentelemetry.sdk.trace", "opentelemetry.exporter.otlp.proto.http")

Value = str | int | bool


@dataclass(frozen=True)
class Parent:
    """Where an incoming request says that it belongs."""

    trace_id: str
    span_id: str


@dataclass(frozen=True)
class RequestInfo:
    """What a trace tells of a request: its route, never the address that was typed."""

    method: str
    route: str
    request_id: str


@dataclass(frozen=True)
class Unsampled:
    """A request that is not recorded, and under which ids its log lines are."""

    info: RequestInfo
    here: Parent


class Tracer(Protocol):
    """A way to record traces."""

    def begin_request(self, info: RequestInfo, parent: Parent | None) -> Parent:
        """Start the trace of a request, or go on with ``parent``'s; return its trace and transaction."""

    def end_request(self, status: int, user_id: str | None) -> None:
        """Finish what ``begin_request`` started."""

    def current_span(self) -> str | None:
        """Return the id of the innermost open span."""

    def span(self, name: str, kind: str, attributes: dict[str, Value]) -> AbstractContextManager[object]:
        """Measure a part of the work; ``kind`` is ``db.postgresql``, ``db.redis``, ``crypto`` or ``app``."""

    def label(self, labels: dict[str, Value]) -> None:
        """Attach searchable values to the request."""

    def record_error(self, error: BaseException, message: str, unsampled: Unsampled | None) -> None:
        """Attach an error to the request, or send it alone; ``message`` is all of its text that may leave."""

    def close(self) -> None:
        """Send what is waiting, for some seconds at most."""


_active: Tracer | None = None
_sample_rate = 0.0
_unsampled: ContextVar[Unsampled | None] = ContextVar("bank_unsampled_request", default=None)
_NOTHING = nullcontext()


def start(settings: Settings) -> None:
    """Start what the settings ask for; a tracer that ran before is closed."""
    global _active, _sample_rate  # noqa: PLW0603  (one for each process, like the logs)
    if _active is not None:
        _active.close()
    _active, _sample_rate = None, settings.tracing.sample_rate
    if settings.tracing.backend == "elastic":
        from bank.tracing.elastic import ElasticTracer

        _active = ElasticTracer(settings)
    elif settings.tracing.backend == "opentelemetry":
        from bank.tracing.otlp import OpenTelemetryTracer

        _active = OpenTelemetryTracer(settings)


def stop() -> None:
    """Close the tracer, if there is one."""
    global _active  # noqa: PLW0603
    if _active is not None:
        _active.close()
    _active = None


def is_on() -> bool:
    """Tell whether requests are traced."""
    return _active is not None


def is_recording() -> bool:
    """Tell whether spans are recorded just now."""
    return _active is not None and _unsampled.get() is None


def missing_packages(settings: Settings) -> str | None:
    """Return one sentence when the settings ask for a backend whose packages are not installed."""
    if settings.tracing.backend != "opentelemetry":
        return None
    for name in OPENTELEMETRY_PACKAGES:
        try:
            found = find_spec(name)
        except ModuleNotFoundError:
            found = None
        if found is None:
            return (
                "tracing.backend is opentelemetry, whose packages are not installed: pip install 'bank[opentelemetry]'."
            )
    return None


def span(name: str, kind: str = "app", **attributes: Value) -> AbstractContextManager[object]:
    """Measure a part of the work of a request."""
    return _active.span(name, kind, attributes) if _active is not None and _unsampled.get() is None else _NOTHING


def label(**labels: Value) -> None:
    """Attach values to the trace of this request: ids of transfers and outcomes, never names or account numbers."""
    if _active is not None and _unsampled.get() is None:
        _active.label(labels)


def current_span() -> str | None:
    """Return the id of the innermost open span, or None."""
    return _active.current_span() if _active is not None and _unsampled.get() is None else None


def record_error(error: BaseException, message: str) -> None:
    """Attach an error to the trace of this request; errors are sent whether the request is sampled or not."""
    if _active is not None:
        _active.record_error(error, message, _unsampled.get())


def parse_traceparent(header: str) -> Parent | None:
    """Return what a ``traceparent`` header says, or None when it is not valid."""
    match = TRACEPARENT.fullmatch(header)
    return Parent(match[1], match[2]) if match else None


def trace_requests(app: Flask) -> None:
    """Trace every request of ``app`` that is not a probe; must be called before other hooks are registered.

    ``g.trace_id`` is set in any case, so that log lines of one request have it also while tracing is off.
    """
    from flask import g, request

    from bank.log import QUIET_ENDPOINTS, accepted_request_id
    from bank.metrics import method_label

    @app.before_request
    def begin() -> None:
        # Like the request id, believed only from the load balancers.
        parent = (
            parse_traceparent(request.headers.get("traceparent", "")) if "bank.proxied" in request.environ else None
        )
        offered = accepted_request_id()
        g.trace_id = parent.trace_id if parent else secrets.token_hex(16)
        g.transaction_id = None
        g.request_id = offered or g.trace_id
        _unsampled.set(None)
        if _active is not None and request.endpoint not in QUIET_ENDPOINTS:
            route = request.url_rule.rule if request.url_rule else "unmatched"
            info = RequestInfo(method_label(), route, g.request_id)
            # How much is sampled is decided here, never by a header.
            if random.random() < _sample_rate:  # noqa: S311  (no secret)
                here = _active.begin_request(info, parent)
            else:
                here = Parent(g.trace_id, secrets.token_hex(8))
                _unsampled.set(Unsampled(info, here))
            g.trace_id, g.transaction_id = here.trace_id, here.span_id
            g.request_id = offered or g.trace_id

    @app.after_request
    def remember(response: object) -> object:
        g.status = getattr(response, "status_code", 500)
        return response

    @app.teardown_request
    def end(_error: BaseException | None) -> None:
        if _unsampled.get() is not None:
            _unsampled.set(None)
        elif _active is not None and g.get("transaction_id"):
            _active.end_request(g.get("status", 500), g.get("user_id"))
