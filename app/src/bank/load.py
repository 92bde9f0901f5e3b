"""A load generator: customers of the demonstration data who look at accounts and pay each other, within bounds.

Each customer has a thread, a connection that stays open, a session for pages and a token for the API.
"""

from __future__ import annotations

import html
import http.client
import ipaddress
import json
import random
import re
import socket
import ssl
import threading
import time
import uuid
from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode, urlsplit

from bank.services.seed import demo_email

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

TIMEOUT_SECONDS = 30
LARGEST_CENTS = 500
CURRENCY = "EUR"
# How often a customer does what: reading is most of what people do at a bank.
API_MIX = {"api accounts": 4, "api history": 4, "api transfer": 3}
PAGE_MIX = {"page accounts": 4, "page history": 3, "page transfer": 2}
_HIDDEN = re.compile(r'<input id="[^"]*" name="([^"]+)" type="hidden" value="([^"]*)"')
_SEAL = re.compile(r'name="seal" value="([^"]+)"')


class LoadError(Exception):
    """The load cannot be made; the text is one sentence for the operator."""


@dataclass(frozen=True)
class Plan:
    """What to do, and when to stop."""

    url: str
    password: str
    customers: int
    seconds: float
    requests: int
    pause_seconds: float = 0.5
    """Mean of the time between two actions of a customer."""
    api: bool = True
    pages: bool = True
    ca_certificate: Path | None = None
    seed: int = 1
    mix: dict[str, int] | None = None
    """Another mix than the usual one."""


@dataclass
class Operation:
    """What was measured of one kind of request, in seconds."""

    latencies: list[float] = field(default_factory=list)
    errors: int = 0

    def percentile(self, share: float) -> float:
        """Return the smallest latency that ``share`` of the requests did not exceed (nearest rank)."""
        if not self.latencies:
            return 0.0
        ordered = sorted(self.latencies)
        return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


@dataclass
class Report:
    """What a run led to."""

    seconds: float
    operations: dict[str, Operation]
    statuses: dict[str, int]

    @property
    def total(self) -> int:
        """Return how many requests were sent."""
        return sum(len(found.latencies) for found in self.operations.values())

    @property
    def errors(self) -> int:
        """Return how many of them failed."""
        return sum(found.errors for found in self.operations.values())


def require_private(url: str) -> None:
    """Refuse a host that the public could reach.

    Raises:
        LoadError: Its name has an address outside of loopback and private networks (RFC 1918, RFC 4193), or none.
    """
    parts = urlsplit(url)
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise LoadError(f"{url} is no http(s) address.")
    try:
        found = {item[4][0] for item in socket.getaddrinfo(parts.hostname, parts.port or 443)}
    except OSError as error:
        raise LoadError(f"{parts.hostname} has no address: {error.strerror or error}.") from None
    if outside := [text for text in sorted(map(str, found)) if not _is_private(text)]:
        raise LoadError(
            f"{parts.hostname} is {outside[0]}, which is neither loopback nor private; "
            "--yes-this-host says that the load may go there."
        )


def _is_private(text: str) -> bool:
    address = ipaddress.ip_address(text.partition("%")[0])
    return address.is_loopback or address.is_private


class _Run:
    """What the customers share: the end, the accounts that can be paid to, and what was measured."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.ends_at = time.monotonic() + plan.seconds
        self.operations: dict[str, Operation] = defaultdict(Operation)
        self.statuses: dict[str, int] = defaultdict(int)
        self.numbers: list[str] = []
        self.sent = 0
        self._lock = threading.Lock()

    def may_go_on(self) -> bool:
        with self._lock:
            return self.sent < self.plan.requests and time.monotonic() < self.ends_at

    def note(self, name: str, seconds: float, status: str, *, good: bool) -> None:
        with self._lock:
            self.sent += 1
            found = self.operations[name]
            found.latencies.append(seconds)
            found.errors += not good
            self.statuses[status] += 1


@dataclass(frozen=True)
class _Answer:
    status: int
    body: bytes
    cookies: dict[str, str]


class _Customer:
    """One customer with a connection."""

    def __init__(self, run: _Run, index: int) -> None:
        self._run = run
        self._email = demo_email(index)
        self._chance = random.Random(f"{run.plan.seed}:{index}")  # noqa: S311  (must repeat; nothing here is secret)
        parts = urlsplit(run.plan.url)
        self._host = parts.netloc
        self._origin = f"{parts.scheme}://{parts.netloc}"
        if parts.scheme == "https":
            context = ssl.create_default_context(cafile=run.plan.ca_certificate)
            self._connection: http.client.HTTPConnection = http.client.HTTPSConnection(
                self._host, timeout=TIMEOUT_SECONDS, context=context
            )
        else:
            self._connection = http.client.HTTPConnection(self._host, timeout=TIMEOUT_SECONDS)
        self._cookies: dict[str, str] = {}
        self._token = ""
        self._account = ""
        self._number = ""

    def work(self) -> None:
        plan = self._run.plan
        mix = plan.mix or ((API_MIX if plan.api else {}) | (PAGE_MIX if plan.pages else {}))
        actions: dict[str, Callable[[str], bool]] = {
            "api accounts": self._api_accounts,
            "api history": self._api_history,
            "api transfer": self._api_transfer,
            "page accounts": self._page_accounts,
            "page history": self._page_history,
            "page transfer": self._page_transfer,
        }
        while self._run.may_go_on():
            if not self._prepare(mix):
                time.sleep(1)
                continue
            name = self._chance.choices(list(mix), list(mix.values()))[0]
            if not actions[name](name):
                time.sleep(0.1)
            if plan.pause_seconds:
                time.sleep(min(self._chance.expovariate(1 / plan.pause_seconds), 10 * plan.pause_seconds))
        self._connection.close()

    def _prepare(self, mix: dict[str, int]) -> bool:
        """Log in where that is still to do, and learn the own account."""
        if any(name.startswith("api") for name in mix) and not self._token and not self._get_token():
            return False
        if any(name.startswith("page") for name in mix) and not self._cookies and not self._log_in():
            return False
        return bool(self._number) or (self._api_accounts("api accounts") if self._token else self._read_account())

    def _send(
        self, name: str, method: str, path: str, *, body: bytes | None, good: tuple[int, ...], more: dict[str, str]
    ) -> _Answer | None:
        """Send one request and measure it; None: there was no answer."""
        headers = {"User-Agent": "bank-load", "Referer": f"{self._origin}/"} | more
        started = time.perf_counter()
        try:
            self._connection.request(method, path, body, headers)
            response = self._connection.getresponse()
            content = response.read()
        except (OSError, http.client.HTTPException) as error:
            self._connection.close()
            self._run.note(name, time.perf_counter() - started, type(error).__name__, good=False)
            return None
        seconds = time.perf_counter() - started
        self._run.note(name, seconds, str(response.status), good=response.status in good)
        cookies = dict(
            text.partition(";")[0].partition("=")[::2] for text in response.headers.get_all("Set-Cookie") or []
        )
        return _Answer(response.status, content, cookies)

    # With the API

    def _get_token(self) -> bool:
        wanted = {
            "email": self._email,
            "password": self._run.plan.password,
            "scopes": ["accounts:read", "transfers:write"],
        }
        found = self._api("api log-in", "POST", "/api/v1/token", wanted, good=(201,))
        if found is not None:
            self._token = str(found["access_token"])
        return found is not None

    def _api(
        self, name: str, method: str, path: str, body: object = None, *, good: tuple[int, ...] = (200,), key: str = ""
    ) -> dict[str, Any] | None:
        more = {"Idempotency-Key": f'"{key}"'} if key else {}
        if self._token:
            more["Authorization"] = f"Bearer {self._token}"
        content = None
        if body is not None:
            content, more["Content-Type"] = json.dumps(body).encode(), "application/json"
        answer = self._send(name, method, path, body=content, good=good, more=more)
        if answer is not None and answer.status == http.client.UNAUTHORIZED:
            self._token = ""
        if answer is None or answer.status not in good:
            return None
        found: dict[str, Any] = json.loads(answer.body)
        return found

    def _api_accounts(self, name: str) -> bool:
        found = self._api(name, "GET", "/api/v1/accounts")
        if found is None:
            return False
        items = found["items"]
        account = (
            next((item for item in items if item["currency"] == CURRENCY), None) if isinstance(items, list) else None
        )
        if account and not self._number:
            self._learn(account["id"], account["number"])
        return account is not None

    def _learn(self, account: str, number: str) -> None:
        self._account, self._number = account, number
        self._run.numbers.append(number)

    def _payee(self) -> str | None:
        others = [number for number in self._run.numbers if number != self._number]
        return self._chance.choice(others) if others else None

    def _api_history(self, name: str) -> bool:
        return self._api(name, "GET", f"/api/v1/accounts/{self._account}/history?limit=25") is not None

    def _api_transfer(self, name: str) -> bool:
        payee = self._payee()
        if payee is None:
            return True
        order = {
            "from_account": self._account,
            "to_number": payee,
            "amount_minor": self._chance.randint(1, LARGEST_CENTS),
            "currency": CURRENCY,
            "reference": "load",
        }
        key = str(uuid.uuid4())
        # Whoever got no answer sends the same again: the key makes that safe.
        return any(self._api(name, "POST", "/api/v1/transfers", order, good=(201, 202), key=key) for _ in range(2))

    # With pages

    def _page(
        self, name: str, method: str, path: str, form: dict[str, str] | None = None, good: int = 200
    ) -> str | None:
        more = {"Cookie": "; ".join(f"{key}={value}" for key, value in self._cookies.items())} if self._cookies else {}
        body = None
        if form is not None:
            body, more["Content-Type"] = urlencode(form).encode(), "application/x-www-form-urlencoded"
        answer = self._send(name, method, path, body=body, good=(good,), more=more)
        if answer is None:
            return None
        self._cookies |= answer.cookies
        if answer.status in {http.client.FOUND, http.client.UNAUTHORIZED}:
            self._cookies = {}  # the session has ended
        return answer.body.decode(errors="replace") if answer.status == good else None

    def _form(self, name: str, path: str) -> dict[str, str] | None:
        page = self._page(name, "GET", path)
        if page is None:
            return None
        main = page[max(0, page.find("<main")) :]
        return {key: html.unescape(value) for key, value in _HIDDEN.findall(main)}

    def _log_in(self) -> bool:
        fields = self._form("page log-in", "/login")
        if fields is None:
            return False
        fields |= {"email": self._email, "password": self._run.plan.password}
        return self._page("page log-in", "POST", "/login", fields, good=303) is not None

    def _page_accounts(self, name: str) -> bool:
        return self._page(name, "GET", "/accounts") is not None

    def _page_history(self, name: str) -> bool:
        return self._page(name, "GET", f"/accounts/{self._account}") is not None

    def _read_account(self) -> bool:
        """Learn the account and its number from the pages."""
        page = self._page("page accounts", "GET", "/accounts") or ""
        accounts = re.findall(r'href="/accounts/([0-9a-f-]{36})"', page)
        if not accounts:
            return False
        detail = self._page("page history", "GET", f"/accounts/{accounts[0]}") or ""
        number = re.search(r"BK\d\d(?: ?\d{4}){4}", detail)
        if number:
            self._learn(accounts[0], number[0].replace(" ", ""))
        return number is not None

    def _page_transfer(self, name: str) -> bool:
        payee = self._payee()
        fields = self._form(name, "/transfer") if payee else None
        if payee is None or fields is None:
            return payee is None
        cents = self._chance.randint(1, LARGEST_CENTS)
        fields |= {
            "from_account": self._account,
            "to_number": payee,
            "amount": f"{cents // 100}.{cents % 100:02d}",
            "reference": "load",
        }
        # The payee is new to this customer, so the bank asks for the password beside what it shows.
        page = self._page(name, "POST", "/transfer/review", fields)
        if page is None:
            return False
        seal = _SEAL.search(page)
        fields |= {"seal": seal[1] if seal else "", "password": self._run.plan.password}
        return self._page(name, "POST", "/transfer", fields, good=303) is not None


def run(plan: Plan, on_progress: Callable[[int, float], None] = lambda _sent, _seconds: None) -> Report:
    """Make the load.

    Args:
        plan: What to do.
        on_progress: Called some times a second with the requests sent and the seconds gone.
    """
    shared = _Run(plan)
    started = time.monotonic()
    threads = [
        threading.Thread(target=_Customer(shared, index).work, daemon=True) for index in range(1, plan.customers + 1)
    ]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        threads[0].join(0.2)
        if not threads[0].is_alive():
            time.sleep(0.05)
        on_progress(shared.sent, min(plan.seconds, time.monotonic() - started))
    return Report(time.monotonic() - started, dict(shared.operations), dict(shared.statuses))


def table(report: Report) -> str:
    """Return the report as text for people; times in milliseconds."""
    lines = [f"{'operation':<16}{'count':>8}{'errors':>8}{'per s':>9}{'p50 ms':>9}{'p95 ms':>9}{'p99 ms':>9}"]
    for name, found in sorted(report.operations.items()):
        times = "".join(f"{found.percentile(share) * 1000:>9.1f}" for share in (0.5, 0.95, 0.99))
        rate = len(found.latencies) / report.seconds
        lines.append(f"{name:<16}{len(found.latencies):>8}{found.errors:>8}{rate:>9.1f}{times}")
    statuses = ", ".join(f"{status}: {count}" for status, count in sorted(report.statuses.items()))
    lines.append(
        f"{report.total} requests in {report.seconds:.1f} s, {report.errors} errors. Answers: {statuses or 'none'}"
    )
    return "\n".join(lines)
