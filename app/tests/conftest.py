"""What the tests share: real servers, applications on them, and customers."""

from __future__ import annotations

import contextlib
import ipaddress
import os
import re
import secrets
import subprocess
import sys
import time
import uuid
from dataclasses import dataclass
from pathlib import Path

import pytest
from sqlalchemy import insert, select, text

# Metrics stay in this process, whatever the shell that started the tests has set.
os.environ.pop("PROMETHEUS_MULTIPROC_DIR", None)
for _name in [name for name in os.environ if name.startswith("BANK_")]:
    del os.environ[_name]

from bank import account_numbers
from bank.app import create_app
from bank.config import Settings, load_settings
from bank.database import make_engine
from bank.models import Account, Balance, JournalEntry, Posting, User
from bank.services import passwords, schema, second_factor
from throwaway import (
    Servers,
    StartError,
    await_port,
    configuration_text,
    free_port,
    make_pki,
    running,
    stop,
    superuser_engine,
)

PASSWORD = "correct horse battery staple"
ORIGIN = "https://bank.test"


@pytest.fixture(scope="session")
def pki(tmp_path_factory):
    """A CA with a server's and a client's certificate, and one of a stranger."""
    return make_pki(tmp_path_factory.mktemp("pki"))


@pytest.fixture(scope="session")
def servers(pki):
    try:
        with running(pki, "fsync=off") as found:
            yield found
    except StartError as error:
        pytest.exit(str(error), returncode=3)


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
    engine = superuser_engine(servers)
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


def browser(app, address=None):
    """A browser, unless told at an address of its own, so that its failures slow nobody else down."""
    client = app.test_client()
    client.environ_base["REMOTE_ADDR"] = address or str(ipaddress.IPv4Address(0x0A000000 + secrets.randbelow(2**24)))
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
def clock(monkeypatch):
    """The time that codes belong to; each test moves it on instead of waiting."""

    class Clock:
        now = time.time()

        def time(self):
            return self.now

        def forward(self, steps=1):
            self.now += 30 * steps

    clock = Clock()
    monkeypatch.setattr(second_factor, "time", clock)
    return clock


@pytest.fixture
def payee(make_customer):
    return make_customer(name="Pete Payee")


@pytest.fixture
def logged_in(client, payer):
    """Return the browser of the test file's own ``payer``."""
    assert client.log_in(payer.email).status_code == 303
    return client


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
            stack.callback(stop, process, 15)
            if wait:
                await_port(port)
            return Instance(port, process, log_file, errors)

        yield start
