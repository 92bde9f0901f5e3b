"""The connection to PostgreSQL: engine, time limits, and retries of whole transactions."""

from __future__ import annotations

import math
import random
import re
import time
from contextlib import contextmanager
from functools import cache, lru_cache
from typing import TYPE_CHECKING, Any, TypeVar

import psycopg
from sqlalchemy import URL, Engine, QueuePool, create_engine, event
from sqlalchemy.dialects.postgresql.psycopg import PGDialect_psycopg
from sqlalchemy.exc import DBAPIError, InvalidatePoolError

from bank import metrics, tracing

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from sqlalchemy import Connection, Executable
    from sqlalchemy.engine import ExceptionContext
    from sqlalchemy.engine.interfaces import DBAPIConnection
    from sqlalchemy.pool import ConnectionPoolEntry

    from bank.config import Settings

T = TypeVar("T")

CONNECT_SECONDS = 3
POOL_WAIT_SECONDS = 5
LOCK_MS = 5_000
STATEMENT_MS = 10_000
MAX_ATTEMPTS = 5
# Serialization failure and deadlock: PostgreSQL rolled the transaction back, so it can run again as a whole.
RETRYABLE = frozenset({"40001", "40P01"})
# A connection that was in use this short time ago is taken to work.
IDLE_SECONDS = 1
LOCK_NOT_AVAILABLE = "55P03"
_DIALECT = PGDialect_psycopg()  # type: ignore[no-untyped-call]
_CHANGE = re.compile(r"\b(INSERT|UPDATE|DELETE)\b", re.ASCII | re.IGNORECASE)
_TARGET = re.compile(r"\b(?:FROM|INTO|UPDATE)\s+(?:ONLY\s+)?([a-z_][a-z0-9_.]*)", re.ASCII | re.IGNORECASE)


class TimedPool(QueuePool):
    """A pool that measures how long a request waits for a connection."""

    # Logs as part of SQLAlchemy, whose chatter is not wanted, and not as part of the bank.
    _sqla_logger_namespace = "sqlalchemy.pool.TimedPool"

    def _do_get(self) -> Any:  # noqa: ANN401
        with metrics.DATABASE_POOL_WAIT.time():
            return super()._do_get()


def sqlstate(error: DBAPIError) -> str:
    """Return the five characters that PostgreSQL gives an error, or an empty text when there was no answer."""
    return getattr(error.orig, "sqlstate", None) or ""


def constraint(error: DBAPIError) -> str:
    """Return the name of the constraint that PostgreSQL found violated, or an empty text."""
    diagnostics = getattr(error.orig, "diag", None)
    return getattr(diagnostics, "constraint_name", None) or ""


def make_engine(settings: Settings, *, statement_ms: int = STATEMENT_MS, lock_ms: int = LOCK_MS) -> Engine:
    """Make an engine; it connects on first use, which must be after the server forked its workers.

    Args:
        settings: Where the database is.
        statement_ms: Longest time that one statement may take, in milliseconds; 0 means no limit.
        lock_ms: Longest wait for a lock, in milliseconds.
    """
    database = settings.database
    arguments: dict[str, object] = {
        "sslmode": database.ssl_mode,
        "connect_timeout": CONNECT_SECONDS,
        "application_name": f"bank/{settings.instance}"[:63],
        "options": (
            f"-c timezone=UTC -c lock_timeout={lock_ms} -c statement_timeout={statement_ms} "
            "-c idle_in_transaction_session_timeout=15000"
        ),
        "keepalives_idle": 30,
        "keepalives_interval": 10,
        "keepalives_count": 3,
    }
    if database.ssl_root_certificate:
        arguments["sslrootcert"] = str(database.ssl_root_certificate)
    engine = create_engine(
        URL.create(
            "postgresql+psycopg",
            username=database.user,
            password=database.password.get_secret_value(),
            host=database.host,
            port=database.port,
            database=database.name,
        ),
        connect_args=arguments,
        poolclass=TimedPool,
        pool_size=database.pool_size,
        max_overflow=0,
        pool_timeout=POOL_WAIT_SECONDS,
        pool_recycle=1800,
        isolation_level="READ COMMITTED",
        hide_parameters=True,
    )
    # First, since a connection that fails it is not lent out.
    _check_idle_connections(engine)
    _end_reading(engine)
    event.listen(engine, "checkout", lambda *_: metrics.DATABASE_CONNECTIONS.inc())
    event.listen(engine, "checkin", lambda *_: metrics.DATABASE_CONNECTIONS.dec())
    if tracing.is_on():
        _trace_statements(engine)
    return engine


def _check_idle_connections(engine: Engine) -> None:
    """Ask a connection whether it still works before it is lent out, unless it has just been in use.

    SQLAlchemy's own check asks each time, which is a third of the round trips of a short request.
    """

    @event.listens_for(engine, "checkin")
    def stamp(_connection: object, record: ConnectionPoolEntry) -> None:
        record.info["returned_at"] = time.monotonic()

    @event.listens_for(engine, "checkout")
    def check(connection: DBAPIConnection, record: ConnectionPoolEntry, _proxy: object) -> None:
        if time.monotonic() - record.info.get("returned_at", math.inf) < IDLE_SECONDS:
            return
        try:
            engine.dialect.do_ping(connection)
        except psycopg.Error as error:
            raise InvalidatePoolError from error


@contextmanager
def reading(engine: Engine) -> Iterator[Connection]:
    """Give a connection for queries that stand each for itself: one round trip, without BEGIN and ROLLBACK."""
    with engine.connect() as connection:
        connection.connection.driver_connection.autocommit = True  # type: ignore[union-attr]
        yield connection


def _end_reading(engine: Engine) -> None:
    """Let a connection begin transactions again before anybody else gets it; one that cannot is thrown away."""

    @event.listens_for(engine, "reset")
    def restore(connection: DBAPIConnection, _record: object, _state: object) -> None:
        if connection.autocommit:
            connection.autocommit = False


@cache
def _plain(statement: Executable) -> tuple[str, dict[str, Any]]:
    """Return a statement as the driver takes it, and the values that it always has."""
    compiled = statement.compile(dialect=_DIALECT)  # type: ignore[attr-defined]
    return compiled.string, {name: value for name, value in compiled.params.items() if value is not None}


def execute(
    connection: Connection, statement: Executable, parameters: Mapping[str, object]
) -> psycopg.Cursor[tuple[Any, ...]]:
    """Run a statement on a connection, by the driver itself: half the processor time, for what every request does.

    Args:
        connection: From :func:`reading`, or in a transaction, of which the statement is a part.
        statement: Made once, since it is remembered; types of columns are the driver's.
        parameters: Values by name.

    Raises:
        DBAPIError: What the database refused, as if SQLAlchemy had run it.
    """
    sql, constant = _plain(statement)
    driver: psycopg.Connection = connection.connection.driver_connection  # type: ignore[assignment]
    try:
        with tracing.span(statement_name(sql), "db.postgresql", statement=sql):
            return driver.execute(sql, {**constant, **parameters})
    except psycopg.Error as error:
        if driver.closed:
            connection.invalidate(error)
            connection.engine.dispose()  # the others of the pool went with it, most likely
        raise DBAPIError.instance(
            sql, None, error, psycopg.Error, hide_parameters=True, connection_invalidated=driver.closed
        ) from error


@lru_cache(maxsize=512)
def statement_name(statement: str) -> str:
    """Return a short name for a statement: what it does and to which table."""
    verb = statement.split(None, 1)[0].upper() if statement.strip() else "SQL"
    if verb == "WITH":
        changes = _CHANGE.search(statement)
        verb = changes[1].upper() if changes else "SELECT"
    target = _TARGET.search(statement)
    return f"{verb} {target[1]}" if target else verb


def _trace_statements(engine: Engine) -> None:
    """Make a span of each statement; its text has placeholders where the values go."""

    @event.listens_for(engine, "before_cursor_execute")
    def begin(connection: Connection, _c: object, statement: str, *_: object) -> None:
        if not tracing.is_recording():
            return
        span = tracing.span(statement_name(statement), "db.postgresql", statement=statement)
        span.__enter__()
        connection.info.setdefault("bank_spans", []).append(span)

    @event.listens_for(engine, "after_cursor_execute")
    def end(connection: Connection, *_: object) -> None:
        if open_spans := connection.info.get("bank_spans"):
            open_spans.pop().__exit__(None, None, None)

    @event.listens_for(engine, "handle_error")
    def fail(failure: ExceptionContext) -> None:
        if failure.connection is not None and (open_spans := failure.connection.info.get("bank_spans")):
            error = failure.original_exception
            open_spans.pop().__exit__(type(error), error, error.__traceback__)


def in_transaction(engine: Engine, work: Callable[[Connection], T]) -> T:
    """Run ``work`` in one transaction and commit; run it again, at most five times, when PostgreSQL asks for it.

    Raises:
        DBAPIError: What the database refused, once retries are used up or make no sense.
    """
    for attempt in range(1, MAX_ATTEMPTS + 1):
        try:
            with tracing.span("transaction"), engine.begin() as connection:
                return work(connection)
        except DBAPIError as error:
            state = sqlstate(error)
            if state not in RETRYABLE or attempt == MAX_ATTEMPTS:
                raise
            metrics.DATABASE_RETRIES.labels(state).inc()
            time.sleep(random.uniform(0.5, 1.5) * 0.01 * 2**attempt)  # noqa: S311  (spreads retries, no secret)
    raise AssertionError("unreachable")
