"""Traces for an Elastic APM server, through Elastic's agent."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import elasticapm
from elasticapm.conf import constants
from elasticapm.traces import execution_context
from elasticapm.utils.disttracing import TraceParent, TracingOptions

from bank import __version__
from bank.tracing import Parent

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from bank.config import Settings
    from bank.tracing import RequestInfo, Unsampled, Value

# The agent's own list, and what a bank has besides. Its "password" means exactly that name.
SANITIZED = (
    *constants.BASE_SANITIZE_FIELD_NAMES_UNPROCESSED,
    "*password*", "*secret*", "*iban*", "*otp*", "*pan*", "*cvv*", "*pin*", "*email*", "*cookie*", "*account*number*",
    "*recovery*", "authorization",
)  # fmt: skip


class ElasticTracer:
    """Hands transactions and spans to the agent, whose thread sends them; a full queue drops, it never waits."""

    def __init__(self, settings: Settings) -> None:
        options = settings.tracing
        self._sample_rate = options.sample_rate
        self._client = elasticapm.Client(
            service_name="bank",
            service_version=__version__,
            service_node_name=settings.instance,
            environment=settings.environment,
            global_labels={"site": settings.site},
            server_url=options.server_url,
            secret_token=options.secret_token.get_secret_value() or None,
            api_key=options.api_key.get_secret_value() or None,
            server_ca_cert_file=str(options.ca_certificate) if options.ca_certificate else None,
            # What comes here has been chosen already.
            transaction_sample_rate=1.0,
            sanitize_field_names=list(SANITIZED),
            processors=["bank.tracing.elastic.keep_error_texts", *_DEFAULT_PROCESSORS],
            # The spans below are the only ones; nothing is patched.
            instrument=False,
            capture_body="off",
            capture_headers=False,
            collect_local_variables="off",
            # Settings come from the bank's file alone.
            central_config=False,
            cloud_provider="none",
            # Prometheus has the metrics.
            metrics_interval="0s",
            breakdown_metrics=False,
            server_timeout="5s",
            api_request_time="5s",
            span_stack_trace_min_duration="-1ms",
            disable_log_record_factory=True,
        )
        # The agent would walk the stack for each span, and then drop what it found.
        self._client.tracer.frames_collector_func = list  # type: ignore[union-attr]

    def begin_request(self, info: RequestInfo, parent: Parent | None) -> Parent:
        """Start a transaction."""
        return self._begin(info, parent, is_recorded=True)

    def _begin(self, info: RequestInfo, parent: Parent | None, *, is_recorded: bool) -> Parent:
        incoming = None
        if parent is not None:
            incoming = TraceParent(0, parent.trace_id, parent.span_id, TracingOptions(recorded=is_recorded))
        transaction = self._client.begin_transaction("request", trace_parent=incoming)
        # From which the server tells how many requests this one stands for.
        transaction.sample_rate = self._sample_rate
        elasticapm.set_transaction_name(f"{info.method} {info.route}")
        elasticapm.set_context({"method": info.method, "url": {"pathname": info.route}}, "request")
        elasticapm.label(request_id=info.request_id)
        return Parent(transaction.trace_parent.trace_id, transaction.id)

    def end_request(self, status: int, user_id: str | None) -> None:
        """End the transaction; answers of 500 and above count as failures."""
        elasticapm.set_context({"status_code": status}, "response")
        if user_id:
            elasticapm.set_user_context(user_id=user_id)
        elasticapm.set_transaction_outcome(http_status_code=status)
        self._client.end_transaction(result=f"HTTP {status // 100}xx")  # type: ignore[no-untyped-call]

    def current_span(self) -> str | None:
        """Return the id of the innermost open span."""
        span = execution_context.get_span()
        return span.id if span else None

    def span(self, name: str, kind: str, attributes: dict[str, Value]) -> AbstractContextManager[object]:
        """Measure a part of the work."""
        span_type, _, subtype = kind.partition(".")
        extra: dict[str, Any] = {}
        if span_type == "db":
            extra["db"] = {"type": "sql" if subtype == "postgresql" else subtype}
            if "statement" in attributes:
                extra["db"]["statement"] = attributes["statement"]
        found: AbstractContextManager[object] = elasticapm.capture_span(
            name, span_type=span_type, span_subtype=subtype or None, extra=extra, leaf=span_type == "db"
        )
        return found

    def label(self, labels: dict[str, Value]) -> None:
        """Attach labels to the transaction."""
        elasticapm.label(**labels)

    def record_error(self, error: BaseException, message: str, unsampled: Unsampled | None) -> None:
        """Send the error with its stack, but with no text besides ``message``."""
        where = (type(error), error, error.__traceback__)
        if unsampled is not None:
            # So that the error names the request; this transaction itself is never sent.
            self._begin(unsampled.info, unsampled.here, is_recorded=False)
            execution_context.get_transaction().id = unsampled.here.span_id
        self._client.capture_exception(where, message=message)  # type: ignore[no-untyped-call]
        if unsampled is not None:
            execution_context.get_transaction(clear=True)

    def close(self) -> None:
        """Send what is waiting, for at most five seconds."""
        self._client.close()


_DEFAULT_PROCESSORS = (
    "elasticapm.processors.sanitize_stacktrace_locals",
    "elasticapm.processors.sanitize_http_request_cookies",
    "elasticapm.processors.sanitize_http_response_cookies",
    "elasticapm.processors.sanitize_http_headers",
    "elasticapm.processors.sanitize_http_wsgi_env",
    "elasticapm.processors.sanitize_http_request_body",
)


def keep_error_texts(_client: object, event: dict[str, Any]) -> dict[str, Any]:
    """Take the texts out of the errors that led to an error: a database quotes values in them."""
    causes = list(event.get("exception", {}).get("cause", ()))
    while causes:
        cause = causes.pop()
        cause["message"] = cause.get("type", "error")
        causes += cause.get("cause", ())
    return event


keep_error_texts.event_types = (constants.ERROR,)  # type: ignore[attr-defined]
