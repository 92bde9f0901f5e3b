"""Large orders and those to new payees are confirmed, and the confirmation is bound to payee and amount."""

import html
import re
import uuid
from datetime import UTC, datetime, timedelta

import pyotp
import pytest
from sqlalchemy import text

from bank.app import create_app
from bank.config import Confirmation
from bank.services import audit, beneficiaries, confirmations, second_factor, standing_orders
from conftest import ORIGIN, PASSWORD, browser

LIMIT = 100_00


@pytest.fixture(scope="module")
def app(settings, owner):
    """The bank with its own rules; elsewhere the tests are spared the questions."""
    app = create_app(settings.model_copy(update={"confirmation": Confirmation(limit_minor=LIMIT)}))
    yield app
    app.extensions["bank"].engine.dispose()


@pytest.fixture
def payer(make_customer):
    return make_customer(1_000_000)


class Phone:
    """An authenticator app; each code is of a time of its own."""

    def __init__(self, app, user_id, clock):
        self.totp, self.clock = pyotp.TOTP(second_factor.new_seed()), clock
        found = app.extensions["bank"]
        second_factor.enrol(
            found.engine, found.keys, user_id, seed=self.totp.secret, code=self.code(), origin=audit.Origin(user_id)
        )

    def code(self):
        self.clock.forward()
        return self.totp.at(self.clock.now)


def typed(client, payer, payee, amount="12.30", path="/transfer"):
    return {**client.fields(path), "from_account": str(payer.account), "to_number": payee.number, "amount": amount,
            "reference": "rent"}  # fmt: skip


def shown(page):
    """Return the fields of a review page as a browser would send them."""
    main = page[page.index("<main") :]
    found = {
        name: html.unescape(value)
        for name, value in re.findall(r'name="(\w+)"(?: type="hidden")? value="([^"]*)"', main)
    }
    found.pop("change", None)
    return found


def review(client, fields):
    answer = client.post("/transfer/review", fields)
    assert answer.status_code == 200
    return shown(answer.get_data(as_text=True))


def saved(app, payer, payee):
    beneficiaries.add(app.extensions["bank"].engine, payer.id, "Pete", payee.number)


def test_new_payee_is_confirmed_with_the_password_where_there_is_no_second_factor(logged_in, payer, payee, balance_of):
    fields = review(logged_in, typed(logged_in, payer, payee))
    for given, words in (({}, "Confirm this order."), ({"password": "wrong"}, "not your password")):
        answer = logged_in.post("/transfer", fields | given)
        assert answer.status_code == 403
        assert words in answer.get_data(as_text=True)
        assert "Check your transfer" in answer.get_data(as_text=True)
    assert balance_of(payee.account) == 0
    # Twice, as after a lost answer: the second finds the first.
    for _ in range(2):
        assert logged_in.post("/transfer", fields | {"password": PASSWORD}).status_code == 303
    assert balance_of(payee.account) == 1_230
    # What is done needs no password to be answered again.
    assert logged_in.post("/transfer", fields).status_code == 303
    assert balance_of(payee.account) == 1_230


@pytest.mark.parametrize(
    "change",
    [{"amount": "12.31"}, {"amount": "1230.00"}, {"to_number": "thief"}, {"reference": "other"}, {"key": "other"},
     {"seal": ""}, {"seal": "99999999999.00"}, {"seal": "x"}],
)  # fmt: skip
def test_payee_and_amount_cannot_change_after_the_code(app, make_customer, payee, balance_of, clock, change):
    payer, thief = make_customer(1_000_000), make_customer()
    phone = Phone(app, payer.id, clock)
    client = browser(app)
    assert client.log_in(payer.email).status_code == 401
    assert client.post("/login/code", {**client.fields("/login/code"), "code": phone.code()}).status_code == 303
    fields = review(client, typed(client, payer, payee))
    code = phone.code()
    changed = {name: thief.number if value == "thief" else value for name, value in change.items()}
    answer = client.post("/transfer", fields | {"code": code} | changed)
    assert answer.status_code == 403
    assert "This is not what was shown before." in answer.get_data(as_text=True)
    assert code not in answer.get_data(as_text=True)
    assert [balance_of(who.account) for who in (payer, payee, thief)] == [1_000_000, 0, 0]
    # The code was not looked at, and confirms what was shown.
    assert client.post("/transfer", fields | {"code": code}).status_code == 303
    assert balance_of(payee.account) == 1_230


def test_code_confirms_one_order(app, client, payer, payee, balance_of, clock):
    phone = Phone(app, payer.id, clock)
    client.log_in(payer.email)
    client.post("/login/code", {**client.fields("/login/code"), "code": phone.code()})
    code = phone.code()
    first = review(client, typed(client, payer, payee))
    assert "password" not in first
    assert client.post("/transfer", first | {"code": code}).status_code == 303
    second = review(client, typed(client, payer, payee))
    answer = client.post("/transfer", second | {"code": code, "password": PASSWORD})
    assert answer.status_code == 403
    assert "Use the next one" in answer.get_data(as_text=True)
    assert balance_of(payee.account) == 1_230


def test_what_was_shown_in_another_session_or_long_ago_is_not_confirmed(
    app, logged_in, payer, payee, balance_of, monkeypatch
):
    elsewhere = browser(app)
    elsewhere.log_in(payer.email)
    fields = review(elsewhere, typed(elsewhere, payer, payee))
    mine = fields | {"csrf_token": logged_in.fields("/transfer")["csrf_token"], "password": PASSWORD}
    assert logged_in.post("/transfer", mine).status_code == 403
    monkeypatch.setattr(confirmations, "SEAL_SECONDS", -1)
    fields = review(logged_in, typed(logged_in, payer, payee))
    assert logged_in.post("/transfer", fields | {"password": PASSWORD}).status_code == 403
    assert balance_of(payee.account) == 0


def test_wrong_proofs_are_counted(logged_in, payer, payee):
    fields = review(logged_in, typed(logged_in, payer, payee))
    for _ in range(5):
        assert logged_in.post("/transfer", fields | {"password": "wrong"}).status_code == 403
    answer = logged_in.post("/transfer", fields | {"password": PASSWORD})
    assert answer.status_code == 429
    assert int(answer.headers["Retry-After"]) > 0


def test_small_amounts_to_beneficiaries_and_own_accounts_need_no_proof(
    app, owner, logged_in, payer, payee, make_customer, balance_of
):
    saved(app, payer, payee)
    assert logged_in.post("/transfer", typed(logged_in, payer, payee, "100.00")).status_code == 303
    answer = logged_in.post("/transfer", typed(logged_in, payer, payee, "100.01"))
    assert answer.status_code == 403
    second = make_customer()
    with owner.begin() as connection:
        connection.execute(
            text("UPDATE accounts SET owner_id = :me WHERE id = :id"), {"me": payer.id, "id": second.account}
        )
    assert logged_in.post("/transfer", typed(logged_in, payer, second, "5000.00")).status_code == 303
    assert (balance_of(payee.account), balance_of(second.account)) == (10_000, 500_000)


def test_standing_order_is_confirmed_too(app, engine, logged_in, payer, payee):
    path = "/standing-orders/new"
    fields = typed(logged_in, payer, payee, path=path) | {
        "frequency": "monthly", "first_date": f"{datetime.now(UTC) + timedelta(days=30):%Y-%m-%d}", "last_date": "",
    }  # fmt: skip
    page = logged_in.post(path, fields)
    assert page.status_code == 200
    sealed = fields | {"seal": shown(page.get_data(as_text=True))["seal"]}
    answer = logged_in.post(path, sealed | {"password": PASSWORD, "amount": "1230"})
    assert answer.status_code == 403
    assert "This is not what was shown before." in answer.get_data(as_text=True)
    assert logged_in.post(path, sealed | {"password": "wrong"}).status_code == 403
    assert standing_orders.list_of(engine, payer.id) == []
    for _ in range(2):
        assert logged_in.post(path, sealed | {"password": PASSWORD}).status_code == 303
    assert [order.amount_minor for order in standing_orders.list_of(engine, payer.id)] == [1_230]


def ask(app, payer, path, body, key):
    bearer = app.extensions["bank"].tokens.issue(
        payer.id, version_of(app, payer), ["transfers:write", "payments:write"]
    )
    return app.test_client().post(
        path, json=body, headers={"Authorization": f"Bearer {bearer}", "Idempotency-Key": key}, base_url=ORIGIN
    )


def version_of(app, payer):
    with app.extensions["bank"].engine.connect() as connection:
        return connection.execute(
            text("SELECT credentials_version FROM users WHERE id = :id"), {"id": payer.id}
        ).scalar_one()


@pytest.mark.parametrize(
    ("path", "to"),
    [("/api/v1/transfers", {}), ("/api/payment", {"creditor_name": "Ann", "creditor_iban": "DE89370400440532013000"})],
)
def test_program_sends_the_code_with_the_order(app, payer, payee, balance_of, clock, path, to):
    order = {"from_account": str(payer.account), "amount_minor": 500, "currency": "EUR"}
    order |= to or {"to_number": payee.number}
    # Who has no second factor has nothing else to give than what the token was issued for.
    assert ask(app, payer, path, order, uuid.uuid4().hex).status_code == 201
    phone, key = Phone(app, payer.id, clock), uuid.uuid4().hex
    answer = ask(app, payer, path, order, key)
    assert (answer.status_code, answer.json["type"]) == (403, "urn:bank:problem:code-needed")
    answer = ask(app, payer, path, order | {"code": "000000"}, key)
    assert (answer.status_code, answer.json["type"]) == (403, "urn:bank:problem:code-refused")
    assert balance_of(payer.account) == 1_000_000 - 500
    code = phone.code()
    answer = ask(app, payer, path, order | {"code": code}, key)
    assert answer.status_code == 201
    assert "code" not in answer.json
    # Sent again, with the code or without: the first answer.
    for again in (order, order | {"code": code}):
        replay = ask(app, payer, path, again, key)
        assert (replay.status_code, replay.json) == (201, answer.json)
        assert replay.headers["Idempotency-Replayed"] == "true"
    assert ask(app, payer, path, order | {"code": code}, uuid.uuid4().hex).status_code == 403
    assert balance_of(payer.account) == 1_000_000 - 1_000
    if not to:
        saved(app, payer, payee)
        assert ask(app, payer, path, order, uuid.uuid4().hex).status_code == 201
        assert ask(app, payer, path, order | {"amount_minor": LIMIT + 1}, uuid.uuid4().hex).status_code == 403
