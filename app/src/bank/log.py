"""Logs: one JSON object a line in the Elastic Common Schema, and nothing that is not on the list of fields.

Names, addresses, amounts typed wrongly, tokens and SQL parameters have no field, so they cannot be logged.
"""

from __future__ import annotations

import logging
import os
import re
import sys
import time
import traceback
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ecs_logging
import structlog
from flask import g, request
from gunicorn.glogging import Logger as GunicornBase
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from bank import __version__, tracing

if TYPE_CHECKING:
    from collections.abc import Callable, MutableMapping

    from flask import Flask, Response

    from bank.config import Settings

ALLOWED = frozenset(
    {
        "event", "exc_info", "_record", "_from_structlog",
        "error.code", "error.message", "error.stack_trace", "error.type",
        "event.action", "event.category", "event.dataset", "event.duration", "event.id", "event.kind", "event.outcome",
        "event.reason", "event.type",
        "http.request.id", "http.request.method", "http.response.status_code", "labels.http_route",
        "log.logger", "process.pid",
        "service.environment", "service.name", "service.node.name", "service.version", "labels.site",
        "source.ip", "span.id", "trace.id", "transaction.id", "url.path", "user.id", "user.target.id",
        "user_agent.original",
        "bank.account.masked", "bank.amount_minor", "bank.approval.id", "bank.currency",
        "bank.fraud.decision", "bank.fraud.indicators", "bank.fraud.rules", "bank.fraud.score",
        "bank.audit.head", "bank.audit.rows", "bank.replayed", "bank.standing_order.id",
        "bank.transfer.id",
    }
)  # fmt: skip
REQUEST_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{7,63}", re.ASCII)
USER_AGENT_LENGTH = 256
PATH_LENGTH = 512
QUIET_ENDPOINTS = frozenset({"operations.health", "operations.ready", "operations.exposition", "static"})

logger: structlog.typing.FilteringBoundLogger = structlog.get_logger()


def log_security(
    message: str,
    *,
    action: str,
    outcome: str,
    category: str = "authentication",
    kind: str = "info",
    reason: str | None = None,
    user_id: str | None = None,
    target_id: str | None = None,
) -> None:
    """Write one line about a security event.

    Args:
        message: What happened, for a person.
        action: What was tried, as ``event.action``.
        outcome: ``success`` or ``failure``.
        category: ``authentication`` for proving who one is, ``iam`` for people and their rights.
        kind: ECS ``event.type``: ``start``, ``end``, ``change``, ``creation``, ``deletion``, ``denied`` or ``info``.
        reason: Why it failed, in words of our own.
        user_id: Who acts, when the request's own user is not known yet.
        target_id: On whom, when it is somebody else.
    """
    fields: dict[str, object] = {
        "event.dataset": "bank.user_behavior",
        "event.kind": "event",
        "event.category": [category],
        "event.type": [kind],
        "event.action": action,
        "event.outcome": outcome,
    }
    optional = {"event.reason": reason, "user.id": user_id, "user.target.id": target_id}
    fields |= {key: value for key, value in optional.items() if value is not None}
    (logger.info if outcome == "success" else logger.warning)(message, **fields)


class LineFile:
    """Appends each line with a single write, so that lines of several workers never mix.

    The file is opened anew when log rotation has moved it away.
    """

    def __init__(self, path: Path) -> None:
        """Open the file.

        Raises:
            OSError: It cannot be opened.
        """
        self._path = path
        self._descriptor = self._open()

    def _open(self) -> int:
        return os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o640)

    def _current(self) -> int:
        try:
            named, opened = self._path.stat(), os.fstat(self._descriptor)
            if (named.st_dev, named.st_ino) == (opened.st_dev, opened.st_ino):
                return self._descriptor
        except FileNotFoundError:
            pass
        os.close(self._descriptor)
        self._descriptor = self._open()
        return self._descriptor

    def write(self, line: str) -> None:
        """Write one line.

        Raises:
            OSError: The disk is full, or the file cannot be opened again.
        """
        os.write(self._current(), (line + "\n").encode())

    def close(self) -> None:
        """Give the file back."""
        os.close(self._descriptor)


class StandardOutput:
    """Writes lines for the journal."""

    def write(self, line: str) -> None:
        """Write one line.

        Raises:
            OSError: The reader is gone.
        """
        sys.stdout.write(line + "\n")
        sys.stdout.flush()

    def close(self) -> None:
        """Leave it open: it belongs to the process."""


class LogOutput(logging.Handler):
    """The one place where lines of the bank, and of the libraries below it, are written.

    The bank's own lines come from structlog as text; the libraries' come as records of the standard library.
    """

    def __init__(self, lines: LineFile | StandardOutput, on_drop: Callable[[], None]) -> None:
        super().__init__()
        self._lines = lines
        self._on_drop = on_drop

    def msg(self, line: str) -> None:
        """Write one line; one that cannot be written is counted and reported on stderr."""
        try:
            self._lines.write(line)
        except (OSError, ValueError) as error:  # a full disk must not stop the bank
            self._on_drop()
            sys.stderr.write(f"bank: a log line could not be written: {error}\n")

    # structlog calls the method that is named after the level.
    debug = info = warning = error = critical = msg

    def emit(self, record: logging.LogRecord) -> None:
        """Write the record of a library as one line."""
        try:
            line = self.format(record)
        except Exception:  # noqa: BLE001  (a bad call inside a library must not stop the bank)
            self._on_drop()
            self.handleError(record)
        else:
            self.msg(line)

    def close(self) -> None:
        """Give the file back."""
        super().close()
        self._lines.close()


def describe_error(error: BaseException) -> dict[str, str]:
    """Describe an exception in ECS fields without the values that databases put into messages."""
    root = error.orig if isinstance(error, DBAPIError) and error.orig else error
    diagnostics = getattr(root, "diag", None)
    if diagnostics is not None:
        # Data exceptions (class 22) quote the value in the first line; other errors keep values in DETAIL.
        refused_value = (diagnostics.sqlstate or "").startswith("22")
        message = "value refused" if refused_value else diagnostics.message_primary or "no answer from the database"
    elif isinstance(error, SQLAlchemyError):
        message = "database error"
    else:
        message = str(root)
    fields = {
        "error.type": f"{type(root).__module__}.{type(root).__qualname__}",
        "error.message": message[:500],
        "error.stack_trace": "".join(traceback.format_tb(error.__traceback__)),
    }
    if code := getattr(root, "sqlstate", None):
        fields["error.code"] = code
    return fields


def _expand_error(_logger: Any, _name: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:  # noqa: ANN401
    info = event.pop("exc_info", None)
    if info is True:
        info = sys.exc_info()
    error = info[1] if isinstance(info, tuple) else info
    if isinstance(error, BaseException):
        event.update(describe_error(error))
    return event


def _allowed_only(_logger: Any, _name: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:  # noqa: ANN401
    for key in [key for key in event if key not in ALLOWED]:
        del event[key]
    return event


def make_processors(settings: Settings) -> list[structlog.typing.Processor]:
    """Return the steps that turn an event into an ECS line.

    Args:
        settings: How this instance is called.
    """
    service = {
        "service.name": "bank",
        "service.version": __version__,
        "service.environment": settings.environment,
        "service.node.name": settings.instance,
        "labels.site": settings.site,
    }

    def add_service(_l: Any, _n: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:  # noqa: ANN401
        record = event.get("_record")
        event.update(service)
        event["process.pid"] = os.getpid()
        event["event.id"] = uuid.uuid4().hex
        if (span_id := tracing.current_span()) is not None:
            event["span.id"] = span_id
        event["log.logger"] = record.name if record is not None else "bank"
        event.setdefault("event.dataset", "bank.app")
        return event

    return [
        structlog.contextvars.merge_contextvars,
        add_service,
        _expand_error,
        _allowed_only,
        ecs_logging.StructlogFormatter(ensure_ascii=False),  # type: ignore[list-item]
    ]


def make_output(settings: Settings, on_drop: Callable[[], None] = lambda: None) -> LogOutput:
    """Return what writes ECS lines where the settings say.

    Args:
        settings: Where to write, and how this instance is called.
        on_drop: Called when a line could not be written.

    Raises:
        OSError: The log file cannot be opened.
    """
    path = settings.logging.path
    output = LogOutput(LineFile(Path(path)) if path else StandardOutput(), on_drop)
    merge, *steps, render = make_processors(settings)
    output.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[merge],
            processors=[*steps, structlog.stdlib.ProcessorFormatter.remove_processors_meta, render],
            pass_foreign_args=False,
        )
    )
    return output


def configure(settings: Settings, on_drop: Callable[[], None] = lambda: None) -> None:
    """Send the logs of this process, those of libraries included, to one place.

    The bank's own lines do not pass the standard library's loggers, which would cost as much again.

    Args:
        settings: Where to write, and from which level on.
        on_drop: Called when a line could not be written.

    Raises:
        OSError: The log file cannot be opened.
    """
    root = logging.getLogger()
    for old in [handler for handler in root.handlers if isinstance(handler, LogOutput)]:
        root.removeHandler(old)
        old.close()
    output = make_output(settings, on_drop)
    root.addHandler(output)
    root.setLevel(logging.WARNING)
    structlog.configure(
        processors=make_processors(settings),
        logger_factory=lambda *_names: output,
        wrapper_class=structlog.make_filtering_bound_logger(settings.logging.level),
        cache_logger_on_first_use=False,
    )


class GunicornLogger(GunicornBase):  # type: ignore[misc]
    """Keeps gunicorn's own messages on stderr, for the journal, and writes them to the bank's log as well."""

    handler: LogOutput | None = None

    def setup(self, cfg: Any) -> None:  # noqa: ANN401
        """Set gunicorn's handlers up, then add ours."""
        super().setup(cfg)
        if self.handler is not None and self.handler not in self.error_log.handlers:
            self.error_log.addHandler(self.handler)


def accepted_request_id() -> str | None:
    """Return the request id that a load balancer set, if it has the right shape."""
    offered = request.headers.get("X-Request-ID", "") if "bank.proxied" in request.environ else ""
    return offered if REQUEST_ID.fullmatch(offered) else None


def log_requests(app: Flask) -> None:
    """Write one line about every request when it was answered; its ids must be known already."""

    @app.before_request
    def begin() -> None:
        g.started = time.perf_counter()
        structlog.contextvars.clear_contextvars()
        if g.transaction_id:
            structlog.contextvars.bind_contextvars(**{"transaction.id": g.transaction_id})
        structlog.contextvars.bind_contextvars(
            **{
                "http.request.id": g.request_id,
                "trace.id": g.trace_id,
                "http.request.method": request.method[:16],
                "url.path": request.path[:PATH_LENGTH],
                "source.ip": request.remote_addr,
            }
        )

    @app.after_request
    def finish(response: Response) -> Response:
        response.headers["X-Request-ID"] = g.request_id
        if request.endpoint in QUIET_ENDPOINTS and response.status_code < 400:  # noqa: PLR2004
            return response
        logger.info(
            "request answered",
            **{
                "event.dataset": "bank.performance",
                "event.kind": "event",
                "event.category": ["web"],
                "event.type": ["access"],
                "event.action": "http-request",
                "event.outcome": "failure" if response.status_code >= 500 else "success",  # noqa: PLR2004
                "event.duration": int((time.perf_counter() - g.started) * 1e9),
                "http.response.status_code": response.status_code,
                "labels.http_route": request.url_rule.rule if request.url_rule else "unmatched",
                "user_agent.original": request.headers.get("User-Agent", "")[:USER_AGENT_LENGTH],
            },
        )
        return response

    @app.teardown_request
    def end(_error: BaseException | None) -> None:
        structlog.contextvars.clear_contextvars()
