"""Whether what the bank depends on answers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from redis.exceptions import RedisError
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from bank.database import sqlstate
from bank.services import schema

if TYPE_CHECKING:
    from redis import Redis
    from sqlalchemy import Engine

    from bank.resources import Resources

UNDEFINED_TABLE = "42P01"
# Without these an instance still moves money: for programs with a token, and by the clock.
DISPENSABLE = frozenset({"redis"})


def check_database(engine: Engine) -> dict[str, str | None]:
    """Return what is wrong with the database and with its schema; None means nothing."""
    try:
        with engine.connect() as connection:
            current = schema.is_current(connection)
    except DBAPIError as error:
        if sqlstate(error) == UNDEFINED_TABLE:
            return {"database": None, "schema": "has never been migrated: run `bank migrate`"}
        first_line = str(error.orig).strip().splitlines()[0] if str(error.orig).strip() else "no answer"
        return {"database": first_line}
    except SQLAlchemyError as error:
        return {"database": type(error).__name__}
    return {"database": None, "schema": None if current else "is older than this release: run `bank migrate`"}


def check_redis(client: Redis) -> str | None:
    """Return what is wrong with Redis, or None: it must answer, and run the scripts that count attempts."""
    try:
        client.eval("return redis.call('TIME')[1]", 0)
    except RedisError as error:
        return str(error) or type(error).__name__
    return None


def check_all(found: Resources) -> dict[str, str | None]:
    """Return each dependency with what is wrong with it, or None."""
    return {**check_database(found.engine), "redis": check_redis(found.redis)}
