"""What the bank's staff do: at the counter, deciding for others, looking after users, reading the audit trail."""

import re
import uuid
from datetime import UTC, datetime
from typing import Any, NamedTuple

import pyotp
import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from bank.services import alerts, approvals, audit, notifications, second_factor, sign_ups, staffing
from bank.services.notifications import Kind
from conftest import browser


class Worker(NamedTuple):
    id: uuid.UUID
    email: str
    client: Any


@pytest.fixture
def worker(app, make_staff):
    """Log in somebody who works for the bank."""

    def enter(role):
        user_id, email = make_staff(role)
        client = browser(app)
        assert client.log_in(email).status_code == 303
        return Worker(user_id, email, client)

    return enter


def token(client, page="/security"):
    return re.search(r'name="csrf_token"[^>]* value="([^"]+)"', client.get(page).get_data(as_text=True))[1]


def act(client, path, **data):
    return client.post(path, {"csrf_token": token(client), **data})


def acts(engine, object_id):
    found = audit.read(engine, audit.Filter(object_id=str(object_id))).events
    return [event.action for event in found if event.action != "log-in"]


def cash(teller, account, kind, amount, **changes):
    path = f"/staff/accounts/{account}/cash"
    return teller.client.post(path, {**teller.client.fields(path), "kind": kind, "amount": amount, **changes})


# At the counter


def test_teller_finds_a_customer_by_email_or_iban_and_nobody_else(worker, make_customer):
    teller, customer = worker("teller"), make_customer(12_345, name="Clara Customer")
    grouped = " ".join(customer.number[start : start + 4] for start in range(0, 20, 4))
    for words in (customer.email.upper(), grouped):
        found = act(teller.client, "/staff/customers", words=words)
        assert (found.status_code, found.location) == (303, f"/staff/customers/{customer.id}")
    page = teller.client.get(found.location).get_data(as_text=True)
    assert "Clara Customer" in page
    assert "123.45" in page
    for words, status in (
        ("Clara", 404),
        (teller.email, 404),
        ("BK090000000000000001", 404),
        ("a\x00b", 404),
        ("", 400),
    ):
        assert act(teller.client, "/staff/customers", words=words).status_code == status, words
    for path in (f"/staff/customers/{teller.id}", "/staff/accounts/00000000-0000-4000-8000-000000000001"):
        assert teller.client.get(path).status_code == 404


def test_cash_moves_once_and_says_why_it_does_not(worker, make_customer, balance_of):
    teller, customer = worker("teller"), make_customer(10_000)
    assert cash(teller, customer.account, "deposit", "50.00", reference="till 3").status_code == 303
    path = f"/staff/accounts/{customer.account}/cash"
    form = {**teller.client.fields(path), "kind": "withdrawal", "amount": "20"}
    for _ in range(2):
        assert teller.client.post(path, form).status_code == 303
    assert balance_of(customer.account) == 13_000
    assert teller.client.post(path, {**form, "amount": "21"}).status_code == 409
    for changes, status, words in (({"amount": "130.01"}, 422, "not enough"), ({"amount": "1e3"}, 400, "in digits"),
                                   ({"kind": "gift"}, 400, "valid choice"), ({"key": ""}, 400, "")):  # fmt: skip
        response = cash(teller, customer.account, **{"kind": "withdrawal", "amount": "1"} | changes)
        assert response.status_code == status, changes
        assert words in response.get_data(as_text=True), changes
    assert balance_of(customer.account) == 13_000


def test_large_withdrawal_waits_for_somebody_else(worker, engine, make_customer, balance_of):
    teller, supervisor, customer = worker("teller"), worker("supervisor"), make_customer(5_000_000, name="Clara")
    assert cash(teller, customer.account, "withdrawal", "20000").status_code == 303
    (waiting,) = [item for item in approvals.pending(engine) if item.created_by == teller.id]
    assert balance_of(customer.account) == 5_000_000
    page = supervisor.client.get("/staff/approvals").get_data(as_text=True)
    assert "20,000.00 EUR" in page
    assert "Test teller" in page
    assert 'value="Approve"' not in teller.client.get("/staff/approvals").get_data(as_text=True)
    assert act(teller.client, f"/staff/approvals/{waiting.id}/approve").status_code == 403
    for _ in range(2):
        assert act(supervisor.client, f"/staff/approvals/{waiting.id}/approve").status_code == 303
    assert balance_of(customer.account) == 3_000_000
    assert act(supervisor.client, f"/staff/approvals/{uuid.uuid4()}/approve").status_code == 404


def test_customer_learns_what_was_decided(worker, app, engine, make_customer, balance_of):
    supervisor, payee = worker("supervisor"), make_customer()
    payer = make_customer(5_000_000)
    client = browser(app)
    client.log_in(payer.email)
    for decision, kind in (("reject", Kind.TRANSFER_REJECTED), ("approve", Kind.TRANSFER_APPROVED)):
        typed = {"from_account": str(payer.account), "to_number": payee.number, "amount": "15000", "reference": ""}
        review = client.post("/transfer/review", {**client.fields("/transfer"), **typed}).get_data(as_text=True)
        assert "checks transfers of this size" in review
        assert client.post("/transfer", {**client.fields("/transfer"), **typed}).status_code == 303
        (waiting,) = [item for item in approvals.pending(engine) if item.created_by == payer.id]
        assert act(supervisor.client, f"/staff/approvals/{waiting.id}/{decision}", reason="x").status_code == 303
        newest = notifications.latest(engine, payer.id)[0][0]
        assert (newest.kind, newest.details["amount_minor"]) == (kind, 1_500_000)
    assert balance_of(payee.account) == 1_500_000
    assert act(supervisor.client, f"/staff/approvals/{waiting.id}/reject", reason="x" * 141).status_code == 400


def test_nobody_decides_about_what_they_asked_for(worker, engine, app, make_customer, owner):
    supervisor, customer = worker("supervisor"), make_customer(5_000_000)
    teller = worker("teller")
    assert cash(teller, customer.account, "deposit", "20000").status_code == 303
    page = supervisor.client.get(f"/staff/accounts/{customer.account}").get_data(as_text=True)
    entry = re.search(r"/entries/([0-9a-f-]{36})/reverse", page)[1]
    path = f"/staff/accounts/{customer.account}/entries/{entry}/reverse"
    asked = supervisor.client.post(path, {**supervisor.client.fields(path), "reason": "wrong account"})
    assert asked.status_code == 303
    (waiting,) = [item for item in approvals.pending(engine) if item.created_by == supervisor.id]
    assert act(supervisor.client, f"/staff/approvals/{waiting.id}/approve").status_code == 403
    again = supervisor.client.post(path, {**supervisor.client.fields(path), "reason": "once more"})
    assert again.status_code == 422
    assert "reversed already" in again.get_data(as_text=True)
    assert act(worker("supervisor").client, f"/staff/approvals/{waiting.id}/approve").status_code == 303
    other = make_customer(100)
    assert supervisor.client.get(f"/staff/accounts/{other.account}/entries/{entry}/reverse").status_code == 404


def test_administrator_freezes_and_releases_with_a_reason(worker, app, engine, make_customer):
    admin, customer = worker("admin"), make_customer(10_000)
    path = f"/staff/accounts/{customer.account}"
    act(admin.client, f"{path}/freeze", reason="")
    assert acts(engine, customer.account) == []
    for _ in range(2):
        assert act(admin.client, f"{path}/freeze", reason="court order").status_code == 303
    assert "Frozen" in admin.client.get(path).get_data(as_text=True)
    assert cash(worker("teller"), customer.account, "withdrawal", "1").status_code == 422
    assert cash(worker("teller"), customer.account, "deposit", "1").status_code == 303
    assert act(admin.client, f"{path}/release", reason="lifted").status_code == 303
    assert acts(engine, customer.account) == ["account-release", "account-freeze"]
    kinds = [item.kind for item in notifications.latest(engine, customer.id)[0]]
    assert kinds.index(Kind.ACCOUNT_RELEASED) < kinds.index(Kind.ACCOUNT_FROZEN)


# Users


def test_disabled_user_is_out_at_once_and_stays_out_of_old_sessions(worker, engine):
    admin, teller = worker("admin"), worker("teller")
    path = f"/staff/users/{teller.id}"
    assert act(admin.client, f"{path}/disable").status_code == 303
    assert teller.client.get("/staff").status_code == 302
    assert act(admin.client, f"{path}/enable").status_code == 303
    assert teller.client.get("/staff").status_code == 302
    assert teller.client.log_in(teller.email).status_code == 303
    assert acts(engine, teller.id) == ["user-enable", "user-disable"]
    act(admin.client, f"/staff/users/{admin.id}/disable")
    assert admin.client.get("/staff").status_code == 200


@pytest.mark.parametrize("decider", ["admin", "supervisor"])
def test_role_changes_with_four_eyes_only(worker, engine, decider):
    admin, teller, other = worker("admin"), worker("teller"), worker(decider)
    for _ in range(2):
        assert act(admin.client, f"/staff/users/{teller.id}/role", role="supervisor").status_code == 303
    (change,) = [item for item in staffing.waiting(engine) if item.user_id == teller.id]
    assert staffing.get(engine, teller.id).role == "teller"
    assert act(admin.client, f"/staff/role-changes/{change.id}/approve").status_code == 403
    assert act(teller.client, f"/staff/role-changes/{change.id}/approve").status_code == 403
    assert act(other.client, f"/staff/role-changes/{change.id}/approve").status_code == 303
    assert staffing.get(engine, teller.id).role == "supervisor"
    assert teller.client.get("/staff").status_code == 302  # what the old role could do is over
    assert acts(engine, teller.id) == ["role-change-approve", "role-change-ask"]
    assert act(other.client, f"/staff/role-changes/{change.id}/reject").status_code == 303
    assert staffing.get(engine, teller.id).role == "supervisor"


def test_refused_role_stays_and_nobody_promotes_themselves(worker, engine):
    admin, teller, other = worker("admin"), worker("teller"), worker("admin")
    act(admin.client, f"/staff/users/{admin.id}/role", role="supervisor")
    assert [item for item in staffing.waiting(engine) if item.user_id == admin.id] == []
    act(admin.client, f"/staff/users/{teller.id}/role", role="admin")
    (change,) = [item for item in staffing.waiting(engine) if item.user_id == teller.id]
    assert act(other.client, f"/staff/role-changes/{change.id}/reject").status_code == 303
    assert staffing.get(engine, teller.id).role == "teller"
    assert act(admin.client, f"/staff/users/{teller.id}/role", role="owner").status_code == 400


def test_database_refuses_a_role_without_a_second_person_of_rank(worker, engine):
    admin, teller, other = worker("admin"), worker("teller"), worker("teller")
    act(admin.client, f"/staff/users/{teller.id}/role", role="admin")
    (change,) = [item for item in staffing.waiting(engine) if item.user_id == teller.id]

    def run(statement, **values):
        with engine.begin() as connection:
            return connection.execute(text(statement), {"change": change.id, **values}).scalar()

    query = "SELECT approve_role_change(:change, :decider)"
    for decider in (other.id, teller.id, uuid.uuid4()):
        assert run(query, decider=decider) is False
    with pytest.raises(DBAPIError, match="four_eyes"):
        run(query, decider=admin.id)
    with pytest.raises(DBAPIError, match="permission denied"):
        run("UPDATE users SET role = 'admin'")
    assert staffing.get(engine, teller.id).role == "teller"


def test_administrator_removes_a_lost_second_factor(worker, app, engine):
    admin, teller = worker("admin"), worker("teller")
    seed = second_factor.new_seed()
    code = pyotp.TOTP(seed).now()
    keys = app.extensions["bank"].keys
    second_factor.enrol(engine, keys, teller.id, seed=seed, code=code, origin=audit.Origin(teller.id))
    path = f"/staff/users/{teller.id}"
    assert "Remove the second factor" in admin.client.get(path).get_data(as_text=True)
    for _ in range(2):
        assert act(admin.client, f"{path}/second-factor/remove").status_code == 303
    assert not staffing.get(engine, teller.id).has_second_factor
    assert acts(engine, teller.id).count("second-factor-remove") == 1
    assert Kind.SECOND_FACTOR_OFF in {item.kind for item in notifications.latest(engine, teller.id)[0]}
    assert act(admin.client, f"/staff/users/{uuid.uuid4()}/second-factor/remove").status_code == 404
    with pytest.raises(staffing.OwnCaseError):
        staffing.remove_second_factor(engine, audit.Origin(teller.id), teller.id)


# Sign-ups


def test_supervisor_admits_one_and_turns_another_down(worker, app, engine, make_customer):
    supervisor, taken = worker("supervisor"), make_customer()
    people = {}
    for name, email in (("Nina New", f"{uuid.uuid4().hex}@test.local"), ("Tom Twice", taken.email), ("Rolf", "")):
        people[name] = (uuid.uuid4(), email or f"{uuid.uuid4().hex}@test.local")
        sign_ups.ask(engine, people[name][0], email=people[name][1], display_name=name, password="long enough for it")
    page = supervisor.client.get("/staff/sign-ups").get_data(as_text=True)
    assert "Nina New" in page
    assert "has this email already" in page

    def decide(name, decision):
        return act(supervisor.client, f"/staff/sign-ups/{people[name][0]}/{decision}").status_code

    assert decide("Nina New", "approve") == 303
    assert decide("Nina New", "approve") == 404
    assert decide("Tom Twice", "approve") == 303
    assert decide("Tom Twice", "reject") == 303
    assert decide("Rolf", "reject") == 303
    assert "Nina New" not in supervisor.client.get("/staff/sign-ups").get_data(as_text=True)
    nina, rolf = browser(app), browser(app)
    assert nina.log_in(people["Nina New"][1], "long enough for it").status_code == 303
    assert "Everyday" in nina.get("/accounts").get_data(as_text=True)
    assert rolf.log_in(people["Rolf"][1], "long enough for it").status_code == 401


# The audit trail


def test_auditor_reads_the_trail_and_searches_it(worker, make_customer):
    admin, auditor, customer = worker("admin"), worker("auditor"), make_customer()
    act(admin.client, f"/staff/accounts/{customer.account}/freeze", reason="<court>")

    def read(**asked):
        return auditor.client.get("/staff/audit", query_string=asked)

    page = read(object_id=str(customer.account), actor=str(admin.id), action="account-freeze").get_data(as_text=True)
    assert page.count("account-freeze") >= 1
    assert "&lt;court" in page or "\\u003ccourt" in page
    assert "Nothing found" in read(object_id=str(customer.account), until="2020-01-01").get_data(as_text=True)
    for wrong in ({"actor": "x"}, {"since": "yesterday"}, {"before": "x"}):
        assert read(**wrong).status_code == 400


# Alerts


def test_staff_see_open_alerts_and_those_that_ended(worker, engine):
    now = datetime.now(UTC)

    def notice(name, status, ends_at=None):
        labels = {"alertname": name, "severity": "p1", "instance": "db1"}
        return alerts.Notice(uuid.uuid4().hex, now, ends_at, status, labels, {"summary": f"{name} <b>"})

    alerts.record(engine, [notice("StaffSeesOpen", "firing"), notice("StaffSeesOver", "resolved", now)])
    page = worker("supervisor").client.get("/staff/alerts").get_data(as_text=True)
    opened, over = page.split("<h2>Over</h2>")
    assert "StaffSeesOpen &lt;b&gt;" in opened
    assert "StaffSeesOver" in over
    assert "StaffSeesOver" not in opened
    with engine.begin() as connection:
        connection.execute(text("UPDATE alerts SET status = 'resolved', ends_at = now(), closed_at = now()"))
