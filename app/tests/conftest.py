"""Real servers for the tests: a throw-away PostgreSQL and Redis, started from the machine's own packages."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from dataclasses import dataclass
from pathlib import Path

import psycopg
import pytest
from sqlalchemy import create_engine, insert, select, text

# Metrics stay in this process, whatever the shell that started the tests has set.
os.environ.pop("PROMETHEUS_MULTIPROC_DIR", None)
for _name in [name for name in os.environ if name.startswith("BANK_")]:
    del os.environ[_name]

from bank import account_numbers
from bank.app import create_app
from bank.config import Settings, load_settings
from bank.database import make_engine
from bank.models import Account, Balance, JournalEntry, Posting, User
from bank.services import passwords, schema

PASSWORD = "correct horse battery staple"
# Values that break programs which paste secrets into shells, URLs or templates.
HOSTILE = "p @:/%25?#&'\"\\$HOME`id`{x} é€"
ORIGIN = "https://bank.test"


@dataclass(frozen=True)
class Servers:
    """Where the throw-away servers listen."""

    folder: Path
    postgres_port: int
    redis_port: int
    redis_tls_port: int
    owner_password: str = HOSTILE + "o"
    app_password: str = HOSTILE + "a"
    redis_password: str = HOSTILE + "r"
    secret_key: str = "Kq7v#Zt2!mW9xP4s&Lb8^Nc3*Hd6@Rf5"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def need(path: str | None, what: str, package: str) -> str:
    if path is None:
        pytest.exit(f"The tests need {what}: apt-get install -y {package}", returncode=3)
    return path


def _postgres_programs() -> Path:
    found = [path.parent for path in Path("/usr/lib/postgresql").glob("*/bin/initdb")]
    found += [Path(path).parent for path in [shutil.which("initdb")] if path]
    newest = max(found, key=lambda path: int(path.parent.name) if path.parent.name.isdigit() else 0, default=None)
    return Path(need(str(newest) if newest else None, "PostgreSQL's server programs", "postgresql"))


def _as_postgres() -> list[str]:
    """PostgreSQL refuses to run as root."""
    return ["runuser", "-u", "postgres", "--"] if os.geteuid() == 0 else []


@pytest.fixture(scope="session")
def pki(tmp_path_factory):
    """A CA with a server's and a client's certificate, and one of a stranger."""
    folder = tmp_path_factory.mktemp("pki")

    def run(*arguments):
        subprocess.run(["openssl", *arguments], check=True, capture_output=True, cwd=folder)

    curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"]
    for ca in ("ca", "other"):
        run("req", "-x509", *curve, "-keyout", f"{ca}.key", "-out", f"{ca}.crt", "-subj", f"/CN={ca}")
    for name, ca, usage in (
        ("server", "ca", "serverAuth"), ("renewed", "ca", "serverAuth"),
        ("client", "ca", "clientAuth"), ("stranger", "other", "clientAuth"),
    ):  # fmt: skip
        run("req", "-x509", *curve, "-CA", f"{ca}.crt", "-CAkey", f"{ca}.key", "-keyout", f"{name}.key",
            "-out", f"{name}.crt", "-subj", f"/CN={name}", "-addext", "subjectAltName=DNS:localhost",
            "-addext", f"extendedKeyUsage={usage}", "-addext", "basicConstraints=critical,CA:FALSE")  # fmt: skip
    return folder


@pytest.fixture(scope="session")
def servers(pki):
    programs = _postgres_programs()
    redis_server = need(shutil.which("redis-server"), "redis-server", "redis-server")
    folder = Path(tempfile.mkdtemp(prefix="bank-tests-"))
    folder.chmod(0o755)
    found = Servers(folder, free_port(), free_port(), free_port())
    database = folder / "postgresql"
    database.mkdir()
    if os.geteuid() == 0:
        shutil.chown(database, "postgres", "postgres")
    for suffix in ("crt", "key"):
        shutil.copy(pki / f"server.{suffix}", database / f"server.{suffix}")
        (database / f"server.{suffix}").chmod(0o600)
        if os.geteuid() == 0:
            shutil.chown(database / f"server.{suffix}", "postgres", "postgres")
    with contextlib.ExitStack() as stack:
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        subprocess.run(
            [*_as_postgres(), programs / "initdb", "-D", database / "data", "-U", "postgres", "--no-sync",
             "--auth-local=peer" if os.geteuid() else "--auth-local=trust", "--auth-host=scram-sha-256", "-E", "UTF8"],
            check=True, capture_output=True, cwd="/",
        )  # fmt: skip
        if os.geteuid():
            hba = database / "data" / "pg_hba.conf"
            hba.write_text(re.sub(r"^local.*$", "local all all trust", hba.read_text(), flags=re.MULTILINE))
        server = subprocess.Popen(
            [*_as_postgres(), programs / "postgres", "-D", database / "data", "-p", str(found.postgres_port),
             "-k", database, "-c", "listen_addresses=127.0.0.1", "-c", "fsync=off", "-c", "max_connections=150",
             "-c", "ssl=on", "-c", f"ssl_cert_file={database}/server.crt", "-c", f"ssl_key_file={database}/server.key"],
            stdout=(folder / "postgresql.log").open("wb"), stderr=subprocess.STDOUT, cwd="/",
        )  # fmt: skip
        # SIGINT: stop at once, but cleanly.
        stack.callback(_stop, server, 2)
        configuration = folder / "redis.conf"
        quoted = found.redis_password.replace("\\", "\\\\").replace('"', '\\"')
        configuration.write_text(
            f'port {found.redis_port}\nbind 127.0.0.1\nsave ""\nappendonly no\ndir {folder}\nrequirepass "{quoted}"\n'
            f"tls-port {found.redis_tls_port}\ntls-auth-clients no\ntls-ca-cert-file {pki}/ca.crt\n"
            f"tls-cert-file {pki}/server.crt\ntls-key-file {pki}/server.key\n"
        )
        redis_process = subprocess.Popen([redis_server, configuration], stdout=subprocess.DEVNULL)
        stack.callback(_stop, redis_process, 15)
        _prepare(found, database)
        _await_port(found.redis_port)
        yield found


def _stop(process: subprocess.Popen, number: int) -> None:
    # runuser hands signals on to the server that it started.
    process.send_signal(number if process.args[0] != "runuser" else 15)
    try:
        process.wait(20)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _await_port(port: int) -> None:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.05)
    pytest.exit(f"nothing listens on port {port}", returncode=3)


def _prepare(found: Servers, sockets: Path) -> None:
    deadline = time.monotonic() + 20
    while True:
        try:
            connection = psycopg.connect(
                host=str(sockets), port=found.postgres_port, user="postgres", dbname="postgres", autocommit=True
            )
            break
        except psycopg.OperationalError:
            if time.monotonic() > deadline:
                pytest.exit("PostgreSQL did not start:\n" + (found.folder / "postgresql.log").read_text(), 3)
            time.sleep(0.05)
    with connection:
        for role, password in (("bank_owner", found.owner_password), ("bank_app", found.app_password)):
            connection.execute(
                psycopg.sql.SQL("CREATE ROLE {} LOGIN PASSWORD {}").format(
                    psycopg.sql.Identifier(role), psycopg.sql.Literal(password)
                )
            )
        connection.execute("CREATE DATABASE bank OWNER bank_owner")


def toml_text(value: str) -> str:
    escaped = value.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def configuration_text(servers: Servers, *, database: str = "bank", log: str = "", more: str = "") -> str:
    return f"""
environment = "test"
site = "main"
instance = "app-test"
secret_key = {toml_text(servers.secret_key)}
[database]
host = "127.0.0.1"
port = {servers.postgres_port}
name = "{database}"
user = "bank_app"
password = {toml_text(servers.app_password)}
ssl_mode = "disable"
pool_size = 30
[redis]
host = "127.0.0.1"
port = {servers.redis_port}
password = {toml_text(servers.redis_password)}
[logging]
path = "{log}"
{more}
"""


@pytest.fixture(scope="session")
def config_file(servers) -> Path:
    path = servers.folder / "bank.toml"
    path.write_text(configuration_text(servers, log=str(servers.folder / "bank.json")))
    return path


@pytest.fixture(scope="session")
def settings(config_file) -> Settings:
    return load_settings(config_file)


def as_owner(settings: Settings, servers: Servers, **changes) -> Settings:
    database = settings.database.model_copy(
        update={"user": "bank_owner", "password": type(settings.secret_key)(servers.owner_password), **changes}
    )
    return settings.model_copy(update={"database": database})


@pytest.fixture(scope="session")
def owner(servers, settings):
    """The database as its owner sees it, migrated."""
    engine = make_engine(as_owner(settings, servers))
    assert schema.migrate(engine, "bank_app") == (None, schema.known_revisions()[0])
    yield engine
    engine.dispose()


@pytest.fixture(scope="session")
def superuser(servers, owner):
    engine = create_engine(
        f"postgresql+psycopg://postgres@/bank?host={servers.folder / 'postgresql'}&port={servers.postgres_port}"
    )
    yield engine
    engine.dispose()


@pytest.fixture(scope="session")
def engine(settings, owner):
    """The database as the application sees it."""
    engine = make_engine(settings)
    yield engine
    engine.dispose()


@pytest.fixture(scope="session")
def app(settings, owner):
    app = create_app(settings)
    yield app
    app.extensions["bank"].engine.dispose()


@pytest.fixture
def client(app):
    return browser(app)


def browser(app):
    client = app.test_client()
    client.environ_base["wsgi.url_scheme"] = "https"
    client.environ_base["HTTP_HOST"] = "bank.test"
    client.environ_base["HTTP_REFERER"] = ORIGIN + "/"
    return Browser(client)


class Browser:
    """A test client that sends what a browser sends with a form."""

    def __init__(self, client) -> None:
        self.client = client

    def get(self, path: str, **options):
        return self.client.get(path, base_url=ORIGIN, **options)

    def post(self, path: str, data=None, **options):
        return self.client.post(path, data=data, base_url=ORIGIN, **options)

    def fields(self, path: str) -> dict[str, str]:
        """Return the hidden fields of the page's main form."""
        page = self.get(path).get_data(as_text=True)
        main = page[page.index("<main") :]
        return dict(re.findall(r'<input id="[^"]*" name="([^"]+)" type="hidden" value="([^"]*)"', main))

    def log_in(self, email: str, password: str = PASSWORD, path: str = "/login"):
        return self.post(path, {**self.fields(path), "email": email, "password": password})

    def log_out(self):
        page = self.get("/accounts").get_data(as_text=True)
        token = re.search(r'name="csrf_token" value="([^"]+)"', page)[1]
        return self.post("/logout", {"csrf_token": token})

    @property
    def session_cookie(self) -> str | None:
        cookie = self.client.get_cookie("__Host-bank-session", domain="bank.test")
        return cookie.value if cookie else None


@dataclass(frozen=True)
class Customer:
    id: uuid.UUID
    email: str
    account: uuid.UUID
    number: str


@pytest.fixture(scope="session")
def password_hash() -> str:
    return passwords.make_hash(PASSWORD)


@pytest.fixture(scope="session")
def make_customer(owner, password_hash):
    """Make a customer with one account that holds ``balance`` minor units."""

    def make(
        balance: int = 0, *, overdraft: int = 0, currency: str = "EUR", name: str = "Test Person", enabled: bool = True
    ) -> Customer:
        user_id, account_id = uuid.uuid4(), uuid.uuid4()
        number = account_numbers.make(10**15 + account_id.int % (9 * 10**15))
        email = f"{user_id.hex}@test.local"
        with owner.begin() as connection:
            connection.execute(
                insert(User).values(
                    id=user_id, email=email, display_name=name, password_hash=password_hash, is_enabled=enabled
                )
            )
            connection.execute(
                insert(Account).values(
                    id=account_id, owner_id=user_id, number=number, name="Everyday", kind="checking", currency=currency
                )
            )
            connection.execute(insert(Balance).values(account_id=account_id, overdraft_limit_minor=overdraft))
            if balance:
                settlement = connection.execute(
                    select(Account.id).where(Account.kind == "internal", Account.currency == currency)
                ).scalar_one()
                entry = uuid.uuid4()
                connection.execute(insert(JournalEntry).values(id=entry, kind="opening", currency=currency))
                connection.execute(
                    insert(Posting),
                    [
                        {"entry_id": entry, "account_id": account_id, "amount_minor": balance},
                        {"entry_id": entry, "account_id": settlement, "amount_minor": -balance},
                    ],
                )
        return Customer(user_id, email, account_id, number)

    return make


@pytest.fixture(scope="session")
def make_staff(owner, password_hash):
    """Make somebody who works for the bank: id and email."""

    def make(role: str) -> tuple[uuid.UUID, str]:
        user_id = uuid.uuid4()
        email = f"{user_id.hex}@test.local"
        with owner.begin() as connection:
            connection.execute(
                insert(User).values(
                    id=user_id, email=email, display_name=f"Test {role}", password_hash=password_hash, role=role
                )
            )
        return user_id, email

    return make


@pytest.fixture
def balance_of(owner):
    def read(account: uuid.UUID) -> int:
        with owner.connect() as connection:
            return connection.execute(
                text("SELECT balance_minor FROM balances WHERE account_id = :id"), {"id": account}
            ).scalar_one()

    return read


@pytest.fixture(autouse=True)
def ledger_is_sound(request):
    """After every test that used the database: no money came from nowhere, and every balance adds up."""
    yield
    if "owner" not in request.fixturenames:
        return
    with request.getfixturevalue("owner").connect() as connection:
        wrong = connection.execute(
            text("""
                SELECT b.account_id FROM balances b LEFT JOIN postings p USING (account_id)
                GROUP BY b.account_id, b.balance_minor, b.version
                HAVING b.balance_minor <> coalesce(sum(p.amount_minor), 0) OR b.version <> count(p.id)
            """)
        ).all()
        unbalanced = connection.execute(
            text("SELECT entry_id FROM postings GROUP BY entry_id HAVING sum(amount_minor) <> 0 OR count(*) < 2")
        ).all()
        misheld = connection.execute(
            text("""
                SELECT b.account_id FROM balances b LEFT JOIN holds h ON h.account_id = b.account_id AND status = 'held'
                GROUP BY b.account_id HAVING b.held_minor <> coalesce(sum(h.amount_minor), 0)
            """)
        ).all()
    assert not wrong
    assert not unbalanced
    assert not misheld


@dataclass
class Instance:
    """A running bank, as gunicorn serves it."""

    port: int
    process: subprocess.Popen
    log: Path
    stderr: Path


@pytest.fixture
def start_instance(servers, owner, tmp_path):
    """Start gunicorn as a host does, with a configuration of its own."""
    with contextlib.ExitStack() as stack:

        def start(
            *, more: str = "", server: str = "workers = 2\nthreads = 4", wait: bool = True, log: str = ""
        ) -> Instance:
            port, name = free_port(), uuid.uuid4().hex[:8]
            log_file, errors = Path(log or tmp_path / f"{name}.json"), tmp_path / f"{name}.err"
            path = tmp_path / f"{name}.toml"
            path.write_text(
                configuration_text(servers, log=str(log_file), more=f"{more}\n[server]\nport = {port}\n{server}\n")
            )
            process = subprocess.Popen(
                [sys.executable, "-m", "gunicorn", "--config", "python:bank.gunicorn_config", "bank.wsgi:application"],
                env={**os.environ, "BANK_CONFIG": str(path), "PROMETHEUS_MULTIPROC_DIR": str(tmp_path / f"{name}.m")},
                stdout=errors.open("wb"),
                stderr=subprocess.STDOUT,
            )
            stack.callback(_stop, process, 15)
            if wait:
                _await_port(port)
            return Instance(port, process, log_file, errors)

        yield start
