"""Measure the bank application beside what bounds it: the same SQL by pgbench, and a bare Flask route.

Usage: python -m benchmarks.app [--seconds 10] [--sizes 10000 100000 ...] [--url URL --ca FILE] [--output FILE]

Needs the application's virtual environment (app/README.md) and the machine's PostgreSQL and Redis. Everything runs
on loopback, without TLS and without HAProxy; with --url, only the requests are made, against a bank that runs
elsewhere and has demonstration data, with the password in BANK_DEMO_PASSWORD.
"""

import argparse
import http.client
import json
import os
import re
import shutil
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

from bank import account_numbers
from bank.config import Settings, load_settings
from bank.database import make_engine
from bank.keys import Keyring
from bank.load import Operation
from bank.services import ledger, reconcile, schema, screening
from bank.services.seed import demo_email
from bank.services.tokens import Tokens
from flask import Flask, Response
from sqlalchemy import Engine, text

PROJECT = Path(__file__).parents[1]
sys.path.insert(0, str(PROJECT / "app" / "tests"))

import throwaway  # noqa: E402  (part of the application's tests)

ACCOUNTS = 200
CONNECTIONS = (1, 16)
WARM_UP_SECONDS = 2
SERVER = "workers = 2\nthreads = 4"
# The generator shares the cores, so its limits must not be what is measured.
LIMITS = "[limits]\nreads_per_minute = 100000000\nwrites_per_minute = 100000000\n"
BALANCE = 10**15
# Postings in the ledger at most while the bank is compared with pgbench, so that both work from memory.
COMPARED_AT = 1_000_000
TICK = os.sysconf("SC_CLK_TCK")


@dataclass
class Figure:
    """What one measurement gave; latencies in milliseconds, processor time in milliseconds for each request."""

    name: str
    connections: int
    per_second: float
    p50: float
    p95: float
    p99: float
    errors: int
    worker_cpu: float | None = None
    worker_mebibytes: float | None = None


def bare() -> Flask:
    """Make the application with one route that does nothing, for gunicorn."""
    app = Flask("bare")
    app.add_url_rule(
        "/bare", "bare", lambda: Response('{"status":"done"}', content_type="application/json"), methods=["POST"]
    )
    return app


# Requests


class Connection:
    """A connection that stays open; sends what it is given and reads answers that state their length."""

    def __init__(self, url: str, ca: str | None) -> None:
        """Connect to the host of the URL."""
        parts = urlsplit(url)
        self.host = parts.netloc
        self._socket: socket.socket = socket.create_connection((parts.hostname, parts.port or 443), 30)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if parts.scheme == "https":
            context = ssl.create_default_context(cafile=ca)
            self._socket = context.wrap_socket(self._socket, server_hostname=parts.hostname)

    def exchange(self, request: bytes) -> int:
        """Send a request and return the status of its answer."""
        self._socket.sendall(request)
        received = self._socket.recv(65536)
        while b"\r\n\r\n" not in received:
            received += self._more()
        head, _, body = received.partition(b"\r\n\r\n")
        length = int(re.search(rb"(?i)content-length: (\d+)", head)[1])
        while len(body) < length:
            body += self._more()
        return int(head[9:12])

    def _more(self) -> bytes:
        found = self._socket.recv(65536)
        if not found:
            raise ConnectionError
        return found


def request_of(method: str, host: str, path: str, token: str = "", body: object = None, key: str = "") -> bytes:
    """Return a request as bytes."""
    content = b"" if body is None else json.dumps(body).encode()
    lines = [f"{method} {path} HTTP/1.1", f"Host: {host}", f"Content-Length: {len(content)}"]
    lines += [f"Authorization: Bearer {token}"] if token else []
    lines += ["Content-Type: application/json"] if content else []
    lines += [f'Idempotency-Key: "{key}"'] if key else []
    return "\r\n".join([*lines, "", ""]).encode() + content


def hammer(
    name: str,
    url: str,
    connections: int,
    make: Callable[[int, int, str], bytes],
    good: int,
    ca: str | None = None,
    seconds: float | None = None,
) -> Figure:
    """Send requests one after the other on each connection; ``make`` gives the nth request of a connection."""
    found = Operation()
    lock = threading.Lock()
    ends_at = time.monotonic() + (seconds or SECONDS)

    def work(index: int) -> None:
        connection = Connection(url, ca)
        latencies, errors, number = [], 0, 0
        while time.monotonic() < ends_at:
            request = make(index, number, connection.host)
            number += 1
            started = time.perf_counter()
            try:
                errors += connection.exchange(request) != good
            except OSError:
                errors += 1
                connection = Connection(url, ca)
            latencies.append(time.perf_counter() - started)
        with lock:
            found.latencies += latencies
            found.errors += errors

    threads = [threading.Thread(target=work, args=(index,)) for index in range(connections)]
    started = time.monotonic()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    rate = (len(found.latencies) - found.errors) / (time.monotonic() - started)
    p50, p95, p99 = (round(found.percentile(share) * 1000, 1) for share in (0.5, 0.95, 0.99))
    return Figure(name, connections, round(rate, 1), p50, p95, p99, found.errors)


@dataclass
class Customer:
    """Somebody who reads and pays."""

    token: str
    account: str
    number: str


def transfer_by(customers: list[Customer]) -> Callable[[int, int, str], bytes]:
    """Return what makes transfers between customers."""

    def make(index: int, number: int, host: str) -> bytes:
        payer = customers[(index * 7 + number) % len(customers)]
        payee = customers[(index * 7 + number * 3 + 1) % len(customers)]
        if payee is payer:
            payee = customers[(index * 7 + number + 1) % len(customers)]
        order = {
            "from_account": payer.account,
            "to_number": payee.number,
            "amount_minor": 1 + number % 500,
            "currency": "EUR",
            "reference": "benchmark",
        }
        return request_of("POST", host, "/api/v1/transfers", payer.token, order, str(uuid.uuid4()))

    return make


def history_by(customers: list[Customer]) -> Callable[[int, int, str], bytes]:
    """Return what reads histories."""

    def make(index: int, number: int, host: str) -> bytes:
        customer = customers[(index * 7 + number) % len(customers)]
        return request_of("GET", host, f"/api/v1/accounts/{customer.account}/history?limit=25", customer.token)

    return make


# Servers


@contextmanager
def instance(
    servers: throwaway.Servers,
    folder: Path,
    more: str = "",
    application: str = "bank.wsgi:application",
    level: str = "info",
) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """Run gunicorn as a host does; give its address and process."""
    port = throwaway.free_port()
    configuration = throwaway.configuration_text(servers, log=str(folder / "bank.json"), more=LIMITS + more)
    configuration = configuration.replace("[logging]\n", f'[logging]\nlevel = "{level}"\n').replace(
        "pool_size = 30", "pool_size = 5"
    )
    path = folder / f"{port}.toml"
    path.write_text(f"{configuration}\n[server]\nport = {port}\n{SERVER}\n", encoding="utf-8")
    environment = {
        **os.environ,
        "BANK_CONFIG": str(path),
        "PROMETHEUS_MULTIPROC_DIR": str(folder / f"{port}.metrics"),
        "PYTHONPATH": f"{PROJECT / 'app' / 'src'}{os.pathsep}{PROJECT}",
    }
    command = [sys.executable, "-m", "gunicorn", "--config", "python:bank.gunicorn_config", application]
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.STDOUT)
    try:
        throwaway.await_port(port)
        time.sleep(2)  # both workers
        yield f"http://127.0.0.1:{port}", process
    finally:
        throwaway.stop(process, 15)


def children(process: subprocess.Popen[bytes]) -> list[int]:
    """Return the ids of the workers."""
    found = subprocess.run(["pgrep", "-P", str(process.pid)], capture_output=True, text=True, check=True)
    return [int(line) for line in found.stdout.split()]


def cpu_seconds(pids: list[int]) -> float:
    """Return the processor time that processes have used."""
    total = 0
    for pid in pids:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
        total += int(fields[11]) + int(fields[12])
    return total / TICK


def mebibytes(pid: int) -> float:
    """Return the memory of a process, shared pages divided by those who share them (PSS)."""
    rollup = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii")
    return int(re.search(r"^Pss:\s+(\d+)", rollup, re.MULTILINE)[1]) / 1024


def with_processor_time(process: subprocess.Popen[bytes], measure: Callable[[], Figure]) -> Figure:
    """Add to a figure what it cost the workers, which stays true on a machine that others use as well."""
    workers = children(process)
    before = cpu_seconds(workers)
    figure = measure()
    done = figure.per_second * SECONDS
    figure.worker_cpu = round((cpu_seconds(workers) - before) * 1000 / max(1, done), 2)
    figure.worker_mebibytes = round(max(map(mebibytes, workers)), 1)
    return figure


SECONDS = 10.0


def make_customers(owner: Engine, settings: Settings) -> list[Customer]:
    """Make accounts with plenty of money, through the ledger's own triggers."""
    tokens = Tokens(None, Keyring.of(settings), 3600)  # type: ignore[arg-type]  (issues only)
    found = []
    with owner.begin() as connection:
        for index in range(1, ACCOUNTS + 1):
            user, account = uuid.UUID(int=index), uuid.UUID(int=index + 2**64)
            number = account_numbers.make(10**15 + index)
            values = {"user": user, "email": f"b{index}@benchmark.local", "account": account, "number": number}
            connection.execute(
                text("INSERT INTO users (id, email, display_name, password_hash) VALUES (:user, :email, 'Bench', '-')"),
                values,
            )
            connection.execute(
                text("INSERT INTO accounts (id, owner_id, number, name, kind, currency) "
                     "VALUES (:account, :user, :number, 'Bench', 'checking', 'EUR')"), values
            )  # fmt: skip
            connection.execute(text("INSERT INTO balances (account_id) VALUES (:account)"), values)
            entry = {"entry": uuid.uuid4(), "account": account, "amount": BALANCE, "bank": ledger.SETTLEMENT["EUR"]}
            connection.execute(
                text("INSERT INTO journal_entries (id, kind, currency) VALUES (:entry, 'opening', 'EUR')"), entry
            )
            connection.execute(
                text("INSERT INTO postings (entry_id, account_id, amount_minor) "
                     "VALUES (:entry, :account, :amount), (:entry, :bank, -:amount)"), entry
            )  # fmt: skip
            found.append(Customer(tokens.issue(user, 0, ["accounts:read", "transfers:write"]), str(account), number))
    return found


# Written without the triggers, but so that balances, versions and sums are what the triggers would have made.
_FILL = text("""
WITH pair AS MATERIALIZED (
    SELECT gen_random_uuid() AS entry_id, n % :accounts AS payer,
           (n + 1 + n / :accounts % (:accounts - 1)) % :accounts AS payee
      FROM generate_series(0, :entries - 1) n),
kept AS (SELECT * FROM pair WHERE payer <> payee),
entries AS (INSERT INTO journal_entries (id, kind, currency, reference)
            SELECT entry_id, 'transfer', 'EUR', 'history' FROM kept),
legs AS (SELECT entry_id, payer AS who, -1 AS amount FROM kept UNION ALL SELECT entry_id, payee, 1 FROM kept),
numbered AS (
    SELECT l.entry_id, b.account_id, l.amount,
           b.version + row_number() OVER w AS version, b.balance_minor + sum(l.amount) OVER w AS balance
      FROM legs l
      JOIN balances b ON b.account_id = CAST('00000000-0000-0001-' || lpad(to_hex(l.who + 1), 16, '0') AS uuid)
    WINDOW w AS (PARTITION BY l.who ORDER BY l.entry_id, l.amount))
INSERT INTO postings (entry_id, account_id, amount_minor, balance_after_minor, version)
SELECT entry_id, account_id, amount, balance, version FROM numbered
""")
_SETTLE = text("""
UPDATE balances b SET version = last.version, balance_minor = last.balance_after_minor
  FROM (SELECT DISTINCT ON (account_id) account_id, version, balance_after_minor FROM postings
         ORDER BY account_id, version DESC) last
 WHERE last.account_id = b.account_id AND b.version <> last.version
""")


def grow(superuser: Engine, size: int) -> None:
    """Bring the number of postings to ``size``."""
    with superuser.begin() as connection:
        connection.execute(text("SET LOCAL session_replication_role = replica"))
        connection.execute(text("SET LOCAL work_mem = '256MB'"))
        have = connection.execute(text("SELECT count(*) FROM postings")).scalar_one()
        if have < size:
            connection.execute(_FILL, {"entries": (size - have) // 2, "accounts": ACCOUNTS})
            connection.execute(_SETTLE)
    with superuser.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("VACUUM ANALYZE"))


def pgbench(servers: throwaway.Servers, folder: Path, connections: int) -> Figure:
    """Run the transaction of a transfer by itself, as the application's role."""
    who = {"user_id": r"('00000000-0000-0000-0000-' || lpad(to_hex(:a::bigint), 12, '0'))::uuid"}
    account = r"('00000000-0000-0001-0000-' || lpad(to_hex({}::bigint), 12, '0'))::uuid"
    debit, credit = account.format(":a"), account.format(":b")
    key = r"('00000000-0000-4000-8000-' || lpad(to_hex(:key::bigint), 12, '0'))"
    values = {
        **who, "key": key, "fingerprint": "repeat('f', 64)", "entry_id": f"{key}::uuid", "approval_id": "NULL::uuid",
        "hold_id": "NULL::uuid", "standing_order_id": "NULL::uuid",
        "ids": f"ARRAY[{debit}, {credit}]", "numbers": "ARRAY[]::text[]", "id": f"{key}::uuid",
        "kind": "'transfer'", "currency": "'EUR'", "reference": "'benchmark'", "counterparty": "''",
        "counterparty_number": "''", "reverses_id": "NULL::uuid", "created_by": who["user_id"], "debit": debit,
        "credit": credit, "amount": "1", "account": debit, "payee": f"{credit}::text", "judged_user": who["user_id"],
        "judged_kind": "'transfer'", "judged_amount": "1", "judged_currency": "'EUR'",
        "judged_payee": f"{credit}::text", "judged_entry": f"{key}::uuid", "judged_approval": "NULL::uuid",
        "score": "15", "decision": "'allowed'", "rules": "'1'", "indicators": "'{}'", "inputs": "'{}'",
    }  # fmt: skip

    def filled(statement: str) -> str:
        return " ".join(re.sub(r"(?<!:):([a-z_]+)\b", lambda found: values[found[1]], statement).split()) + ";"

    script = folder / "transfer.sql"
    script.write_text(
        f"\\set a random(1, {ACCOUNTS})\n\\set b 1 + (:a + random(0, {ACCOUNTS - 2})) % {ACCOUNTS}\n"
        f"\\set key random(1, {2**47})\nBEGIN;\n{filled(ledger.CLAIM_AND_LOCK.text)}\n{filled(screening.KNOWN.text)}\n"
        f"{filled(screening.BOOK_JUDGED.text)}\nCOMMIT;\n",
        encoding="utf-8",
    )
    logs = folder / f"pgbench-{connections}"
    logs.mkdir()
    subprocess.run(
        ["pgbench", "-n", "-M", "prepared", "-f", str(script), "-c", str(connections), "-j", str(min(2, connections)),
         "-T", str(int(SECONDS)), "-l", "-h", "127.0.0.1", "-p", str(servers.postgres_port), "-U", "bank_app", "bank"],
        env={**os.environ, "PGPASSWORD": servers.app_password, "PGSSLMODE": "disable"},
        check=True, capture_output=True, cwd=logs,
    )  # fmt: skip
    latencies = [int(line.split()[2]) / 1e6 for file in logs.iterdir() for line in file.read_text().splitlines()]
    shutil.rmtree(logs)
    found = Operation(latencies=latencies)
    p50, p95, p99 = (round(found.percentile(share) * 1000, 1) for share in (0.5, 0.95, 0.99))
    return Figure("the same SQL by pgbench", connections, round(len(latencies) / SECONDS, 1), p50, p95, p99, 0)


class Intake(BaseHTTPRequestHandler):
    """Takes traces and forgets them."""

    def do_GET(self) -> None:
        """Say which server this is."""
        self._answer(b'{"version": "8.14.3"}')

    def do_POST(self) -> None:
        """Take what is sent."""
        if "chunked" in self.headers.get("Transfer-Encoding", ""):
            while size := int(self.rfile.readline(), 16):
                self.rfile.read(size + 2)
            self.rfile.readline()
        else:
            self.rfile.read(int(self.headers.get("Content-Length", "0")))
        self._answer(b"")

    def _answer(self, body: bytes) -> None:
        self.send_response(202)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


# The whole


def measure_here(sizes: list[int]) -> dict[str, object]:
    """Measure everything on loopback."""
    folder = Path(tempfile.mkdtemp(prefix="bank-benchmark-"))
    figures: list[Figure] = []
    growth: list[dict[str, object]] = []

    def keep(figure: Figure) -> None:
        figures.append(figure)
        print(figure, flush=True)

    def api(
        name: str, url: str, process: subprocess.Popen[bytes], make: Callable[..., bytes], good: int, count: int
    ) -> Figure:
        # Workers open their connections and finish importing with their first requests.
        hammer(name, url, 16, make, good, seconds=WARM_UP_SECONDS)
        return with_processor_time(process, lambda: hammer(name, url, count, make, good))

    try:
        pki = folder / "pki"
        pki.mkdir()
        with throwaway.running(throwaway.make_pki(pki)) as servers:
            path = folder / "bank.toml"
            path.write_text(throwaway.configuration_text(servers), encoding="utf-8")
            settings = load_settings(path)
            as_owner = settings.database.model_copy(
                update={"user": "bank_owner", "password": type(settings.secret_key)(servers.owner_password)}
            )
            owner = make_engine(settings.model_copy(update={"database": as_owner}), statement_ms=0)
            schema.migrate(owner, "bank_app")
            customers = make_customers(owner, settings)
            superuser = throwaway.superuser_engine(servers)
            transfers, histories = transfer_by(customers), history_by(customers)

            def curve(some: list[int]) -> None:
                for size in some:
                    grow(superuser, size)
                    with instance(servers, folder) as (url, process):
                        moved = api(f"transfers after {size} postings", url, process, transfers, 201, 16)
                        read = api(f"histories after {size} postings", url, process, histories, 200, 16)
                    print(moved, read, sep="\n", flush=True)
                    growth.append({"postings": size, "transfers": asdict(moved), "histories": asdict(read)})

            curve([size for size in sizes if size <= COMPARED_AT])
            for count in CONNECTIONS:
                keep(pgbench(servers, folder, count))
            with instance(servers, folder, application="benchmarks.app:bare()") as (url, process):
                for count in CONNECTIONS:
                    make = lambda _i, _n, host: request_of("POST", host, "/bare", body={})  # noqa: E731
                    keep(api("a bare Flask route", url, process, make, 200, count))
            with instance(servers, folder) as (url, process):
                for count in CONNECTIONS:
                    keep(api("transfers, logs and metrics", url, process, transfers, 201, count))
                    keep(api("histories, logs and metrics", url, process, histories, 200, count))
            with instance(servers, folder, level="error") as (url, process):
                keep(api("transfers, no log lines", url, process, transfers, 201, 16))
            with ThreadingHTTPServer(("127.0.0.1", 0), Intake) as intake:
                threading.Thread(target=intake.serve_forever, daemon=True).start()
                for rate in (0.1, 1.0):
                    more = f'[tracing]\nbackend = "elastic"\nserver_url = "http://127.0.0.1:{intake.server_port}"\n'
                    with instance(servers, folder, f"{more}sample_rate = {rate}\n") as (url, process):
                        keep(api(f"transfers, traces of {rate:.0%}", url, process, transfers, 201, 16))
                intake.shutdown()
            curve([size for size in sizes if size > COMPARED_AT])
            if found := reconcile.reconcile(owner).count:
                sys.exit(f"The ledger does not add up in {found} places, so these figures are worth nothing.")
            owner.dispose()
            superuser.dispose()
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return {"growth": growth, "figures": [asdict(figure) for figure in figures]}


def measure_there(url: str, ca: str | None) -> dict[str, object]:
    """Measure a bank that runs elsewhere, through whatever is in front of it."""
    from bank.load import require_private

    require_private(url)
    customers = []
    for index in range(1, 17):
        connection = http.client.HTTPSConnection(urlsplit(url).netloc, context=ssl.create_default_context(cafile=ca))
        body = {
            "email": demo_email(index),
            "password": os.environ["BANK_DEMO_PASSWORD"],
            "scopes": ["accounts:read", "transfers:write"],
        }
        connection.request("POST", "/api/v1/token", json.dumps(body), {"Content-Type": "application/json"})
        answer = json.loads(connection.getresponse().read())
        if "access_token" not in answer:
            sys.exit(
                f"{demo_email(index)} gets no token: {answer.get('detail')} The site's [limits] must allow 16 log-ins."
            )
        token = answer["access_token"]
        connection.request("GET", "/api/v1/accounts", headers={"Authorization": f"Bearer {token}"})
        account = json.loads(connection.getresponse().read())["items"][0]
        customers.append(Customer(token, account["id"], account["number"]))
    figures = []
    for count in CONNECTIONS:
        figures.append(hammer("transfers", url, count, transfer_by(customers), 201, ca))
        figures.append(hammer("histories", url, count, history_by(customers), 200, ca))
        print(*figures[-2:], sep="\n", flush=True)
    return {"url": url, "figures": [asdict(figure) for figure in figures]}


def main() -> None:
    """Measure, and write the figures."""
    global SECONDS
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=SECONDS, help="of each measurement")
    parser.add_argument(
        "--sizes", type=int, nargs="+", default=[10_000, 100_000, 1_000_000, 5_000_000], help="postings"
    )
    parser.add_argument("--url", help="measure this site only, for instance the lab's load balancer")
    parser.add_argument("--ca", help="certificate authority of the site")
    parser.add_argument("--output", type=Path, default=PROJECT / "benchmarks" / "app.json")
    arguments = parser.parse_args()
    SECONDS = arguments.seconds
    started = os.getloadavg()[0]
    result = measure_there(arguments.url, arguments.ca) if arguments.url else measure_here(arguments.sizes)
    result = {"cores": os.cpu_count(), "load_before": round(started, 1), "seconds": SECONDS, **result}
    arguments.output.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
