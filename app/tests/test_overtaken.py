"""An account that is frozen or closed, or a customer who is blocked, between the form and the booking."""

import threading
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
from sqlalchemy import text

from bank.config import Approvals
from bank.services import (
    approvals,
    audit,
    cash,
    customers,
    holds,
    interest,
    ledger,
    payments,
    reversals,
    scheduler,
    standing_orders,
    transfers,
)
from conftest import ORIGIN

IBAN = "DE89370400440532013000"
SMALL, LARGE = Approvals(limit_minor=100), Approvals()
WAITING = text("SELECT count(*) FROM pg_stat_activity WHERE usename = 'bank_app' AND wait_event_type = 'Lock'")
EUR = "EUR"


def key():
    return uuid.uuid4().hex


@pytest.fixture
def payer(make_customer):
    return make_customer(10_000)


@pytest.fixture
def overtaken(owner, superuser):
    """Do something that must wait for an account, change the account meanwhile, and let it go on."""

    def do(account, status, work):
        with ThreadPoolExecutor(1) as pool, owner.connect() as connection:
            parameters = {"id": account, "status": status}
            connection.execute(text("SELECT FROM balances WHERE account_id = :id FOR UPDATE"), parameters)
            connection.execute(text("UPDATE accounts SET status = :status WHERE id = :id"), parameters)
            under_way = pool.submit(work)
            deadline = time.monotonic() + 4
            with superuser.connect().execution_options(isolation_level="AUTOCOMMIT") as watcher:
                while not watcher.execute(WAITING).scalar_one():
                    assert time.monotonic() < deadline, "it did not wait for the account"
                    time.sleep(0.02)
            connection.commit()
            return under_way.result(10)

    return do


def transfer(engine, payer, payee, policy=LARGE):
    order = transfers.Order(payer.id, key(), payer.account, payee.number, 500, EUR, "")
    return transfers.transfer(engine, order, policy)


def pay(engine, payer, _payee):
    return payments.pay(engine, payments.PaymentOrder(payer.id, key(), payer.account, "Ann", IBAN, 500, EUR, ""))


def withdraw(engine, payer, payee):
    return cash.withdraw(engine, cash.CashOrder(payee.id, key(), payer.account, 500, EUR))


def deposit(engine, payer, payee):
    return cash.deposit(engine, cash.CashOrder(payer.id, key(), payee.account, 500, EUR))


def reserve(engine, payer, payee):
    return transfer(engine, payer, payee, SMALL)


@pytest.mark.parametrize("order", [transfer, pay, withdraw, reserve])
@pytest.mark.parametrize(
    ("status", "reason"), [("frozen", ledger.AccountFrozenError), ("closed", ledger.AccountNotFoundError)]
)
def test_order_is_refused_when_its_account_changes_while_it_waits(
    engine, overtaken, payer, payee, balance_of, order, status, reason
):
    with pytest.raises(reason):
        overtaken(payer.account, status, lambda: order(engine, payer, payee))
    assert (balance_of(payer.account), balance_of(payee.account)) == (10_000, 0)


@pytest.mark.parametrize("order", [transfer, deposit])
def test_order_is_refused_when_the_other_account_is_closed_while_it_waits(
    engine, overtaken, payer, payee, balance_of, order
):
    with pytest.raises(ledger.UnknownRecipientError):
        overtaken(payee.account, "closed", lambda: order(engine, payer, payee))
    assert (balance_of(payer.account), balance_of(payee.account)) == (10_000, 0)


def test_account_that_is_frozen_while_it_is_paid_gets_the_money(engine, overtaken, payer, payee, balance_of):
    assert overtaken(payee.account, "frozen", lambda: transfer(engine, payer, payee)).entry_id
    assert balance_of(payee.account) == 500


def test_reversal_approval_and_hold_are_refused_too(engine, overtaken, payer, payee, make_staff, balance_of):
    booked, waiting = transfer(engine, payer, payee), reserve(engine, payer, payee)
    boss = make_staff("supervisor")[0]
    with pytest.raises(ledger.AccountFrozenError):
        overtaken(
            payee.account, "frozen", lambda: reversals.reverse(engine, entry_id=booked.entry_id, by=boss, key=key())
        )
    claim = ledger.Claim.of(payer.id, key(), "hold", payer.account, 100)
    with pytest.raises(ledger.AccountNotFoundError):
        overtaken(payer.account, "frozen", lambda: holds.place(engine, claim, payer.account, 100))
    customers.set_frozen(engine, audit.Origin(), payer.account, frozen=False, reason="x")
    with pytest.raises(ledger.AccountFrozenError):
        overtaken(payer.account, "frozen", lambda: approvals.approve(engine, waiting.approval_id, boss))
    assert (balance_of(payer.account), balance_of(payee.account)) == (9_500, 500)
    # It goes on waiting, and is possible again once the account is released.
    customers.set_frozen(engine, audit.Origin(), payer.account, frozen=False, reason="x")
    assert approvals.approve(engine, waiting.approval_id, boss).entry_id


def test_standing_order_names_the_reason(engine, overtaken, payer, payee, balance_of):
    today = standing_orders.today(engine)
    standing_orders.create(
        engine,
        standing_orders.NewOrder(payer.id, key(), payer.account, payee.number, 500, EUR, "", "monthly", today),
    )
    runs = overtaken(payer.account, "frozen", lambda: standing_orders.run_due(engine, today))
    (run,) = (run for run in runs if run.owner_id == payer.id)
    assert (run.outcome, run.reason) == ("failed", "frozen")
    assert balance_of(payee.account) == 0


def test_standing_orders_of_who_is_disabled_go_on_until_the_account_is_frozen(engine, owner, payer, payee, balance_of):
    today = standing_orders.today(engine)
    for first in (today, today + timedelta(days=1)):
        standing_orders.create(
            engine,
            standing_orders.NewOrder(payer.id, key(), payer.account, payee.number, 500, EUR, "", "monthly", first),
        )
    with owner.begin() as connection:
        connection.execute(text("UPDATE users SET is_enabled = false WHERE id = :id"), {"id": payer.id})

    def outcomes():
        return [run.outcome for run in standing_orders.run_due(engine, today) if run.owner_id == payer.id]

    assert outcomes() == ["paid"]
    customers.set_frozen(engine, audit.Origin(), payer.account, frozen=True, reason="x")
    with owner.begin() as connection:
        moved = "UPDATE standing_orders SET first_date = :today, next_date = :today WHERE first_date > :today"
        connection.execute(text(f"{moved} AND owner_id = :id"), {"today": today, "id": payer.id})
    assert outcomes() == ["failed"]
    assert balance_of(payee.account) == 500


def test_account_that_never_stays_as_it_is_makes_the_order_end_as_busy(engine, payer, payee, monkeypatch):
    monkeypatch.setattr(ledger, "sides_of", lambda *_: (payer_side, payee_side))
    payer_side, payee_side = (
        ledger.Side(who.account, who.number, who.id, "checking", EUR, "open", 10_000, 0, 0) for who in (payer, payee)
    )
    customers.set_frozen(engine, audit.Origin(), payer.account, frozen=True, reason="x")
    with pytest.raises(ledger.BusyError):
        transfer(engine, payer, payee)


def test_page_and_api_say_why(app, logged_in, overtaken, payer, payee, balance_of):
    form = {**logged_in.fields("/transfer"), "from_account": str(payer.account), "to_number": payee.number,
            "amount": "5", "reference": ""}  # fmt: skip
    answer = overtaken(payer.account, "frozen", lambda: logged_in.post("/transfer", form))
    assert answer.status_code == 422
    assert "This account is frozen. Ask the bank." in answer.get_data(as_text=True)

    bearer = app.extensions["bank"].tokens.issue(payer.id, 0, ["transfers:write", "payments:write"])
    order = {"from_account": str(payer.account), "amount_minor": 500, "currency": EUR}
    for path, more in (
        ("/api/v1/transfers", {"to_number": payee.number}),
        ("/api/payment", {"creditor_name": "Ann", "creditor_iban": IBAN}),
    ):
        headers = {"Authorization": f"Bearer {bearer}", "Idempotency-Key": key()}

        def send(path=path, body=order | more, headers=headers):
            return app.test_client().post(path, json=body, headers=headers, base_url=ORIGIN)

        customers.set_frozen(app.extensions["bank"].engine, audit.Origin(), payer.account, frozen=False, reason="x")
        answer = overtaken(payer.account, "frozen", send)
        assert (answer.status_code, answer.json["type"]) == (422, "urn:bank:problem:account-frozen")
    assert (balance_of(payer.account), balance_of(payee.account)) == (10_000, 0)


def test_customer_who_was_blocked_after_the_form_was_shown_sends_nothing(
    app, owner, logged_in, payer, payee, balance_of
):
    form = {**logged_in.fields("/transfer"), "from_account": str(payer.account), "to_number": payee.number,
            "amount": "5", "reference": ""}  # fmt: skip
    bearer = app.extensions["bank"].tokens.issue(payer.id, 0, ["transfers:write"])
    with owner.begin() as connection:
        connection.execute(text("UPDATE users SET is_enabled = false WHERE id = :id"), {"id": payer.id})
    answer = logged_in.post("/transfer", form)
    assert (answer.status_code, answer.location.split("?")[0]) == (302, "/login")
    answer = app.test_client().post(
        "/api/v1/transfers",
        json={"from_account": str(payer.account), "to_number": payee.number, "amount_minor": 500, "currency": EUR},
        headers={"Authorization": f"Bearer {bearer}", "Idempotency-Key": key()},
        base_url=ORIGIN,
    )
    assert (answer.status_code, answer.content_type) == (401, "application/problem+json")
    assert (balance_of(payer.account), balance_of(payee.account)) == (10_000, 0)


def test_scheduler_outlives_an_account_that_stays_locked(engine, settings, monkeypatch):
    stop = threading.Event()
    tries = []

    def pay_interest(*_):
        tries.append(1)
        if len(tries) > 1:
            stop.set()
        raise ledger.BusyError

    monkeypatch.setattr(interest, "pay", pay_interest)
    monkeypatch.setattr(stop, "wait", lambda _seconds: None)
    scheduler.run_forever(engine, settings, stop)
    assert len(tries) == 2
