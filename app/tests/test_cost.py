"""What a request costs, counted and not timed: how often it asks PostgreSQL and Redis and waits for the answer."""

import select
import socket
import threading
import uuid

import pytest

from bank.app import create_app
from bank.config import load_settings
from conftest import browser, configuration_text
from test_api import LAX, Program

# A statement is prepared when a connection sees it for the sixth time, which costs a round trip more that once.
WARM_UP = 10


class Wire:
    """Stands between the bank and a server, and counts how often the bank speaks after it has listened."""

    def __init__(self, port):
        self.turns = 0
        self._target = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            server = socket.create_connection(("127.0.0.1", self._target))
            threading.Thread(target=self._carry, args=(client, server), daemon=True).start()

    def _carry(self, client, server):
        speaker = server
        with client, server:
            while True:
                for source in select.select([client, server], [], [])[0]:
                    heard = source.recv(65536)
                    if not heard:
                        return
                    self.turns += source is client and speaker is server
                    speaker = source
                    (server if source is client else client).sendall(heard)

    def close(self):
        # Wakes the thread that waits in accept().
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()


@pytest.fixture(scope="module")
def wires(servers):
    found = Wire(servers.postgres_port), Wire(servers.redis_port)
    yield found
    for wire in found:
        wire.close()


@pytest.fixture(scope="module")
def wired_app(servers, owner, wires, tmp_path_factory):
    """An application whose questions are counted; one connection, so that what was learnt once is known."""
    folder = tmp_path_factory.mktemp("cost")
    postgres, redis = wires
    text = configuration_text(servers, log=str(folder / "bank.json"), more=LAX)
    text = text.replace(f"port = {servers.postgres_port}", f"port = {postgres.port}")
    text = text.replace(f"port = {servers.redis_port}", f"port = {redis.port}").replace(
        "pool_size = 30", "pool_size = 1"
    )
    path = folder / "bank.toml"
    path.write_text(text)
    app = create_app(load_settings(path))
    yield app
    app.extensions["bank"].engine.dispose()


@pytest.fixture
def cost(wires):
    """Measure a request: round trips to PostgreSQL and to Redis, once everything is warm."""

    def measure(request, status):
        found = []
        for _ in range(WARM_UP):
            before = [wire.turns for wire in wires]
            assert request().status_code == status
            found.append(tuple(wire.turns - earlier for wire, earlier in zip(wires, before, strict=True)))
        # A connection that was not used for a second is asked whether it works, on a slow machine.
        return min(found)

    return measure


@pytest.fixture
def customer(make_customer):
    return make_customer(10_000)


def test_transfer_by_a_program(wired_app, cost, customer, payee):
    program = Program(wired_app, customer)
    order = {"from_account": str(customer.account), "to_number": payee.number, "amount_minor": 1, "currency": "EUR"}

    def request():
        return program.call("POST", "/api/v1/transfers", order, headers={"Idempotency-Key": f'"{uuid.uuid4()}"'})

    # Who asks; BEGIN, claim and lock, is it suspicious, book, COMMIT. Is the token revoked, and the rate limit.
    assert cost(request, 201) == (6, 1)


def test_history_for_a_program(wired_app, cost, customer):
    program = Program(wired_app, customer)
    # Who asks, the movements of an account of theirs. Is the token revoked, and the rate limit.
    assert cost(lambda: program.get(f"/api/v1/accounts/{customer.account}/history"), 200) == (2, 1)


def test_history_on_a_page(wired_app, cost, customer):
    client = browser(wired_app)
    client.log_in(customer.email)
    # Who asks, the account, the movements, months with statements, what is new. The session: read, and kept alive.
    assert cost(lambda: client.get(f"/accounts/{customer.account}"), 200) == (5, 2)


def test_transfer_on_a_page(wired_app, cost, customer, payee):
    client = browser(wired_app)
    client.log_in(customer.email)
    form = {**client.fields("/transfer"), "from_account": str(customer.account), "to_number": payee.number}

    def request():
        return client.post("/transfer", {**form, "amount": "0.01", "key": str(uuid.uuid4())})

    # Who asks, their accounts; BEGIN, claim and lock, is it suspicious, book, COMMIT. The session: read, and written
    # with the message.
    assert cost(request, 303) == (7, 2)
