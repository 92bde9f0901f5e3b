"""Payments to other banks in the pages; the API's are in test_api.py."""

import html
import re

import pytest
from sqlalchemy import text

from bank.app import create_app
from bank.config import Approvals, Confirmation
from conftest import PASSWORD

IBAN = "DE89 3704 0044 0532 0130 00"
APPROVALS = Approvals(limit_minor=500_00)


@pytest.fixture(scope="module")
def app(settings, owner):
    app = create_app(settings.model_copy(update={"confirmation": Confirmation(), "approvals": APPROVALS}))
    yield app
    app.extensions["bank"].engine.dispose()


@pytest.fixture
def payer(make_customer):
    return make_customer(100_000)


@pytest.fixture
def typed(logged_in, payer):
    return {**logged_in.fields("/payment"), "from_account": str(payer.account), "creditor_name": "Ann  <Other>",
            "creditor_iban": IBAN, "amount": "12.30", "reference": "bill 7"}  # fmt: skip


def shown(answer):
    page = answer.get_data(as_text=True)
    main = page[page.index("<main") :]
    found = re.findall(r'name="(\w+)"(?: type="hidden")? value="([^"]*)"', main)
    return {name: html.unescape(value) for name, value in found}


def entries(owner, payer):
    with owner.connect() as connection:
        query = "SELECT counterparty, counterparty_number, reference FROM journal_entries WHERE created_by = :id"
        return [tuple(row) for row in connection.execute(text(query), {"id": payer.id})]


def test_payment_is_reviewed_confirmed_and_booked_once(owner, logged_in, payer, typed, balance_of):
    answer = logged_in.post("/payment/review", typed)
    assert answer.status_code == 200
    page = answer.get_data(as_text=True)
    for words in ("12.30 EUR", "987.70 EUR", "Ann &lt;Other&gt;", IBAN, "bill 7"):
        assert words in page, words
    fields = shown(answer)
    change = fields.pop("change")
    assert 'value="Ann  &lt;Other&gt;"' in logged_in.post("/payment/review", {**fields, "change": change}).text
    assert balance_of(payer.account) == 100_000
    right = {"password": PASSWORD}
    for wrong in (
        {}, {"password": "wrong"}, right | {"creditor_iban": "FR7630006000011234567890189"},
        right | {"amount": "12.31"}, right | {"creditor_name": "Eve"},
    ):  # fmt: skip
        assert logged_in.post("/payment", fields | wrong).status_code == 403, wrong
    assert entries(owner, payer) == []
    for _ in range(2):
        answer = logged_in.post("/payment", fields | {"password": PASSWORD})
        assert (answer.status_code, answer.location) == (303, f"/accounts/{payer.account}")
    assert entries(owner, payer) == [("Ann <Other>", "DE89370400440532013000", "bill 7")]
    assert balance_of(payer.account) == 98_770
    assert "Ann &lt;Other&gt;" in logged_in.get(answer.location).text
    # The same key for something else is a conflict.
    assert logged_in.post("/payment", fields | {"amount": "1"}).status_code == 409
    assert logged_in.get("/payment/review").location == "/payment"


@pytest.mark.parametrize(
    ("change", "status", "words"),
    [({"creditor_iban": "DE88 3704 0044 0532 0130 00"}, 400, "not an IBAN"), ({"creditor_iban": ""}, 400, "IBAN"),
     ({"creditor_iban": "own"}, 400, "make a transfer"), ({"creditor_name": " "}, 400, "Enter a name"),
     ({"creditor_name": "x" * 71}, 400, "70"), ({"amount": "-1"}, 400, "amount"),
     ({"amount": "1000.01"}, 422, "not enough money"), ({"reference": "x" * 141}, 400, "140")],
)  # fmt: skip
def test_payment_that_is_not_possible_says_why(logged_in, payer, typed, owner, change, status, words):
    if change.get("creditor_iban") == "own":
        change = {"creditor_iban": payer.number}
    for path in ("/payment/review", "/payment"):
        answer = logged_in.post(path, typed | change)
        # Sent without a review it is not even looked at further: nothing confirms it.
        assert answer.status_code in ({status} if path.endswith("review") else {status, 403})
        if answer.status_code == status:
            assert words in html.unescape(answer.text)
    assert entries(owner, payer) == []


def test_account_of_somebody_else_does_not_pay(logged_in, payee, typed):
    assert logged_in.post("/payment", typed | {"from_account": str(payee.account)}).status_code == 404


def test_large_payment_waits_for_approval(engine, owner, logged_in, payer, typed, balance_of):
    answer = logged_in.post("/payment/review", typed | {"amount": "500.01"})
    assert "checks transfers of this size first" in html.unescape(answer.text)
    fields = {name: value for name, value in shown(answer).items() if name != "change"}
    answer = logged_in.post("/payment", fields | {"password": PASSWORD})
    assert answer.status_code == 303
    assert "waiting for approval" in logged_in.get(answer.location).text
    assert entries(owner, payer) == []
    with owner.connect() as connection:
        query = "SELECT kind, amount_minor, counterparty_number FROM approvals WHERE created_by = :id"
        waiting = connection.execute(text(query), {"id": payer.id}).one()
    assert tuple(waiting) == ("payment", 50_001, "DE89370400440532013000")


def test_transfer_page_leads_to_payments_and_back(logged_in, payer):
    assert 'href="/payment"' in logged_in.get("/transfer").text
    assert 'href="/transfer"' in logged_in.get("/payment").text
