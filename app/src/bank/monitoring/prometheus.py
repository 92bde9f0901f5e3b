"""Questions to Prometheus' HTTP API: over TLS that is verified, within a time limit, and nothing believed unread."""

from __future__ import annotations

import base64
import http.client
import json
import ssl
import time
from dataclasses import dataclass
from datetime import datetime  # noqa: TC003  (pydantic reads it)
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Literal, Self, TypeVar
from urllib.parse import urlencode, urlsplit

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError

if TYPE_CHECKING:
    from types import TracebackType

    from bank.config import Prometheus

# What 300 hosts answer is a tenth of this.
MAX_ANSWER_BYTES = 8 * 1024 * 1024
CHUNK_BYTES = 64 * 1024
DETAIL_LENGTH = 300
OK, UNAUTHORIZED, FORBIDDEN, UNAVAILABLE = 200, 401, 403, 503


class Trouble(StrEnum):
    """Why there is no answer, as far as the next step differs."""

    UNREACHABLE = "unreachable"
    UNTRUSTED = "untrusted"
    REFUSED = "refused"
    SLOW = "slow"
    STARTING = "starting"
    STRANGE = "strange"


@dataclass(frozen=True)
class Failure:
    """What is wrong with a server; ``detail`` is for the reader, and from outside."""

    trouble: Trouble
    url: str
    detail: str = ""


class PrometheusError(Exception):
    """A server gave no answer that can be used."""

    def __init__(self, trouble: Trouble, url: str, detail: str = "") -> None:
        self.failure = Failure(trouble, url, " ".join(detail.split())[:DETAIL_LENGTH])
        super().__init__(f"{url}: {trouble}: {self.failure.detail}")


class Received(BaseModel):
    """What is read of the API's format; later versions of Prometheus may add more."""

    model_config = ConfigDict(extra="ignore", frozen=True, hide_input_in_errors=True)


class Sample(Received):
    """A series' labels, its name among them, and its value at a moment."""

    metric: dict[str, str]
    point: Annotated[tuple[float, float], Field(alias="value")]

    @property
    def value(self) -> float:
        """Return the value, which may be infinite or no number."""
        return self.point[1]


class RuleAlert(Received):
    """An alert that a rule raised."""

    labels: dict[str, str]
    annotations: dict[str, str] = {}
    state: str
    active_at: Annotated[AwareDatetime | None, Field(alias="activeAt")] = None

    @property
    def since(self) -> datetime | None:
        """Return since when what the rule looks for has been so."""
        return self.active_at


class _Vector(Received):
    kind: Annotated[Literal["vector"], Field(alias="resultType")]
    result: list[Sample]


class _Alerts(Received):
    alerts: list[RuleAlert]


class _VectorAnswer(Received):
    status: Literal["success"]
    data: _Vector


class _AlertsAnswer(Received):
    status: Literal["success"]
    data: _Alerts


Answer = TypeVar("Answer", _VectorAnswer, _AlertsAnswer)


class Server:
    """One Prometheus, asked over one connection that must be done with before a deadline."""

    def __init__(self, url: str, options: Prometheus, deadline: float) -> None:
        """Prepare the connection; it is opened by the first question.

        Args:
            url: Base address of the server.
            options: Log-in and authority.
            deadline: Until when, on the monotonic clock.

        Raises:
            PrometheusError: The authority's certificate cannot be used.
        """
        self._url, self._deadline = url, deadline
        parts = urlsplit(url)
        self._path = parts.path.rstrip("/")
        self._headers = {"Accept": "application/json", "User-Agent": "bank"}
        if options.user:
            log_in = f"{options.user}:{options.password.get_secret_value()}".encode()
            self._headers["Authorization"] = f"Basic {base64.b64encode(log_in).decode()}"
        try:
            context = ssl.create_default_context(cafile=options.ca_certificate)
        except (OSError, ssl.SSLError) as error:
            raise PrometheusError(Trouble.UNTRUSTED, url, f"{options.ca_certificate}: {error}") from None
        self._connection = http.client.HTTPSConnection(
            parts.hostname or "", parts.port or 443, timeout=self._left(), context=context
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        del kind, error, trace
        self._connection.close()

    def query(self, expression: str) -> list[Sample]:
        """Return what an expression gives now.

        Raises:
            PrometheusError: There is no answer that can be used.
        """
        return self._ask("query", _VectorAnswer, query=expression).data.result

    def alerts(self) -> list[RuleAlert]:
        """Return the alerts that rules raised, those that only may fire included.

        Raises:
            PrometheusError: There is no answer that can be used.
        """
        return self._ask("alerts", _AlertsAnswer).data.alerts

    def _ask(self, name: str, shape: type[Answer], **parameters: str) -> Answer:
        status, body = self._get(f"{self._path}/api/v1/{name}{'?' if parameters else ''}{urlencode(parameters)}")
        if status in {UNAUTHORIZED, FORBIDDEN}:
            raise PrometheusError(Trouble.REFUSED, self._url)
        if status == UNAVAILABLE:
            raise PrometheusError(Trouble.STARTING, self._url)
        if status != OK:
            raise PrometheusError(Trouble.STRANGE, self._url, f"HTTP {status} {_complaint(body)}")
        try:
            return shape.model_validate_json(body)
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False, include_context=False)[0]
            where = ".".join(str(part) for part in first["loc"])
            raise PrometheusError(Trouble.STRANGE, self._url, f"{where} {first['msg']}") from None

    def _get(self, path: str) -> tuple[int, bytes]:
        try:
            self._connection.timeout = self._left()
            if self._connection.sock is not None:
                self._connection.sock.settimeout(self._connection.timeout)
            self._connection.request("GET", path, headers=self._headers)
            answer = self._connection.getresponse()
            return answer.status, self._read(answer)
        except TimeoutError:
            raise PrometheusError(Trouble.SLOW, self._url) from None
        except (ssl.SSLEOFError, ssl.SSLZeroReturnError) as error:
            # Whoever hangs up before the handshake is over has proven nothing, right or wrong.
            raise PrometheusError(Trouble.UNREACHABLE, self._url, error.strerror or str(error)) from None
        except ssl.SSLError as error:
            reason = getattr(error, "verify_message", None) or error.reason or str(error)
            raise PrometheusError(Trouble.UNTRUSTED, self._url, reason) from None
        except OSError as error:
            raise PrometheusError(Trouble.UNREACHABLE, self._url, error.strerror or str(error)) from None
        except (http.client.HTTPException, UnicodeError) as error:
            raise PrometheusError(Trouble.STRANGE, self._url, f"{type(error).__name__} {error}") from None

    def _read(self, answer: http.client.HTTPResponse) -> bytes:
        """Read an answer piece by piece, so that one that trickles does not outlast the deadline."""
        body = bytearray()
        while chunk := answer.read1(CHUNK_BYTES):
            body += chunk
            if len(body) > MAX_ANSWER_BYTES:
                raise PrometheusError(Trouble.STRANGE, self._url, f"more than {MAX_ANSWER_BYTES} bytes")
            left = self._left()
            # An answer that ends the connection has taken the socket with it.
            if self._connection.sock is not None:
                self._connection.sock.settimeout(left)
        # Reading piece by piece does not tell the connection that the next question may come.
        answer.close()
        return bytes(body)

    def _left(self) -> float:
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise PrometheusError(Trouble.SLOW, self._url)
        return left


def _complaint(body: bytes) -> str:
    """Return what Prometheus says about a question that it does not answer."""
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        return ""
    return str(found.get("error", "")) if isinstance(found, dict) else ""
