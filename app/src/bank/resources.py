"""What one running application holds: settings, the database engine, the Redis client, and what counts and signs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from flask import current_app
from redis import Redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from bank import metrics, tracing
from bank.database import make_engine
from bank.keys import Keyring
from bank.monitoring.watch import Watch
from bank.services.limits import Limiter
from bank.services.tokens import Tokens

if TYPE_CHECKING:
    from typing import Any

    from sqlalchemy import Engine

    from bank.config import Settings

REDIS_SECONDS = 2


class ObservedRedis(Redis):
    """A client whose commands are timed and traced, by the name of the command alone."""

    def execute_command(self, *args: Any, **options: Any) -> Any:  # noqa: ANN401
        """Run one command."""
        command = str(args[0]).upper()
        with metrics.REDIS_SECONDS.labels(command).time(), tracing.span(command, "db.redis"):
            return super().execute_command(*args, **options)  # type: ignore[no-untyped-call]


@dataclass(frozen=True)
class Resources:
    """Shared by all requests of one process."""

    settings: Settings
    engine: Engine
    redis: Redis
    limiter: Limiter
    tokens: Tokens
    keys: Keyring
    watch: Watch


def make_redis(settings: Settings) -> Redis:
    """Make a Redis client; it connects on first use and gives up after two seconds."""
    options = settings.redis
    tls: dict[str, object] = {}
    if options.ca_certificate:
        tls = {
            "ssl": True,
            "ssl_ca_certs": str(options.ca_certificate),
            "ssl_cert_reqs": "required",
            "ssl_check_hostname": True,
        }
    return ObservedRedis(
        host=options.host,
        port=options.port,
        username=options.user or None,
        password=options.password.get_secret_value() or None,
        socket_timeout=REDIS_SECONDS,
        socket_connect_timeout=REDIS_SECONDS,
        health_check_interval=30,
        retry=Retry(NoBackoff(), 1),
        client_name="bank",
        **tls,  # type: ignore[arg-type]
    )


def make_resources(settings: Settings) -> Resources:
    """Make the resources of one process."""
    redis, keys = make_redis(settings), Keyring.of(settings)
    return Resources(
        settings=settings,
        engine=make_engine(settings),
        redis=redis,
        limiter=Limiter(redis, settings.limits.per_minute),
        tokens=Tokens(redis, keys, settings.limits.token_seconds),
        keys=keys,
        # Half of the threads, so none where there is one: the others go on answering customers.
        watch=Watch(settings.prometheus, settings.server.threads // 2),
    )


def resources() -> Resources:
    """Return the resources of the application that handles this request."""
    found: Resources = current_app.extensions["bank"]
    return found
