"""Who has an account, and which factor was wrong, cannot be told from how long the bank works.

Work is counted instead of timed: every Argon2 verification with its cost, every statement, every command of Redis.
"""

import uuid

import psycopg
import pytest
from argon2 import extract_parameters

from bank.resources import ObservedRedis
from bank.services import audit, passwords, second_factor
from conftest import ORIGIN, PASSWORD, browser


@pytest.fixture
def work(app, monkeypatch):
    """Return a function that runs something and returns the work that it took."""
    done = []
    hasher, command, execute = passwords.HASHER, ObservedRedis.execute_command, psycopg.Cursor.execute

    class Counted:
        def verify(self, password_hash, password):
            parameters = extract_parameters(password_hash)
            done.append(("argon2", parameters.memory_cost, parameters.time_cost, parameters.parallelism))
            return hasher.verify(password_hash, password)

        def __getattr__(self, name):
            return getattr(hasher, name)

    def counted_command(self, *arguments, **options):
        done.append(("redis", arguments[0]))
        return command(self, *arguments, **options)

    def counted_execute(self, query, *arguments, **options):
        if query:  # an empty one asks whether the connection still works
            done.append(("sql", " ".join(query.split()[:2])))
        return execute(self, query, *arguments, **options)

    monkeypatch.setattr(passwords, "HASHER", Counted())
    monkeypatch.setattr(ObservedRedis, "execute_command", counted_command)
    monkeypatch.setattr(psycopg.Cursor, "execute", counted_execute)

    def of(act):
        done.clear()
        answer = act()
        return answer.status_code, list(done)

    return of


@pytest.fixture
def people(app, make_customer, clock):
    """Emails by what is wrong with the log-in."""
    known, disabled, enrolled = make_customer(), make_customer(enabled=False), make_customer()
    found, seed = app.extensions["bank"], second_factor.new_seed()
    code = second_factor.pyotp.TOTP(seed).at(clock.now)
    second_factor.enrol(found.engine, found.keys, enrolled.id, seed=seed, code=code, origin=audit.Origin())
    return {
        "unknown": (f"{uuid.uuid4().hex}@test.local", PASSWORD),
        "wrong password": (known.email, "wrong"),
        "disabled": (disabled.email, PASSWORD),
        "wrong password, second factor": (enrolled.email, "wrong"),
        "right password, second factor": (enrolled.email, PASSWORD),
    }


def test_every_refused_log_in_takes_the_same_work(app, people, work):
    found = {}
    for case, (email, password) in people.items():
        client = browser(app)
        fields = client.fields("/login")
        found[case] = work(
            lambda c=client, f=fields, e=email, p=password: c.post("/login", {**f, "email": e, "password": p})
        )
    status, done = found["unknown"]
    assert status == 401
    assert [entry[0] for entry in done].count("argon2") == 1
    assert ("argon2", 19456, 2, 1) in done
    assert {case: entry for case, entry in found.items() if entry != found["unknown"]} == {}


@pytest.mark.parametrize("code", ["000000", "AAAAAA-AAAAAA-AAAAAA-AAAAAA", "x"])
def test_every_wrong_code_takes_the_same_work(app, people, work, code):
    found = {}
    for case, (email, password) in people.items():
        client = browser(app)
        assert client.log_in(email, password).status_code == 401
        fields = client.fields("/login/code")
        found[case] = work(lambda c=client, f=fields: c.post("/login/code", {**f, "code": code}))
    assert found["unknown"][0] == 401
    assert any(entry[0] == "sql" for entry in found["unknown"][1])
    assert {case: entry for case, entry in found.items() if entry != found["unknown"]} == {}


def test_api_takes_the_same_work_too(app, people, work):
    found = {}
    for case, (email, password) in people.items():
        if not case.startswith("right"):  # for that one more is asked, of whoever sends no code
            body = {"email": email, "password": password, "scopes": ["accounts:read"]}
            client = browser(app).client
            found[case] = work(lambda c=client, b=body: c.post("/api/v1/token", json=b, base_url=ORIGIN))
    assert found["unknown"][0] == 401
    assert {case: entry for case, entry in found.items() if entry != found["unknown"]} == {}


def test_sign_up_with_a_known_email_takes_the_same_work(app, people, work):
    found = []
    for email in ("new@test.local", people["wrong password"][0]):
        client = browser(app)
        fields = client.fields("/sign-up") | {"display_name": "N N", "email": email, "password": "seven green otters"}
        found.append(work(lambda c=client, f=fields: c.post("/sign-up", f)))
    assert found[0][0] in {200, 303}
    assert found[0] == found[1]
