"""Standing orders, interest and the scheduler."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from datetime import date, timedelta
from itertools import pairwise

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import text

from bank.cli import main
from bank.config import Approvals
from bank.services import interest, ledger, reconcile, scheduler, standing_orders
from conftest import browser

WEEK, MONTH = "weekly", "monthly"


@pytest.fixture(autouse=True)
def _configured_log(app):
    """Errors go to the bank's own log, as they do in a scheduler."""


@pytest.fixture(scope="module")
def today(engine):
    return standing_orders.today(engine)


@pytest.fixture
def order(engine, owner, today):
    """Make a standing order; a first date in the past needs the owner's hand."""

    def make(payer, payee, amount=100, *, first=None, last=None, frequency=MONTH, key=None):
        new = standing_orders.NewOrder(
            payer.id, key or uuid.uuid4().hex, payer.account, payee.number, amount, "EUR", "Rent", frequency,
            max(first or today, today), None,
        )  # fmt: skip
        order_id = standing_orders.create(engine, new).standing_order_id
        with owner.begin() as connection:
            connection.execute(
                text("UPDATE standing_orders SET first_date = :first, next_date = :first, last_date = :last "
                     "WHERE id = :id"),
                {"first": first or today, "last": last, "id": order_id},
            )  # fmt: skip
        return order_id

    yield make
    with owner.begin() as connection:
        connection.execute(text("UPDATE standing_orders SET status = 'cancelled', next_date = NULL"))


def runs_of(owner, order_id):
    with owner.connect() as connection:
        return [
            tuple(row)
            for row in connection.execute(
                text("SELECT due_date, outcome, reason FROM standing_order_runs WHERE order_id = :id ORDER BY 1"),
                {"id": order_id},
            )
        ]


# Dates


@pytest.mark.parametrize(
    ("first", "after", "due"),
    [("2026-01-31", "2026-01-30", "2026-01-31"), ("2026-01-31", "2026-01-31", "2026-02-28"),
     ("2026-01-31", "2026-02-28", "2026-03-31"), ("2026-01-31", "2026-03-31", "2026-04-30"),
     ("2023-12-31", "2024-01-31", "2024-02-29"), ("2024-02-29", "2025-02-28", "2025-03-29"),
     ("2026-11-30", "2027-02-28", "2027-03-30"), ("2026-12-15", "2026-12-15", "2027-01-15")],
)  # fmt: skip
def test_month_ends(first, after, due):
    found = standing_orders.next_due(date.fromisoformat(first), MONTH, date.fromisoformat(after))
    assert found == date.fromisoformat(due)


@given(st.dates(date(2000, 1, 1), date(2100, 1, 1)), st.sampled_from([WEEK, MONTH]), st.integers(1, 30))
def test_due_dates_leave_no_week_or_month_out(first, frequency, count):
    due = [first]
    for _ in range(count):
        due.append(standing_orders.next_due(first, frequency, due[-1]))
    if frequency == WEEK:
        assert {(b - a).days for a, b in pairwise(due)} == {7}
    else:
        months = [day.year * 12 + day.month for day in due]
        assert months == list(range(months[0], months[0] + len(due)))
        assert all(day.day == first.day or (day + timedelta(days=1)).day == 1 for day in due)
    for between in (due[-1] - timedelta(days=1), due[-2]):
        assert standing_orders.next_due(first, frequency, between) == due[-1]


# Paying


def overdue(engine):
    reconcile._cache.clear()
    return reconcile.figures(engine).overdue_orders


def test_missed_dates_are_caught_up_once(engine, owner, make_customer, balance_of, order, today):
    payer, payee = make_customer(1_000), make_customer()
    first = today - timedelta(weeks=3)
    order_id = order(payer, payee, frequency=WEEK, first=first)
    assert overdue(engine) == 1
    assert [run.outcome for run in standing_orders.run_due(engine, today)] == ["paid"] * 4
    assert standing_orders.run_due(engine, today) == []
    assert overdue(engine) == 0
    assert balance_of(payee.account) == 400
    assert [run[0] for run in runs_of(owner, order_id)] == [first + timedelta(weeks=n) for n in range(4)]
    view = standing_orders.list_of(engine, payer.id)[0]
    assert (view.next_date, view.last_outcome) == (today + timedelta(weeks=1), "paid")


def test_many_schedulers_pay_once(engine, make_customer, balance_of, order, today):
    payers, payee = [make_customer(10_000) for _ in range(6)], make_customer()
    for payer in payers:
        order(payer, payee, frequency=WEEK, first=today - timedelta(weeks=4))
    with ThreadPoolExecutor(6) as pool:
        done = [run for runs in pool.map(lambda _: standing_orders.run_due(engine, today), range(6)) for run in runs]
    assert len(done) == len({(run.order_id, run.due_date) for run in done}) == 30
    assert balance_of(payee.account) == 3_000


def test_date_is_never_paid_twice_even_if_its_order_is_set_back(engine, owner, make_customer, balance_of, order, today):
    payer, payee = make_customer(1_000), make_customer()
    order_id = order(payer, payee, frequency=WEEK)
    standing_orders.run_due(engine, today)
    with owner.begin() as connection:
        connection.execute(
            text("UPDATE standing_orders SET next_date = :day WHERE id = :id"), {"day": today, "id": order_id}
        )
    assert standing_orders.run_due(engine, today) == []
    assert balance_of(payee.account) == 100


def test_lack_of_money_is_recorded_and_not_tried_again(engine, owner, app, make_customer, balance_of, order, today):
    payer, payee, other = make_customer(150), make_customer(), make_customer(500)
    order_id = order(payer, payee, frequency=WEEK, first=today - timedelta(weeks=1))
    rich = order(other, payee)
    outcomes = {(run.order_id, run.outcome) for run in standing_orders.run_due(engine, today)}
    assert outcomes == {(order_id, "paid"), (order_id, "failed"), (rich, "paid")}
    assert runs_of(owner, order_id)[-1] == (today, "failed", "insufficient_funds")
    assert standing_orders.run_due(engine, today) == []
    assert balance_of(payer.account) == 50
    client = browser(app)
    client.log_in(payer.email)
    page = client.get("/standing-orders").get_data(as_text=True)
    assert "not enough money" in page
    assert "not tried again" in page
    assert "Your standing order of 1.00 EUR could not be carried out" in client.get("/notifications").get_data(
        as_text=True
    )


def test_account_that_was_closed_fails_and_stops_nobody_else(engine, owner, make_customer, order, today):
    payer, gone, payee = make_customer(1_000), make_customer(), make_customer()
    failed, paid = order(payer, gone), order(payer, payee)
    with owner.begin() as connection:
        connection.execute(text("UPDATE accounts SET status = 'closed' WHERE id = :id"), {"id": gone.account})
    outcomes = {run.order_id: run.outcome for run in standing_orders.run_due(engine, today)}
    assert outcomes == {failed: "failed", paid: "paid"}


def test_locked_account_is_left_for_the_next_pass(engine, settings, owner, make_customer, order, today):
    from bank.database import make_engine

    impatient = make_engine(settings, lock_ms=50)
    payer, payee, other = make_customer(1_000), make_customer(), make_customer(1_000)
    stuck, free = order(payer, payee, frequency=WEEK), order(other, make_customer())
    with engine.begin() as connection:
        ledger.lock(connection, [payer.account])
        assert [run.order_id for run in standing_orders.run_due(impatient, today)] == [free]
    assert [run.order_id for run in standing_orders.run_due(impatient, today)] == [stuck]
    impatient.dispose()


def test_last_date_finishes_the_order(engine, make_customer, order, today):
    payer = make_customer(1_000)
    order(payer, make_customer(), frequency=WEEK, first=today - timedelta(weeks=1), last=today)
    assert len(standing_orders.run_due(engine, today)) == 2
    assert standing_orders.list_of(engine, payer.id)[0].status == "finished"


def test_large_payment_waits_for_approval(engine, make_customer, order, today):
    payer = make_customer(1_000)
    order(payer, make_customer(), 200)
    [run] = standing_orders.run_due(engine, today, Approvals(limit_minor=100))
    assert run.outcome == "waiting"
    assert standing_orders.list_of(engine, payer.id)[0].last_outcome == "waiting"


def test_same_key_makes_one_order_and_bad_ones_are_refused(engine, make_customer, today):
    payer, payee, dollars = make_customer(1_000), make_customer(), make_customer(currency="USD")

    def new(**changes):
        values = {
            "user_id": payer.id, "key": "k", "from_account": payer.account, "to_number": payee.number,
            "amount_minor": 5, "currency": "EUR", "reference": "", "frequency": MONTH, "first_date": today,
        }  # fmt: skip
        return standing_orders.create(engine, standing_orders.NewOrder(**(values | changes)))

    first, again = new(), new()
    assert (first.standing_order_id, again.replayed) == (again.standing_order_id, True)
    with pytest.raises(ledger.KeyReusedError):
        new(amount_minor=6)
    day = timedelta(days=1)
    for error, changes in (
        (standing_orders.DatesError, {"first_date": today - day}),
        (standing_orders.DatesError, {"first_date": today + day, "last_date": today}),
        (standing_orders.DatesError, {"first_date": date(9999, 12, 31)}),
        (ledger.UnknownRecipientError, {"to_number": "BK00"}),
        (ledger.SameAccountError, {"to_number": payer.number}),
        (ledger.CurrencyMismatchError, {"to_number": dollars.number}),
        (ledger.AccountNotFoundError, {"from_account": payee.account}),
        (ledger.LedgerError, {"frequency": "daily"}),
        (ledger.LedgerError, {"amount_minor": 0}),
    ):
        with pytest.raises(error):
            new(key=uuid.uuid4().hex, **changes)
    standing_orders.cancel(engine, payer.id, first.standing_order_id)


# Pages


def test_customer_makes_and_cancels_an_order(app, engine, make_customer, today):
    payer, payee = make_customer(10_000), make_customer()
    client = browser(app)
    client.log_in(payer.email)
    assert "no standing orders" in client.get("/standing-orders").get_data(as_text=True)
    form = {
        **client.fields("/standing-orders/new"), "from_account": str(payer.account), "to_number": payee.number,
        "amount": "12.50", "reference": "Piano lessons", "frequency": "weekly", "first_date": today.isoformat(),
        "last_date": "",
    }  # fmt: skip
    refused = client.post("/standing-orders/new", {**form, "first_date": "2020-01-01"})
    assert (refused.status_code, "from today on" in refused.get_data(as_text=True)) == (422, True)
    for change in ({"first_date": "31.12.2030"}, {"amount": "x"}, {"frequency": "daily"}, {"to_number": "BK1"}):
        assert client.post("/standing-orders/new", {**form, **change}).status_code == 400
    for _ in range(2):
        assert client.post("/standing-orders/new", form).location == "/standing-orders"
    [view] = standing_orders.list_of(engine, payer.id)
    page = client.get("/standing-orders").get_data(as_text=True)
    assert "12.50" in page
    assert "Piano lessons" in page
    assert payee.number not in page
    stranger = browser(app)
    stranger.log_in(payee.email)
    path = f"/standing-orders/{view.id}/cancel"
    token = {"csrf_token": stranger.fields("/standing-orders/new")["csrf_token"]}
    assert stranger.post(path, token).status_code == 404
    token = {"csrf_token": form["csrf_token"]}
    assert [client.post(path, token).status_code for _ in range(2)] == [303, 303]
    assert "Cancelled" in client.get("/standing-orders").get_data(as_text=True)


# Interest


def test_interest_is_rounded_once_half_upwards():
    assert interest.earned(365 * 1_000_000, 10_000) == 10_000  # 10,000.00 for a year at 1 %
    assert interest.earned(365 * 500, 1_000) == 1  # half a cent
    assert interest.earned(365 * 499, 1_000) == 0
    days = [(date(2026, 10, 1), 1_000), (date(2026, 10, 31), -1_500)]
    assert interest.day_sum(days, date(2026, 11, 1)) == 30 * 1_000  # below zero earns nothing
    assert interest.day_sum([], date(2026, 11, 1)) == 0


def test_interest_is_paid_once_for_a_month(engine, owner, make_customer, balance_of, today):
    saver = make_customer()
    month = (today.replace(day=1) - timedelta(days=1)).replace(day=1)
    with owner.begin() as connection:
        connection.execute(
            text("UPDATE accounts SET kind = 'savings', created_at = '2020-01-01' WHERE id = :id"),
            {"id": saver.account},
        )
        entry = uuid.uuid4()
        connection.execute(
            text("INSERT INTO journal_entries (id, kind, currency, booked_at) VALUES (:id, 'deposit', 'EUR', :at)"),
            {"id": entry, "at": month + timedelta(days=9)},
        )
        connection.execute(
            text("INSERT INTO postings (entry_id, account_id, amount_minor) "
                 "VALUES (:e, :a, 1000000), (:e, :s, -1000000)"),
            {"e": entry, "a": saver.account, "s": ledger.SETTLEMENT["EUR"]},
        )  # fmt: skip
    days = (today.replace(day=1) - month).days - 9
    expected = (2 * days * 1_000_000 * 20_000 + 365_000_000) // 730_000_000
    assert interest.pay(engine, month, 0) == []
    with ThreadPoolExecutor(4) as pool:
        paid = [one for some in pool.map(lambda _: interest.pay(engine, month, 20_000), range(4)) for one in some]
    assert [one.amount_minor for one in paid if one.account_id == saver.account] == [expected]
    assert balance_of(saver.account) == 1_000_000 + expected
    assert interest.pay(engine, month, 20_000) == []


# The scheduler


def test_run_due_for_one_day(engine, config_file, make_customer, balance_of, order, today):
    payer, payee = make_customer(1_000), make_customer()
    order(payer, payee, first=today - timedelta(days=2))

    def run(*arguments):
        return CliRunner().invoke(main, ["run-due", *arguments], env={"BANK_CONFIG": str(config_file)})

    assert run("--date", str(today - timedelta(days=3))).output.startswith("standing orders: 0 paid")
    assert run().output.startswith("standing orders: 1 paid, 0 waiting, 0 failed; interest: 0 accounts")
    assert balance_of(payee.account) == 100
    refused = run("--date", str(today + timedelta(days=1)))
    assert (refused.exit_code, "is not over yet" in refused.stderr) == (1, True)


def test_scheduler_survives_errors_and_works_on(engine, settings, servers, monkeypatch):
    from sqlalchemy.exc import OperationalError

    stop, calls = threading.Event(), []

    def fail_first(*_):
        calls.append(1)
        if len(calls) == 1:
            raise OperationalError("x", {}, Exception("gone"))
        stop.set()
        return scheduler.Pass()

    fast = settings.scheduler.model_copy(update={"interval_seconds": 0})
    monkeypatch.setattr(scheduler, "run_due", fail_first)
    scheduler.run_forever(engine, settings.model_copy(update={"scheduler": fast}), stop)
    assert len(calls) == 2


def test_two_schedulers_as_processes(servers, owner, tmp_path, make_customer, balance_of, order, today):
    """Both are killed and started again while they pay; each date is paid once, and the log names no account."""
    from conftest import configuration_text

    payers, payee = [make_customer(100_000) for _ in range(4)], make_customer()
    for payer in payers:
        order(payer, payee, frequency=WEEK, first=today - timedelta(weeks=20))
    path, log = tmp_path / "bank.toml", tmp_path / "bank.json"
    path.write_text(configuration_text(servers, log=str(log), more="[scheduler]\ninterval_seconds = 1"))

    def start():
        return subprocess.Popen(
            [sys.executable, "-m", "bank", "scheduler"], env={**os.environ, "BANK_CONFIG": str(path)}
        )

    processes = [start(), start()]
    try:
        deadline = time.monotonic() + 90
        while not balance_of(payee.account) and time.monotonic() < deadline:
            time.sleep(0.02)
        processes[0].kill()
        processes[0].wait()
        processes[0] = start()
        while balance_of(payee.account) < 8_400 and time.monotonic() < deadline:
            time.sleep(0.05)
        processes[1].send_signal(signal.SIGTERM)
        assert processes[1].wait(10) == 0
    finally:
        for process in processes:
            process.kill()
            process.wait()
    assert balance_of(payee.account) == 8_400
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert sum(line["message"] == "standing order run" for line in lines) >= 80
    assert payee.number not in log.read_text()


def test_reconciles_only_when_it_is_time_and_nobody_else_does(engine, superuser, monkeypatch):
    calls = []
    monkeypatch.setattr(scheduler.reconcile, "reconcile", lambda _: calls.append(1) or scheduler.reconcile.Result())
    with superuser.begin() as connection:
        connection.execute(text("SET LOCAL session_replication_role = replica"))
        connection.execute(text("DELETE FROM reconciliations"))
    with superuser.begin() as connection:
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": scheduler.RECONCILE_LOCK})
        assert scheduler.reconcile_if_due(engine, 1) is None
    assert scheduler.reconcile_if_due(engine, 1).count == 0
    assert calls == [1]
    monkeypatch.undo()
    assert scheduler.reconcile_if_due(engine, 1).count == 0
    assert scheduler.reconcile_if_due(engine, 1) is None
