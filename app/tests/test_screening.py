"""Judging orders where they are carried out, on real PostgreSQL and Redis: what is seen, kept, held, told and shown."""

import json
import re
import uuid
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from bank import log, metrics
from bank.app import create_app
from bank.config import Approvals, ConfigError, Fraud, Logging, load_settings
from bank.services import accounts, approvals, audit, beneficiaries, ledger, payments, screening, transfers
from bank.services.fraud import Decision, Indicator
from bank.services.screening import Circumstances, Novelty, Screening
from conftest import ORIGIN, PASSWORD, browser, configuration_text
from test_api import Program

GERMAN = "DE89 3704 0044 0532 0130 00"
# Whatever is not quite usual is held.
STRICT = Fraud(flag_from_score=1, hold_from_score=1)
OBSERVE = Fraud(flag_from_score=1, hold_from_score=1, mode="observe")


def new_key():
    return uuid.uuid4().hex


def order(payer, to, amount, key=None):
    return transfers.Order(payer.id, key or new_key(), payer.account, to.number, amount, "EUR", "")


@pytest.fixture
def send(engine):
    """Transfer money under a policy."""

    def send(payer, to, amount, *, policy=None, key=None, limits=None, **circumstances):
        judge = Screening(policy or Fraud(), Circumstances(**circumstances))
        return transfers.transfer(engine, order(payer, to, amount, key), limits or Approvals(), judge)

    return send


@pytest.fixture
def kept(owner):
    """Read the decisions about a customer's orders, the oldest first."""

    def read(customer):
        with owner.connect() as connection:
            query = "SELECT * FROM fraud_decisions WHERE user_id = :id ORDER BY id"
            return connection.execute(text(query), {"id": customer.id}).all()

    return read


@pytest.fixture
def points(send, kept):
    """Return the points of one more order."""

    def read(payer, to, amount=100, **more):
        send(payer, to, amount, **more)
        return kept(payer)[-1].indicators

    return read


@pytest.fixture
def befriended(engine):
    """Let a customer know a payee, so that nothing about an order is new."""

    def befriend(payer, payee):
        beneficiaries.add(engine, payer.id, "Payee", payee.number)

    return befriend


@pytest.fixture
def events(engine):
    """Write to the audit trail what happened to a person just now."""

    def write(customer, action, count=1, *, address="192.0.2.7"):
        for _ in range(count):
            with engine.begin() as connection:
                target = audit.Object("user", str(customer.id))
                audit.record(connection, audit.Origin(None, address), action, target)

    return write


def money(engine, customer):
    view = accounts.get(engine, customer.id, customer.account)
    return view.balance_minor, view.held_minor


# What is seen


def test_each_order_is_kept_once_with_its_reasons(send, kept, make_customer, payee):
    payer = make_customer(100_000)
    receipt = send(payer, payee, 2_500, key="one", is_new_place=True)
    assert send(payer, payee, 2_500, key="one", is_new_place=True).replayed
    (row,) = kept(payer)
    assert (row.entry_id, row.approval_id, row.kind, row.amount_minor, row.currency) == (
        receipt.entry_id, None, "transfer", 2_500, "EUR",
    )  # fmt: skip
    assert (row.payee, row.score, row.decision, row.rules) == (payee.number, 23, "allowed", "1")
    assert row.indicators == {"new-payee": 15, "new-device": 8}
    assert row.inputs == {
        "amount_minor": 2_500, "low_value_minor": 3_000, "available_minor": 100_000, "earlier_orders": 0,
        "largest_minor": 0, "recent_orders": 0, "by_program": False, "knows_payee": False, "is_new_device": False,
        "is_new_place": True, "refused_log_ins": 0, "credential_changes": 0,
    }  # fmt: skip
    assert datetime.now(UTC) - row.decided_at < timedelta(minutes=1)


def test_payee_is_known_once_paid_or_saved(engine, send, points, befriended, make_customer):
    payer, paid, saved, friend_of_another = make_customer(100_000), *(make_customer() for _ in range(3))
    assert points(payer, paid) == {"new-payee": 15}
    assert points(payer, paid) == {}
    befriended(payer, saved)
    befriended(make_customer(), friend_of_another)
    send(make_customer(100_000), friend_of_another, 1)
    assert points(payer, saved) == {}
    assert points(payer, friend_of_another) == {"new-payee": 15}
    order = payments.PaymentOrder(payer.id, new_key(), payer.account, "Grid", GERMAN, 100, "EUR", "")
    for seen in ({"new-payee": 15}, {}):
        again = payments.PaymentOrder(**{**vars(order), "key": new_key()})
        receipt = payments.pay(engine, again, judge=Screening(Fraud(), Circumstances(by_program=True)))
        assert dict(receipt.screened.assessment.points) == seen


def test_order_that_was_turned_down_does_not_make_its_payee_known(engine, send, points, make_customer, boss):
    payer, payee = make_customer(100_000), make_customer()
    first = send(payer, payee, 100, policy=STRICT)
    assert points(payer, payee) == {"new-payee": 15}  # it still waits, and this one is booked
    other = make_customer()
    rejected, approved = send(payer, other, 100, policy=STRICT), send(payer, make_customer(), 100, policy=STRICT)
    approvals.reject(engine, rejected.approval_id, boss.id)
    assert points(payer, other, policy=STRICT) == {"new-payee": 15}
    approvals.approve(engine, first.approval_id, boss.id)
    approvals.approve(engine, approved.approval_id, boss.id)


def test_payee_of_an_approved_order_is_known(engine, send, points, make_customer, boss):
    payer, payee = make_customer(100_000), make_customer()
    approvals.approve(engine, send(payer, payee, 100, policy=STRICT).approval_id, boss.id)
    assert points(payer, payee) == {}


def test_amount_is_compared_with_what_the_account_paid_before(send, points, befriended, make_customer):
    payer, payee = make_customer(10_000_000), make_customer(5_000_000)
    befriended(payer, payee)
    # What comes in is no measure of what goes out.
    befriended(payee, payer)
    send(payee, payer, 4_000_000, limits=Approvals(limit_minor=10**9))
    assert points(payer, payee, 4_000) == {"amount": 15}
    for _ in range(4):
        send(payer, payee, 4_000, by_program=True)
    assert points(payer, payee, 4_000, by_program=True) == {}
    assert points(payer, payee, 4_001, by_program=True) == {"amount": 15}
    assert points(payer, payee, 12_004, by_program=True) == {"amount": 30}


def test_only_the_latest_movements_say_what_is_usual(send, points, befriended, make_customer):
    payer, payee = make_customer(10_000_000), make_customer()
    befriended(payer, payee)
    send(payer, payee, 1_000_000)
    for _ in range(screening.MOVEMENTS - 1):
        send(payer, payee, 10)
    assert points(payer, payee, 900_000, by_program=True).get("amount") is None
    send(payer, payee, 10)
    assert points(payer, payee, 950_000, by_program=True).get("amount") == 15  # 900,000 is the largest by now


def test_velocity_counts_the_orders_of_ten_minutes(superuser, send, points, kept, befriended, make_customer):
    payer, payee = make_customer(100_000), make_customer()
    befriended(payer, payee)
    for _ in range(5):
        assert points(payer, payee) == {}
    assert points(payer, payee) == {"velocity": 10}
    assert points(payer, payee, by_program=True) == {}
    with superuser.begin() as connection:
        connection.execute(text("ALTER TABLE fraud_decisions DISABLE TRIGGER append_only"))
        changed = "UPDATE fraud_decisions SET decided_at = now() - interval '10 minutes 1 second' WHERE user_id = :id"
        connection.execute(text(changed), {"id": payer.id})
        connection.execute(text("ALTER TABLE fraud_decisions ENABLE TRIGGER append_only"))
    assert points(payer, payee) == {}
    assert kept(payer)[-1].inputs["recent_orders"] == 0


def test_order_that_was_refused_leaves_nothing(send, kept, make_customer, payee):
    payer = make_customer(100)
    for attempt in range(2):
        with pytest.raises(ledger.InsufficientFundsError):
            send(payer, payee, 101, key="k", policy=STRICT if attempt else None)
    assert kept(payer) == []
    assert send(payer, payee, 100, key="k").entry_id


def test_credentials_in_doubt(superuser, points, events, befriended, make_customer):
    payer, payee = make_customer(100_000), make_customer()
    befriended(payer, payee)
    events(payer, "log-in-refused", 2)
    assert points(payer, payee) == {}
    events(payer, "log-in-refused")
    assert points(payer, payee) == {"credentials": 10}
    for action in ("password-change", "recovery-codes-renew", "second-factor-enrol", "second-factor-remove"):
        other = make_customer(100_000)
        befriended(other, payee)
        events(other, action)
        assert points(other, payee) == {"credentials": 10}, action
        older(superuser, other, "1 day 1 second")
        assert points(other, payee) == {}, action
    older(superuser, payer, "1 hour 1 second")
    assert points(payer, payee) == {}


def older(superuser, customer, interval):
    """Make what is in the audit trail about a person older, as only the database's superuser could."""
    with superuser.begin() as connection:
        connection.execute(text("ALTER TABLE audit_events DISABLE TRIGGER append_only"))
        connection.execute(
            text(f"UPDATE audit_events SET occurred_at = now() - interval '{interval}' WHERE object_id = :id"),
            {"id": str(customer.id)},
        )
        connection.execute(text("ALTER TABLE audit_events ENABLE TRIGGER append_only"))


def test_money_between_own_accounts_is_not_looked_at(engine, owner, kept, make_customer):
    payer = make_customer(100_000)
    second = make_customer()
    with owner.begin() as connection:
        connection.execute(
            text("UPDATE accounts SET owner_id = :owner WHERE id = :id"), {"owner": payer.id, "id": second.account}
        )
    receipt = transfers.transfer(engine, order(payer, second, 50_000), judge=Screening(STRICT))
    assert receipt.entry_id
    assert receipt.screened is None
    assert kept(payer) == []


# What is held


@pytest.fixture(scope="module")
def boss(make_customer):
    return make_customer(name="Sam Supervisor")


def test_held_order_reserves_its_money_and_is_carried_out_when_approved(engine, send, kept, make_customer, payee, boss):
    payer = make_customer(100_000)
    receipt = send(payer, payee, 5_000, policy=STRICT, key="k")
    assert (receipt.entry_id, receipt.replayed) == (None, False)
    assert receipt.screened.decision is Decision.HELD
    assert money(engine, payer) == (100_000, 5_000)
    (row,) = kept(payer)
    assert (row.decision, row.approval_id, row.entry_id) == ("held", receipt.approval_id, None)
    (waiting,) = [item for item in approvals.pending(engine) if item.id == receipt.approval_id]
    assert (waiting.fraud_score, waiting.fraud_indicators) == (30, {"amount": 15, "new-payee": 15})
    # Sent again, it gets the first answer, also under a policy that would not hold it now.
    again = send(payer, payee, 5_000, policy=Fraud(), key="k")
    assert (again.replayed, again.approval_id, again.screened) == (True, receipt.approval_id, None)
    with pytest.raises(approvals.OwnApprovalError):
        approvals.approve(engine, receipt.approval_id, payer.id)
    approvals.approve(engine, receipt.approval_id, boss.id)
    assert money(engine, payer) == (95_000, 0)
    assert len(kept(payer)) == 1


def test_held_order_that_is_refused_gives_its_money_back(engine, send, kept, make_customer, payee, boss):
    payer = make_customer(100_000)
    receipt = send(payer, payee, 5_000, policy=STRICT)
    approvals.reject(engine, receipt.approval_id, boss.id, "the customer did not order this")
    assert money(engine, payer) == (100_000, 0)
    (row,) = kept(payer)
    assert row.decision == "held"


def test_held_order_ends_by_itself(engine, superuser, send, make_customer, payee, boss):
    payer = make_customer(100_000)
    receipt = send(payer, payee, 5_000, policy=STRICT)
    with superuser.begin() as connection:
        connection.execute(text("ALTER TABLE approvals DISABLE TRIGGER USER"))
        connection.execute(
            text("UPDATE approvals SET expires_at = now() - interval '1 second' WHERE id = :id"),
            {"id": receipt.approval_id},
        )
        connection.execute(text("ALTER TABLE approvals ENABLE TRIGGER USER"))
    assert approvals.expire_due(engine) == 1
    assert money(engine, payer) == (100_000, 0)
    with pytest.raises(approvals.AlreadyDecidedError):
        approvals.approve(engine, receipt.approval_id, boss.id)
    (found,) = [item for item in screening.suspicious(engine) if item.user_id == payer.id]
    assert (found.decision, found.approval_status) == ("held", "expired")


def test_large_order_waits_once_whatever_its_score(engine, send, kept, make_customer, payee):
    payer = make_customer(100_000)
    for policy, decision in ((STRICT, "held"), (OBSERVE, "flagged"), (Fraud(), "allowed")):
        receipt = send(payer, payee, 5_000, policy=policy, limits=Approvals(limit_minor=4_999))
        row = kept(payer)[-1]
        assert (row.decision, row.approval_id) == (decision, receipt.approval_id)
    assert money(engine, payer) == (100_000, 15_000)


def test_observing_holds_nothing(engine, send, kept, make_customer, payee):
    payer = make_customer(100_000)
    receipt = send(payer, payee, 5_000, policy=OBSERVE)
    assert receipt.entry_id
    assert money(engine, payer) == (95_000, 0)
    assert [row.decision for row in kept(payer)] == ["flagged"]


def test_one_key_sent_at_once_is_held_once(engine, send, kept, make_customer, payee):
    payer = make_customer(100_000)
    with ThreadPoolExecutor(12) as pool:
        receipts = list(pool.map(lambda _: send(payer, payee, 5_000, policy=STRICT, key="k"), range(12)))
    assert len({receipt.approval_id for receipt in receipts}) == 1
    assert [receipt.replayed for receipt in receipts].count(False) == 1
    assert money(engine, payer) == (100_000, 5_000)
    assert len(kept(payer)) == 1


def test_orders_at_once_are_counted_one_after_the_other(send, kept, befriended, make_customer, payee):
    payer = make_customer(100_000)
    befriended(payer, payee)
    with ThreadPoolExecutor(12) as pool:
        list(pool.map(lambda _: send(payer, payee, 100), range(24)))
    # None missed another that its account had paid before it.
    assert sorted(row.inputs["recent_orders"] for row in kept(payer)) == list(range(24))
    assert [row.indicators.get("velocity", 0) for row in kept(payer)].count(20) == 14


def test_held_orders_at_once_reserve_no_more_than_there_is(engine, send, kept, make_customer, payee):
    payer = make_customer(1_000)

    def attempt(_):
        try:
            return send(payer, payee, 100, policy=STRICT).approval_id
        except ledger.InsufficientFundsError:
            return None

    with ThreadPoolExecutor(12) as pool:
        held = [found for found in pool.map(attempt, range(24)) if found]
    assert len(held) == len(kept(payer)) == 10
    assert money(engine, payer) == (1_000, 1_000)


# What is kept cannot be changed


@pytest.mark.parametrize("change", ["UPDATE fraud_decisions SET score = 0", "DELETE FROM fraud_decisions",
                                    "TRUNCATE fraud_decisions"])  # fmt: skip
def test_decisions_are_append_only(owner, send, make_customer, payee, change):
    send(make_customer(1_000), payee, 100)
    with pytest.raises(DBAPIError, match="append-only"), owner.begin() as connection:
        connection.execute(text(change))


def test_application_cannot_choose_when_it_decided(engine, make_customer, send, kept, payee):
    payer = make_customer(1_000)
    send(payer, payee, 100)
    copied = (
        "INSERT INTO fraud_decisions (user_id, kind, amount_minor, currency, payee, score, decision, rules, indicators,"
        " inputs, entry_id{}) SELECT user_id, kind, amount_minor, currency, payee, score, decision, rules, indicators,"
        " inputs, entry_id{} FROM fraud_decisions WHERE user_id = :id"
    )
    with pytest.raises(DBAPIError, match="permission denied"), engine.begin() as connection:
        connection.execute(text(copied.format(", decided_at", ", now() - interval '1 day'")), {"id": payer.id})
    with pytest.raises(DBAPIError, match="held_waits"), engine.begin() as connection:
        connection.execute(
            text(
                copied.format("", "").replace(
                    "SELECT user_id, kind, amount_minor, currency, payee, score, decision",
                    "SELECT user_id, kind, amount_minor, currency, payee, score, 'held'",
                )
            ),
            {"id": payer.id},
        )
    assert len(kept(payer)) == 1


# Where a log-in comes from


def test_first_log_in_is_nothing_new(engine, make_customer, events):
    person = make_customer()
    assert screening.novelty_of(engine, person.id, "192.0.2.1", knows_device=False) == Novelty()
    events(person, "log-in", address="192.0.2.1")
    events(person, "log-in-refused", address="192.0.2.99")
    events(make_customer(), "log-in", address="192.0.2.98")
    for address, is_new in (("192.0.2.1", False), ("192.0.2.2", True), ("192.0.2.99", True), ("192.0.2.98", True)):
        found = screening.novelty_of(engine, person.id, address, knows_device=True)
        assert found == Novelty(device=False, place=is_new), address
    assert screening.novelty_of(engine, person.id, "192.0.2.1", knows_device=False) == Novelty(device=True)


@pytest.mark.parametrize(
    ("one", "other", "are_same"),
    [("2001:db8:0:1::1", "2001:db8:0:1:ffff::2", True), ("2001:db8:0:1::1", "2001:db8:0:2::1", False),
     ("192.0.2.1", "192.0.2.1", True), ("192.0.2.1", "192.0.2.2", False), ("", "no address", True)],
)  # fmt: skip
def test_household_is_one_place(one, other, are_same):
    assert (screening.network_of(one) == screening.network_of(other)) is are_same


def pay(client, payer, payee, amount="45.00"):
    form = {**client.fields("/transfer"), "from_account": str(payer.account), "to_number": payee.number}
    return client.post("/transfer", {**form, "amount": amount, "reference": ""})


def test_pages_tell_browser_and_place(app, kept, befriended, make_customer, payee):
    payer = make_customer(100_000)
    befriended(payer, payee)

    def seen():
        found = kept(payer)[-1].inputs
        return found["is_new_device"], found["is_new_place"], found["by_program"]

    home = browser(app, "192.0.2.10")
    home.log_in(payer.email)
    assert pay(home, payer, payee, "1.00").status_code == 303
    assert seen() == (False, False, False)
    # The same browser again, then another one at the same place, then another one elsewhere.
    home.log_out()
    home.log_in(payer.email)
    pay(home, payer, payee, "1.00")
    assert seen() == (False, False, False)
    second = browser(app, "192.0.2.10")
    second.log_in(payer.email)
    pay(second, payer, payee, "1.00")
    assert seen() == (True, False, False)
    abroad = browser(app, "198.51.100.1")
    abroad.log_in(payer.email)
    pay(abroad, payer, payee, "1.00")
    assert seen() == (True, True, False)
    # A session whose cookie turns up somewhere else.
    home.client.environ_base["REMOTE_ADDR"] = "203.0.113.5"
    pay(home, payer, payee, "1.00")
    assert seen() == (False, True, False)


def test_new_password_does_not_make_a_browser_known(app, kept, make_customer, payee):
    payer = make_customer(100_000)
    browser(app, "192.0.2.10").log_in(payer.email)
    thief = browser(app, "198.51.100.1")
    thief.log_in(payer.email)
    changed = {"current": PASSWORD, "new": "another horse battery", "again": "another horse battery"}
    form = thief.fields("/security/password")
    assert thief.post("/security/password", {**form, **changed}).status_code == 303
    pay(thief, payer, payee)
    assert kept(payer)[-1].indicators == {"amount": 15, "new-payee": 15, "new-device": 15, "credentials": 10}


def test_session_of_an_earlier_release_is_nothing_new(app, kept, make_customer, payee, monkeypatch):
    from bank.routes import judges

    payer, client = make_customer(100_000), browser(app)
    monkeypatch.setattr(judges, "NOVELTY_KEY", "other")
    client.log_in(payer.email)
    monkeypatch.undo()
    assert pay(client, payer, payee, "1.00").status_code == 303
    assert kept(payer)[-1].indicators == {"new-payee": 15}


def program_at(app, customer, address):
    """A program that logged in from an address."""
    program = Program(app, customer)
    program.client.environ_base["REMOTE_ADDR"] = address
    body = {"email": customer.email, "password": PASSWORD, "scopes": ["transfers:write", "payments:write"]}
    answer = program.client.post("/api/v1/token", json=body, base_url=ORIGIN)
    program.headers = {"Authorization": f"Bearer {answer.json['access_token']}"}
    return program


def ask(program, payee, amount, key=None):
    body = {"from_account": str(program.customer.account), "to_number": payee.number, "amount_minor": amount,
            "currency": "EUR"}  # fmt: skip
    return program.call("POST", "/api/v1/transfers", body, headers={"Idempotency-Key": f'"{key or new_key()}"'})


def test_token_remembers_where_it_was_issued(app, kept, make_customer, payee):
    payer = make_customer(100_000)
    for address, is_new in (("192.0.2.10", False), ("192.0.2.10", False), ("192.0.2.11", True), ("192.0.2.11", False)):
        assert ask(program_at(app, payer, address), payee, 1).status_code == 201
        inputs = kept(payer)[-1].inputs
        assert (inputs["is_new_place"], inputs["is_new_device"], inputs["by_program"]) == (is_new, False, True)


# What programs, operators and staff see


@pytest.fixture(scope="module")
def strict_app(settings, owner):
    """The bank under a policy that holds whatever is not quite usual."""
    app = create_app(settings.model_copy(update={"fraud": STRICT}))
    yield app
    app.extensions["bank"].engine.dispose()


def test_program_hears_that_its_order_waits(strict_app, engine, kept, make_customer, payee, boss):
    payer = make_customer(100_000)
    program, key = Program(strict_app, payer), new_key()
    first, again = ask(program, payee, 5_000, key), ask(program, payee, 5_000, key)
    assert (first.status_code, again.status_code) == (202, 202)
    assert first.json == again.json
    assert (first.json["status"], first.json["id"]) == ("waiting", str(kept(payer)[0].approval_id))
    assert ("Idempotency-Replayed" in first.headers, again.headers["Idempotency-Replayed"]) == (False, "true")
    # Nothing tells a thief what gave them away.
    assert "score" not in first.get_data(as_text=True)
    payment = {"from_account": str(payer.account), "creditor_name": "Grid", "creditor_iban": GERMAN,
               "amount_minor": 5_000, "currency": "EUR"}  # fmt: skip
    answer = program.call("POST", "/api/payment", payment, headers={"Idempotency-Key": f'"{new_key()}"'})
    assert (answer.status_code, answer.json["status"]) == (202, "waiting")
    assert kept(payer)[1].payee == "DE89370400440532013000"
    assert money(engine, payer) == (100_000, 10_000)
    for row in kept(payer):
        approvals.approve(engine, row.approval_id, boss.id)
    assert money(engine, payer) == (90_000, 0)


def test_customer_hears_that_the_bank_checks(strict_app, make_customer, payee):
    payer, client = make_customer(100_000), browser(strict_app)
    client.log_in(payer.email)
    answer = pay(client, payer, payee)
    assert answer.status_code == 303
    page = client.get(answer.location).get_data(as_text=True)
    assert "45.00 EUR waiting for approval" in page
    assert "score" not in page


def value(name, **labels):
    return metrics.REGISTRY.get_sample_value(name, labels) or 0


def test_operators_see_what_was_judged(strict_app, settings, tmp_path, make_customer, payee):
    counted = {
        "held": lambda: value("bank_fraud_decisions_total", decision="held"),
        "allowed": lambda: value("bank_fraud_decisions_total", decision="allowed"),
        "payee": lambda: value("bank_fraud_indicator_hits_total", indicator="new-payee"),
        "device": lambda: value("bank_fraud_indicator_hits_total", indicator="new-device"),
        "count": lambda: value("bank_fraud_score_count"),
        "sum": lambda: value("bank_fraud_score_sum"),
    }
    before = {name: read() for name, read in counted.items()}
    payer = make_customer(100_000)
    path = tmp_path / "bank.log"
    log.configure(settings.model_copy(update={"logging": Logging(path=str(path))}))
    try:
        key = new_key()
        held = ask(Program(strict_app, payer), payee, 5_000, key)
        ask(Program(strict_app, payer), payee, 5_000, key)
        second = make_customer(100_000)
        saved = strict_app.extensions["bank"].engine
        beneficiaries.add(saved, second.id, "Payee", payee.number)
        assert ask(Program(strict_app, second), payee, 100).status_code == 201
    finally:
        log.configure(settings)
    assert {name: read() - before[name] for name, read in counted.items()} == {
        "held": 1, "allowed": 1, "payee": 1, "device": 0, "count": 2, "sum": 30,
    }  # fmt: skip
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    (alert,) = [line for line in lines if line["event"]["dataset"] == "bank.fraud"]
    assert (alert["log.level"], alert["event"]["action"], alert["event"]["kind"]) == ("warning", "transfer", "alert")
    assert alert["user"]["id"] == str(payer.id)
    assert alert["bank"] == {
        "account": {"masked": f"•••• {payer.number[-4:]}"},
        "amount_minor": 5_000,
        "approval": {"id": held.json["id"]},
        "currency": "EUR",
        "fraud": {"decision": "held", "indicators": ["amount", "new-payee"], "rules": "1", "score": 30},
    }
    # Every order's own line tells its score, so that it can be searched for.
    orders = [line["bank"]["fraud"]["score"] for line in lines if line["event"]["dataset"] == "bank.transaction"]
    assert orders == [30, 0]
    written = path.read_text()
    assert payer.number not in written
    assert payee.number not in written


def test_every_series_exists_before_the_first_order(app):
    shown = metrics.exposition().decode()
    for decision in Decision:
        assert f'bank_fraud_decisions_total{{decision="{decision}"}}' in shown
    for indicator in Indicator:
        assert f'bank_fraud_indicator_hits_total{{indicator="{indicator}"}}' in shown
    assert 'bank_fraud_score_bucket{le="79.0"}' in shown


def staff(app, make_staff, role):
    client = browser(app)
    assert client.log_in(make_staff(role)[1]).status_code == 303
    return client


def test_supervisor_sees_why_an_order_waits_and_decides(strict_app, make_customer, make_staff, payee, balance_of):
    payer = make_customer(100_000, name="Paula Payer")
    waiting = ask(Program(strict_app, payer), payee, 5_000).json["id"]
    client = staff(strict_app, make_staff, "supervisor")
    page = client.get("/staff/approvals").get_data(as_text=True)
    card = next(part for part in page.split("<section")[1:] if waiting in part)
    assert "30 of 100" in card
    assert "unusual amount (15), new payee (15)" in card
    client.client.set_cookie("__Host-bank-language", "fr", domain="bank.test", secure=True)
    assert "montant inhabituel (15), nouveau bénéficiaire (15)" in client.get("/staff/approvals").text
    token = re.search(r'name="csrf_token"[^>]* value="([^"]+)"', page)[1]
    assert client.post(f"/staff/approvals/{waiting}/approve", {"csrf_token": token}).status_code == 303
    assert balance_of(payer.account) == 95_000


def test_order_without_points_shows_no_score(app, engine, make_customer, make_staff, befriended, payee, send):
    payer = make_customer(10_000_000)
    befriended(payer, payee)
    waiting = send(payer, payee, 100, limits=Approvals(limit_minor=99)).approval_id
    page = staff(app, make_staff, "supervisor").get("/staff/approvals").get_data(as_text=True)
    card = next(part for part in page.split("<section")[1:] if str(waiting) in part)
    assert "of 100" not in card


@pytest.mark.parametrize("role", ["supervisor", "auditor"])
def test_page_of_suspicious_orders(strict_app, engine, make_customer, make_staff, payee, boss, send, role):
    payer, calm = make_customer(100_000, name=f"Petra <{role}>"), make_customer(100_000, name="Carl Calm")
    send(calm, payee, 100)
    flagged = send(payer, payee, 5_000, policy=OBSERVE)
    held = send(payer, payee, 6_000, policy=STRICT)
    assert flagged.entry_id
    client = staff(strict_app, make_staff, role)
    page = client.get("/staff/fraud").get_data(as_text=True)
    first, second = [part for part in page.split("<li>") if f"Petra &lt;{role}&gt;" in part]
    assert "60.00 EUR" in first
    assert "Held · Waits" in first
    assert "50.00 EUR" in second
    assert "Carried out" in second
    assert f"•••• {payee.number[-4:]}" in second
    assert payee.number not in page
    assert "Carl Calm" not in page
    approvals.reject(engine, held.approval_id, boss.id)
    assert "Held · Rejected" in client.get("/staff/fraud").text


# Configuration


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("hold_from_score = 0", ["fraud.hold_from_score"]),
        ("hold_from_score = 101", ["fraud.hold_from_score"]),
        ("hold_from_score = 50.5", ["fraud.hold_from_score"]),
        ("hold_from_score = 50", ["fraud", "flag_from_score must not be above hold_from_score"]),
        ("flag_from_score = 'high'", ["fraud.flag_from_score"]),
        ("mode = 'off'", ["fraud.mode", "'hold' or 'observe'"]),
        ("limit_minor = -1", ["fraud.limit_minor"]),
        ("limits = { XAU = 1 }", ["fraud.limits", "no accounts in XAU"]),
        ("hold_score = 80", ["fraud.hold_score is not a known key"]),
    ],
)
def test_bad_configuration_is_refused(servers, tmp_path, content, words):
    path = tmp_path / "bank.toml"
    path.write_text(configuration_text(servers, more=f"[fraud]\n{content}\n"))
    with pytest.raises(ConfigError) as caught:
        load_settings(path)
    for word in words:
        assert word in str(caught.value)


def test_configuration_reaches_the_judge(servers, owner, tmp_path, make_customer, payee, kept):
    path = tmp_path / "bank.toml"
    more = "[fraud]\nmode = 'observe'\nflag_from_score = 15\nhold_from_score = 15\nlimits = { EUR = 10_000 }\n"
    path.write_text(configuration_text(servers, log=str(tmp_path / "bank.json"), more=more))
    app, payer = create_app(load_settings(path)), make_customer(100_000)
    assert ask(Program(app, payer), payee, 9_999).status_code == 201
    (row,) = kept(payer)
    assert (row.decision, row.score, row.inputs["low_value_minor"]) == ("flagged", 15, 10_000)
    app.extensions["bank"].engine.dispose()
