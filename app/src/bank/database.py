"""The connection to PostgreSQL: engine, time limits, and retries of whole transactions."""

from __future__ import annotations

import random
import time
from typing import TYPE_CHECKING, TypeVar

from sqlalchemy import URL, Engine, create_engine, event
from sqlalchemy.exc import DBAPIError

from bank import metrics

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy import Connection

    from bank.config import Settings

T = TypeVar("T")

CONNECT_SECONDS = 3
POOL_WAIT_SECONDS = 5
LOCK_MS = 5_000
STATEMENT_MS = 10_000
MAX_ATTEMPTS = 5
# Serialization failure and deadlock: PostgreSQL rolled the transaction back, so it can run again as a whole.
RETRYABLE = frozenset({"40001", "40P01"})
LOCK_NOT_AVAILABLE = "55P03"


def sqlstate(error: DBAPIError) -> str:
    """Return the five characters that PostgreSQL gives an error, or an empty text when there was no answer."""
    return getattr(error.orig, "sqlstate", None) or ""


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
        pool_size=database.pool_size,
        max_overflow=0,
        pool_timeout=POOL_WAIT_SECONDS,
        pool_pre_ping=True,
        pool_recycle=1800,
        isolation_level="READ COMMITTED",
        hide_parameters=True,
    )
    event.listen(engine, "checkout", lambda *_: metrics.DATABASE_CONNECTIONS.inc())
    event.listen(engine, "checkin", lambda *_: metrics.DATABASE_CONNECTIONS.dec())
    return engine


def in_transaction(engine: Engine, work: Callable[[Connection], T]) -> T:
    """Run ``work`` in one transaction and commit; run it again, at most five times, when PostgreSQL asks for it.

    Raises:
        DBAPIError: What the database refused, once retries are used up or make no sense.
    """
    for attempt in range(1, MAX_ATTEMPTS + 1):
        try:
            with engine.begin() as connection:
                return work(connection)
        except DBAPIError as error:
            state = sqlstate(error)
            if state not in RETRYABLE or attempt == MAX_ATTEMPTS:
                raise
            metrics.DATABASE_RETRIES.labels(state).inc()
            time.sleep(random.uniform(0.5, 1.5) * 0.01 * 2**attempt)  # noqa: S311  (spreads retries, no secret)
    raise AssertionError("unreachable")
