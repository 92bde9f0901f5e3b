"""Settings: one TOML file, any value of which an environment variable may override.

``BANK_CONFIG`` names the file; ``BANK_<SECTION>__<KEY>`` overrides one value, for instance
``BANK_DATABASE__PASSWORD``. Unknown keys and wrong types are refused with one sentence that names the key.
"""

from __future__ import annotations

import os
import re
import tomllib
from datetime import timedelta
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict, SettingsError

from bank.money import EXPONENTS

DEFAULT_PATH = "/etc/bank/bank.toml"
SECRET_KEY_LENGTH = 32
SECRET_KEY_DISTINCT = 10

Port = Annotated[int, Field(ge=1, le=65535)]


class ConfigError(Exception):
    """The configuration cannot be used; the text is one sentence for the operator, without any secret."""


class Section(BaseModel):
    """A table of the TOML file."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)


class Database(Section):
    """How to reach PostgreSQL."""

    host: str = "localhost"
    port: Port = 5432
    name: str = "bank"
    user: str = "bank_app"
    password: SecretStr = SecretStr("")
    ssl_mode: Literal["disable", "require", "verify-ca", "verify-full"] = "verify-full"
    ssl_root_certificate: Path | None = None
    pool_size: Annotated[int, Field(ge=1, le=200)] = 5
    """Connections that each worker process may hold."""
    application_role: Annotated[str, Field(pattern=r"^[a-z_][a-z0-9_]{0,62}$")] = "bank_app"
    """Role to which migrations grant what the application needs."""

    @model_validator(mode="after")
    def _root_certificate_known(self) -> Self:
        if self.ssl_mode.startswith("verify") and self.ssl_root_certificate is None:
            raise ValueError(f"ssl_root_certificate must be set when ssl_mode is {self.ssl_mode}")
        return self


class RedisServer(Section):
    """How to reach Redis, which keeps the sessions."""

    host: str = "localhost"
    port: Port = 6379
    user: str = ""
    password: SecretStr = SecretStr("")
    ca_certificate: Path | None = None
    """Set: TLS, and the server must prove its name. Absent: no TLS."""


class Server(Section):
    """Where and how the web server listens."""

    bind_address: str = "127.0.0.1"
    port: Port = 8000
    workers: Annotated[int, Field(ge=1, le=64)] = 2
    threads: Annotated[int, Field(ge=1, le=64)] = 4
    certificate: Path | None = None
    private_key: Path | None = None
    client_ca_certificate: Path | None = None
    trusted_proxies: tuple[IPv4Address | IPv6Address, ...] = ()
    """Addresses of the load balancers, whose X-Forwarded-For (last hop only) is believed."""

    @model_validator(mode="after")
    def _tls_complete(self) -> Self:
        parts = (self.certificate, self.private_key, self.client_ca_certificate)
        if any(parts) and not all(parts):
            raise ValueError("certificate, private_key and client_ca_certificate must be set together or not at all")
        return self


class Session(Section):
    """Limits of a session, in seconds."""

    idle_seconds: Annotated[int, Field(ge=60, le=3600)] = 300
    absolute_seconds: Annotated[int, Field(ge=300, le=86400)] = 28800
    anonymous_seconds: Annotated[int, Field(ge=60, le=86400)] = 1800
    """How long the log-in form stays valid."""


class Login(Section):
    """Who must prove what at log-in, and how patient the bank is with failures; times in seconds."""

    staff_second_factor: bool = True
    """Whether everybody who is no customer must set a second factor up before anything else."""
    account_failures: Annotated[int, Field(ge=1, le=5)] = 5
    """Failures for one email before delays begin; Regulation (EU) 2018/389, article 4, allows five."""
    address_failures: Annotated[int, Field(ge=1, le=1000)] = 20
    """Failures from one address before delays begin; offices and mobile networks share addresses."""
    first_delay_seconds: Annotated[int, Field(ge=1, le=3600)] = 30
    longest_delay_seconds: Annotated[int, Field(ge=1, le=86400)] = 900
    """Delays double up to this; counters are forgotten after four times as long without an attempt."""
    sign_ups_per_address: Annotated[int, Field(ge=1, le=1000)] = 5
    """Sign-ups from one address before delays begin."""


class Logging(Section):
    """Where the log goes."""

    path: str = ""
    """File for JSON lines; empty means standard output."""
    level: Literal["debug", "info", "warning", "error"] = "info"


class Limits(Section):
    """How often the API may be asked, and how long its tokens live."""

    tokens_per_minute: Annotated[int, Field(ge=1)] = 20
    """Attempts to log in, from one address."""
    reads_per_minute: Annotated[int, Field(ge=1)] = 600
    """By one customer."""
    writes_per_minute: Annotated[int, Field(ge=1)] = 120
    """By one customer."""
    alerts_per_minute: Annotated[int, Field(ge=1)] = 120
    """Notifications of monitoring, from one address."""
    token_seconds: Annotated[int, Field(ge=60, le=3600)] = 600

    @property
    def per_minute(self) -> dict[str, int]:
        """Return each limit by its name."""
        return {
            "token": self.tokens_per_minute,
            "read": self.reads_per_minute,
            "write": self.writes_per_minute,
            "alert": self.alerts_per_minute,
        }


class Webhook(Section):
    """What monitoring proves itself with when it sends alerts."""

    secret: SecretStr = SecretStr("")
    """Empty: no alerts are taken."""

    @field_validator("secret")
    @classmethod
    def _fits_a_header(cls, value: SecretStr) -> SecretStr:
        if not re.fullmatch(r"(?:[\x21-\x7e]{16,})?", value.get_secret_value(), re.ASCII):
            raise ValueError("must have at least 16 characters, printable ASCII without blanks")
        return value


class Tracing(Section):
    """Where traces go; with ``backend`` "none" nothing is traced."""

    backend: Literal["none", "elastic", "opentelemetry"] = "none"
    server_url: str = ""
    """Base address of the APM server or OTLP collector, such as ``https://apm.example:8200``."""
    secret_token: SecretStr = SecretStr("")
    api_key: SecretStr = SecretStr("")
    ca_certificate: Path | None = None
    """Set: the server's certificate must come from this authority. Absent: from one that the system knows."""
    sample_rate: Annotated[float, Field(ge=0, le=1)] = 0.1
    """Share of the requests that are recorded in full."""

    @model_validator(mode="after")
    def _reachable(self) -> Self:
        if self.backend != "none" and not re.fullmatch(r"https?://[^/\s@?#]+(/[^\s@?#]*)?", self.server_url):
            raise ValueError(
                f"server_url must be an http(s) address without credentials when backend is {self.backend}"
            )
        if self.secret_token.get_secret_value() and self.api_key.get_secret_value():
            raise ValueError("secret_token and api_key cannot be set together")
        return self


class Prometheus(Section):
    """Whom the page about the platform asks; without ``urls`` it says that it knows nothing."""

    urls: tuple[str, ...] = ()
    """Base addresses such as ``https://monitoring.example:9090``; the first that answers is believed."""
    user: str = ""
    password: SecretStr = SecretStr("")
    ca_certificate: Path | None = None
    """Set: the servers' certificates must come from this authority. Absent: from one that the system knows."""

    @field_validator("urls")
    @classmethod
    def _proving_themselves(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for url in value:
            if not _is_https(url):
                raise ValueError(
                    "must be https addresses without credentials or a query, such as https://monitoring.example:9090"
                )
        return value

    @model_validator(mode="after")
    def _log_in_complete(self) -> Self:
        if bool(self.user) != bool(self.password.get_secret_value()):
            raise ValueError("user and password must be set together or not at all")
        if ":" in self.user:
            raise ValueError("user must not hold a colon, which would end it")
        return self


def _is_https(url: str) -> bool:
    if not re.fullmatch(r"https://[A-Za-z0-9._:\[\]-]+(/[A-Za-z0-9._~/%-]*)?", url, re.ASCII):
        return False
    try:
        parts = urlsplit(url)
        return bool(parts.hostname) and parts.port != 0
    except ValueError:  # a port beyond 65535, a bracket that does not close
        return False


class AmountLimit(Section):
    """Up to which amount something is not asked for, in minor units of the currency."""

    limit_minor: Annotated[int, Field(ge=0)]
    limits: dict[str, Annotated[int, Field(ge=0)]] = {}
    """Other limits by currency, for instance ``{JPY = 1500000}``."""

    @field_validator("limits")
    @classmethod
    def _known_currencies(cls, value: dict[str, int]) -> dict[str, int]:
        if unknown := sorted(set(value) - set(EXPONENTS)):
            raise ValueError(f"the bank keeps no accounts in {', '.join(unknown)}")
        return value

    def limit_for(self, currency: str) -> int:
        """Return the largest amount for which it is not asked, in minor units."""
        return self.limits.get(currency, self.limit_minor)


class Confirmation(AmountLimit):
    """Which orders of customers need a proof of their own: a code, or the password of who has no second factor.

    Orders between a person's own accounts need none.
    """

    limit_minor: Annotated[int, Field(ge=0)] = 100_000
    new_payees: bool = True
    """Whether also smaller amounts do, unless the payee is among the person's beneficiaries."""


class Approvals(AmountLimit):
    """Above which amounts a second person must approve."""

    limit_minor: Annotated[int, Field(ge=0)] = 1_000_000
    timeout_hours: Annotated[int, Field(ge=1, le=720)] = 24
    """How long an approval may wait before it ends by itself."""

    @property
    def timeout(self) -> timedelta:
        """Return how long an approval may wait."""
        return timedelta(hours=self.timeout_hours)


class Fraud(AmountLimit):
    """What becomes of orders that look like fraud; every order of a customer gets a score from 0 to 100."""

    mode: Literal["hold", "observe"] = "hold"
    """With "observe" scores are kept, logged and counted, and nothing is held."""
    hold_from_score: Annotated[int, Field(ge=1, le=100)] = 80
    """From which score on an order waits for a second person, as one above the limit of approvals does."""
    flag_from_score: Annotated[int, Field(ge=1, le=100)] = 60
    """From which score on staff sees an order among the suspicious ones."""
    limit_minor: Annotated[int, Field(ge=0)] = 3_000
    """Up to which the amount itself is never suspicious: the low value of Regulation (EU) 2018/389, article 16."""

    @model_validator(mode="after")
    def _flagged_before_held(self) -> Self:
        if self.flag_from_score > self.hold_from_score:
            raise ValueError("flag_from_score must not be above hold_from_score")
        return self


class Scheduler(Section):
    """What ``bank scheduler`` does, and how often."""

    interval_seconds: Annotated[int, Field(ge=1, le=3600)] = 30
    reconcile_minutes: Annotated[int, Field(ge=1, le=1440)] = 15
    audit_minutes: Annotated[int, Field(ge=1, le=10080)] = 60
    """How often the audit trail is checked and its head written to the log."""
    savings_rate_ppm: Annotated[int, Field(ge=0, le=1_000_000)] = 0
    """Interest of a year on savings accounts in millionths, 12500 for 1.25 %; 0 pays none."""


class Settings(BaseSettings):
    """Everything that an operator can set."""

    model_config = SettingsConfigDict(
        env_prefix="BANK_",
        env_nested_delimiter="__",
        extra="forbid",
        frozen=True,
        hide_input_in_errors=True,
    )

    environment: Annotated[str, Field(min_length=1, max_length=64)] = "production"
    site: Annotated[str, Field(min_length=1, max_length=64)] = "main"
    instance: Annotated[str, Field(min_length=1, max_length=255)] = "bank"
    secret_key: SecretStr
    earlier_secret_key: SecretStr | None = None
    """While the secret is being changed: the one before, which still opens what it sealed."""
    database: Database
    redis: RedisServer
    server: Server
    session: Session
    login: Login
    logging: Logging
    tracing: Tracing
    prometheus: Prometheus
    confirmation: Confirmation
    approvals: Approvals
    fraud: Fraud
    scheduler: Scheduler
    limits: Limits
    webhook: Webhook

    @field_validator("secret_key", "earlier_secret_key")
    @classmethod
    def _strong_secret(cls, value: SecretStr | None) -> SecretStr | None:
        if value is None:
            return None
        secret = value.get_secret_value()
        if len(secret) < SECRET_KEY_LENGTH:
            raise ValueError(f"must have at least {SECRET_KEY_LENGTH} characters")
        if len(set(secret)) < SECRET_KEY_DISTINCT:
            raise ValueError("is too regular: use a random value")
        return value

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Let the environment win over the file, whose content arrives as init values."""
        del settings_cls, dotenv_settings, file_secret_settings
        return env_settings, init_settings


def _sentence(error: ValidationError, source: str) -> str:
    problems = []
    for item in error.errors(include_url=False, include_input=False, include_context=False):
        key = ".".join(str(part) for part in item["loc"]) or "the file"
        if item["type"] == "extra_forbidden":
            problems.append(f"{key} is not a known key")
        elif item["type"] == "missing":
            problems.append(f"{key} is missing")
        else:
            text = item["msg"].removeprefix("Value error, ")
            problems.append(f"{key}: {text[:1].lower()}{text[1:]}")
    return f"Configuration {source} is not usable: {'; '.join(problems)}."


def load_settings(path: str | Path | None = None) -> Settings:
    """Read and check the settings.

    Args:
        path: The TOML file; by default what ``BANK_CONFIG`` names, else ``/etc/bank/bank.toml``.

    Raises:
        ConfigError: With one sentence that names the file and the key.
    """
    source = Path(path or os.environ.get("BANK_CONFIG") or DEFAULT_PATH)
    try:
        with source.open("rb") as stream:
            values: dict[str, Any] = tomllib.load(stream)
    except OSError as error:
        raise ConfigError(f"Configuration {source} cannot be read: {error.strerror}.") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"Configuration {source} is not valid TOML: {error}.") from None
    for name, field in Settings.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, Section):
            values.setdefault(name, {})
    try:
        return Settings(**values)
    except ValidationError as error:
        raise ConfigError(_sentence(error, str(source))) from None
    except SettingsError as error:  # for instance a list in the environment that is not JSON
        raise ConfigError(f"Configuration {source} is not usable: {error}.") from None


def unreadable_files(settings: Settings) -> list[str]:
    """Return one sentence for each file that the settings name and this process cannot read."""
    named = {
        "database.ssl_root_certificate": settings.database.ssl_root_certificate,
        "redis.ca_certificate": settings.redis.ca_certificate,
        "server.certificate": settings.server.certificate,
        "server.private_key": settings.server.private_key,
        "server.client_ca_certificate": settings.server.client_ca_certificate,
        "tracing.ca_certificate": settings.tracing.ca_certificate,
        "prometheus.ca_certificate": settings.prometheus.ca_certificate,
    }
    problems = []
    for key, path in named.items():
        if path is None:
            continue
        try:
            with path.open("rb"):
                pass
        except OSError as error:
            problems.append(f"{key} names {path}, which cannot be read: {error.strerror}.")
    return problems
