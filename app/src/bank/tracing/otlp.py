"""Traces for any collector that speaks OTLP over HTTP, through the OpenTelemetry SDK (an optional extra)."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING

from opentelemetry import context, trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.sampling import ALWAYS_ON
from opentelemetry.trace import NonRecordingSpan, SpanContext, SpanKind, Status, StatusCode, TraceFlags

from bank import __version__
from bank.tracing import Parent

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import AbstractContextManager

    from bank.config import Settings
    from bank.tracing import RequestInfo, Unsampled, Value

SERVER_ERROR = 500
CLOSE_SECONDS = 5
_request: ContextVar[tuple[trace.Span, object] | None] = ContextVar("bank_request_span", default=None)


class OpenTelemetryTracer:
    """Hands spans to the SDK, whose thread sends them; a full queue drops, it never waits."""

    def __init__(self, settings: Settings) -> None:
        options = settings.tracing
        headers = {}
        if token := options.secret_token.get_secret_value():
            headers["Authorization"] = f"Bearer {token}"
        elif key := options.api_key.get_secret_value():
            headers["Authorization"] = f"ApiKey {key}"
        exporter = OTLPSpanExporter(
            endpoint=f"{options.server_url.rstrip('/')}/v1/traces",
            certificate_file=str(options.ca_certificate) if options.ca_certificate else None,
            headers=headers,
            timeout=CLOSE_SECONDS,
        )
        resource = Resource(
            {
                "service.name": "bank",
                "service.version": __version__,
                "service.instance.id": settings.instance,
                "deployment.environment.name": settings.environment,
                "bank.site": settings.site,
            }
        )
        # What comes here has been chosen already.
        self._provider = TracerProvider(sampler=ALWAYS_ON, resource=resource, shutdown_on_exit=False)
        self._provider.add_span_processor(BatchSpanProcessor(exporter, schedule_delay_millis=2_000))
        self._tracer = self._provider.get_tracer("bank", __version__)

    def begin_request(self, info: RequestInfo, parent: Parent | None) -> Parent:
        """Start the server's span."""
        before = context.Context()
        if parent is not None:
            ids = SpanContext(
                int(parent.trace_id, 16), int(parent.span_id, 16), is_remote=True, trace_flags=TraceFlags(0)
            )
            before = trace.set_span_in_context(NonRecordingSpan(ids), before)
        span = self._tracer.start_span(
            f"{info.method} {info.route}",
            before,
            SpanKind.SERVER,
            {"http.request.method": info.method, "http.route": info.route, "bank.request_id": info.request_id},
        )
        _request.set((span, context.attach(trace.set_span_in_context(span, before))))
        ids = span.get_span_context()
        return Parent(f"{ids.trace_id:032x}", f"{ids.span_id:016x}")

    def end_request(self, status: int, user_id: str | None) -> None:
        """End the server's span; answers of 500 and above count as failures."""
        found = _request.get()
        if found is None:
            return
        span, token = found
        span.set_attribute("http.response.status_code", status)
        if user_id:
            span.set_attribute("user.id", user_id)
        if status >= SERVER_ERROR:
            span.set_status(Status(StatusCode.ERROR))
        span.end()
        context.detach(token)  # type: ignore[arg-type]
        _request.set(None)

    def current_span(self) -> str | None:
        """Return the id of the innermost open span."""
        ids = trace.get_current_span().get_span_context()
        return f"{ids.span_id:016x}" if ids.is_valid else None

    def span(self, name: str, kind: str, attributes: dict[str, Value]) -> AbstractContextManager[object]:
        """Measure a part of the work; outside a request nothing is recorded."""
        return self._child(name, kind, attributes)

    @contextmanager
    def _child(self, name: str, kind: str, attributes: dict[str, Value]) -> Iterator[None]:
        if _request.get() is None:
            yield
            return
        system = kind.partition(".")[2]
        more: dict[str, Value] = {}
        if system:
            more["db.system.name"] = system
            if "statement" in attributes:
                more["db.query.text"] = attributes["statement"]
        with self._tracer.start_as_current_span(
            name,
            kind=SpanKind.CLIENT if system else SpanKind.INTERNAL,
            attributes=more,
            # The text of an exception may quote values.
            record_exception=False,
            set_status_on_exception=False,
        ) as span:
            try:
                yield
            except Exception:
                span.set_status(Status(StatusCode.ERROR))
                raise

    def label(self, labels: dict[str, Value]) -> None:
        """Attach attributes to the server's span."""
        found = _request.get()
        if found is not None:
            found[0].set_attributes({f"bank.{name}": value for name, value in labels.items()})

    def record_error(self, error: BaseException, message: str, unsampled: Unsampled | None) -> None:
        """Attach the kind of the error and ``message`` to the server's span, which an unsampled request has not."""
        del unsampled
        found = _request.get()
        if found is not None:
            kind = f"{type(error).__module__}.{type(error).__qualname__}"
            found[0].add_event("exception", {"exception.type": kind, "exception.message": message})

    def close(self) -> None:
        """Send what is waiting, for at most five seconds."""
        closing = threading.Thread(target=self._provider.shutdown, daemon=True)
        closing.start()
        closing.join(CLOSE_SECONDS)
