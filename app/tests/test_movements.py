"""Holds, approvals, cash, payments, reversals and overdrafts, on a real database."""

import threading
import uuid
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from bank.config import Approvals
from bank.services import (
    accounts,
    approvals,
    audit,
    cash,
    holds,
    ledger,
    notifications,
    overdrafts,
    payments,
    reversals,
    transfers,
)

GERMAN = "DE89 3704 0044 0532 0130 00"
SMALL = Approvals(limit_minor=100)


def new_key():
    return uuid.uuid4().hex


def order(customer, to, amount, *, key=None, reference=""):
    return transfers.Order(customer.id, key or new_key(), customer.account, to.number, amount, "EUR", reference)


@pytest.fixture(scope="module")
def staff(make_customer):
    return make_customer(name="Tess Teller")


@pytest.fixture(scope="module")
def boss(make_customer):
    return make_customer(name="Sam Supervisor")


@pytest.fixture
def hold_on(engine):
    def place(customer, amount, *, key=None, seconds=None):
        until = datetime.now(UTC) + timedelta(seconds=seconds) if seconds is not None else None
        claim = ledger.Claim.of(customer.id, key or new_key(), "hold", customer.account, amount)
        return holds.place(engine, claim, customer.account, amount, expires_at=until).hold_id

    return place


def money(engine, customer):
    """Return booked, reserved and available money."""
    view = accounts.get(engine, customer.id, customer.account)
    return view.balance_minor, view.held_minor, view.available_minor


def post(engine, hold_id, customer, to, amount, *, key=None):
    movement = ledger.Movement("transfer", customer.account, to.number, amount, "EUR", customer.id)
    key = key or new_key()
    return holds.post(engine, ledger.Claim.of(customer.id, key, "post", hold_id, amount), hold_id, movement)


# Holds


def test_hold_lowers_what_is_available_and_not_what_is_booked(engine, make_customer, hold_on):
    payer, payee = make_customer(1_000), make_customer()
    hold_on(payer, 600)
    assert money(engine, payer) == (1_000, 600, 400)
    with pytest.raises(ledger.InsufficientFundsError):
        transfers.transfer(engine, order(payer, payee, 401))
    transfers.transfer(engine, order(payer, payee, 400))
    assert money(engine, payer) == (600, 600, 0)


def test_database_itself_keeps_reserved_money(engine, make_customer, hold_on):
    payer, payee = make_customer(1_000), make_customer()
    hold_on(payer, 600)
    with pytest.raises(DBAPIError, match="within_overdraft"), engine.begin() as connection:
        movement = ledger.Movement("transfer", payer.account, payee.account, 401, "EUR", None)
        ledger.book(connection, uuid.uuid4(), movement, payer.account, payee.account)


def test_hold_is_posted_in_part_and_the_rest_is_free(engine, make_customer, hold_on):
    payer, payee = make_customer(1_000), make_customer()
    hold_id = hold_on(payer, 600)
    with pytest.raises(ledger.InsufficientFundsError):
        post(engine, hold_id, payer, payee, 601)
    first = post(engine, hold_id, payer, payee, 450, key="post")
    again = post(engine, hold_id, payer, payee, 450, key="post")
    assert (again.entry_id, again.replayed) == (first.entry_id, True)
    assert money(engine, payer) == (550, 0, 550)
    with pytest.raises(holds.HoldEndedError):
        post(engine, hold_id, payer, payee, 1)
    with pytest.raises(holds.HoldEndedError):
        holds.void(engine, hold_id)


def test_hold_is_voided_or_expires(engine, make_customer, hold_on):
    payer, payee = make_customer(1_000), make_customer()
    voided, over = hold_on(payer, 300), hold_on(payer, 200, seconds=-1)
    holds.void(engine, voided)
    holds.void(engine, voided)
    assert money(engine, payer) == (1_000, 200, 800)
    with pytest.raises(holds.HoldEndedError):
        post(engine, over, payer, payee, 100)
    with ThreadPoolExecutor(4) as pool:
        assert sum(pool.map(lambda _: holds.expire_due(engine), range(4))) == 1
    assert money(engine, payer) == (1_000, 0, 1_000)
    with pytest.raises(holds.HoldNotFoundError):
        holds.void(engine, uuid.uuid4())


def test_hold_cannot_be_posted_for_another_account(engine, make_customer, hold_on):
    payer, thief, payee = make_customer(1_000), make_customer(1_000), make_customer()
    hold_id = hold_on(payer, 300)
    with pytest.raises(holds.HoldNotFoundError):
        post(engine, hold_id, thief, payee, 100)


def test_same_key_holds_once(engine, make_customer, hold_on):
    payer = make_customer(1_000)
    assert hold_on(payer, 300, key="k") == hold_on(payer, 300, key="k")
    with pytest.raises(ledger.KeyReusedError):
        hold_on(payer, 301, key="k")
    assert money(engine, payer)[1] == 300


@pytest.mark.parametrize(
    ("statement", "reason"),
    [
        ("UPDATE balances SET held_minor = 0", "permission denied"),
        ("UPDATE holds SET amount_minor = 1", "permission denied"),
        ("DELETE FROM holds", "permission denied"),
        ("UPDATE approvals SET amount_minor = 1", "permission denied"),
        ("DELETE FROM standing_order_runs", "permission denied"),
        ("UPDATE interest_periods SET amount_minor = 1", "permission denied"),
        ("INSERT INTO holds (account_id, amount_minor, status) SELECT account_id, 1, 'voided' FROM balances LIMIT 1",
         "starts as held"),
        ("INSERT INTO idempotency_keys (user_id, key, fingerprint) SELECT id, 'x', '' FROM users LIMIT 1",
         "one_result"),
        ("SELECT set_overdraft_limit('00000000-0000-4000-8000-000000000001', NULL)", "has a limit"),
    ],
)  # fmt: skip
def test_application_may_do_no_more_than_it_needs(engine, make_customer, statement, reason):
    make_customer()
    with pytest.raises(DBAPIError, match=reason), engine.begin() as connection:
        connection.execute(text(statement))


@pytest.mark.parametrize("who", ["engine", "owner"])
@pytest.mark.parametrize("change", ["status = 'held'", "status = 'voided'", "entry_id = NULL"])
def test_ended_hold_is_never_changed(request, engine, make_customer, hold_on, who, change):
    hold_id = hold_on(make_customer(100), 50)
    holds.void(engine, hold_id)
    with pytest.raises(DBAPIError, match="can end once"), request.getfixturevalue(who).begin() as connection:
        connection.execute(text(f"UPDATE holds SET {change} WHERE id = :id"), {"id": hold_id})


def test_hold_and_transfer_at_once_never_promise_the_same_money(engine, make_customer):
    """Each alone leaves the rule in place; both together would break it, though they write different rows."""
    for _ in range(5):
        payer, payee = make_customer(1_000), make_customer()
        start = threading.Barrier(6)

        def attempt(number, payer=payer, payee=payee, start=start):
            start.wait()
            try:
                if number % 2:
                    transfers.transfer(engine, order(payer, payee, 600))
                else:
                    holds.place(engine, ledger.Claim.of(payer.id, new_key(), number), payer.account, 600)
            except ledger.InsufficientFundsError:
                return False
            return True

        with ThreadPoolExecutor(6) as pool:
            assert sum(pool.map(attempt, range(6))) == 1


# Cash and overdraft


def test_cash_in_and_out(engine, make_customer, staff):
    customer = make_customer()
    paid_in = cash.CashOrder(staff.id, "in", customer.account, 5_000, "EUR", "Counter 1")
    first, again = cash.deposit(engine, paid_in), cash.deposit(engine, paid_in)
    assert (first.replayed, again.replayed, first.entry_id) == (False, True, again.entry_id)
    cash.withdraw(engine, cash.CashOrder(staff.id, "out", customer.account, 1_250, "EUR"))
    with pytest.raises(ledger.InsufficientFundsError):
        cash.withdraw(engine, cash.CashOrder(staff.id, new_key(), customer.account, 3_751, "EUR"))
    assert money(engine, customer)[0] == 3_750
    last, opening = accounts.history(engine, customer.account).movements
    assert (last.kind, last.amount_minor, opening.kind, opening.reference) == (
        "withdrawal", -1_250, "deposit", "Counter 1"
    )  # fmt: skip


def test_cash_is_for_accounts_of_customers(engine, staff):
    settlement = ledger.SETTLEMENT["EUR"]
    for action in (cash.deposit, cash.withdraw):
        with pytest.raises(ledger.LedgerError):
            action(engine, cash.CashOrder(staff.id, new_key(), settlement, 1, "EUR"))
        with pytest.raises(ledger.LedgerError):
            action(engine, cash.CashOrder(staff.id, new_key(), uuid.uuid4(), 1, "EUR"))


def test_settlement_accounts_are_those_of_the_migration(owner):
    with owner.connect() as connection:
        rows = connection.execute(text("SELECT currency, id FROM accounts WHERE kind = 'internal'")).all()
    assert dict(map(tuple, rows)) == ledger.SETTLEMENT


def test_100_withdrawals_at_once_of_a_tenth_give_ten(engine, make_customer, staff):
    customer = make_customer(1_000)

    def attempt(_):
        try:
            cash.withdraw(engine, cash.CashOrder(staff.id, new_key(), customer.account, 100, "EUR"))
        except ledger.InsufficientFundsError:
            return False
        return True

    with ThreadPoolExecutor(25) as pool:
        assert sum(pool.map(attempt, range(100))) == 10
    assert money(engine, customer) == (0, 0, 0)


def test_overdraft_limit(engine, make_customer, hold_on, boss):
    boss_origin = audit.Origin(boss.id, "192.0.2.1", "request")
    payer, payee = make_customer(100), make_customer()
    overdrafts.set_limit(engine, payer.account, 500, boss_origin)
    transfers.transfer(engine, order(payer, payee, 400))
    hold_on(payer, 200)
    assert money(engine, payer) == (-300, 200, 0)
    with pytest.raises(overdrafts.LimitInUseError):
        overdrafts.set_limit(engine, payer.account, 499, boss_origin)
    with pytest.raises(ledger.AccountNotFoundError):
        overdrafts.set_limit(engine, ledger.SETTLEMENT["EUR"], 1, boss_origin)
    with pytest.raises(ledger.LedgerError):
        overdrafts.set_limit(engine, payer.account, -1, boss_origin)


# Payments


def payment(customer, amount=100, *, key=None, name="Grüne Energie GmbH", iban=GERMAN):
    return payments.PaymentOrder(
        customer.id, key or new_key(), customer.account, name, iban, amount, "EUR", "Invoice 7"
    )


def test_payment_leaves_the_bank_and_says_to_whom(engine, make_customer):
    customer = make_customer(1_000)
    assert payments.pay(engine, payment(customer, 300, key="k")).entry_id
    assert payments.pay(engine, payment(customer, 300, key="k")).replayed
    movement = accounts.history(engine, customer.account).movements[0]
    assert (movement.kind, movement.amount_minor, movement.other_name, movement.other_number) == (
        "payment", -300, "Grüne Energie GmbH", "DE89370400440532013000"
    )  # fmt: skip
    with pytest.raises(ledger.InsufficientFundsError):
        payments.pay(engine, payment(customer, 701))


@pytest.mark.parametrize(
    ("name", "iban"),
    [("", GERMAN), ("x" * 71, GERMAN), ("a\x00b", GERMAN), ("Ann", "DE88370400440532013000"), ("Ann", "DE89"),
     ("Ann", ""), ("Ann", "DE8937040044053201300O"), ("Ann", "ＤＥ89370400440532013000")],
)  # fmt: skip
def test_payment_needs_a_creditor(engine, make_customer, name, iban):
    with pytest.raises(payments.InvalidCreditorError):
        payments.pay(engine, payment(make_customer(1_000), name=name, iban=iban))


def test_payment_within_the_bank_is_a_transfer(engine, make_customer):
    customer, other = make_customer(1_000), make_customer()
    with pytest.raises(payments.OwnBankError):
        payments.pay(engine, payment(customer, iban=other.number))


def test_payment_from_an_account_of_somebody_else(engine, make_customer):
    customer, victim = make_customer(), make_customer(1_000)
    what = payment(customer)
    with pytest.raises(ledger.AccountNotFoundError):
        payments.pay(engine, payments.PaymentOrder(**{**vars(what), "from_account": victim.account}))


# Reversals


def reverse(engine, entry_id, by, *, key=None, policy=None):
    options = {"policy": policy} if policy else {}
    return reversals.reverse(engine, entry_id=entry_id, by=by.id, key=key or new_key(), **options)


def test_reversal_moves_the_money_back_once(engine, make_customer, staff):
    payer, payee = make_customer(1_000), make_customer()
    entry_id = transfers.transfer(engine, order(payer, payee, 300)).entry_id
    first = reverse(engine, entry_id, staff, key="r")
    assert reverse(engine, entry_id, staff, key="r").entry_id == first.entry_id
    assert (money(engine, payer)[0], money(engine, payee)[0]) == (1_000, 0)
    with pytest.raises(ledger.AlreadyReversedError):
        reverse(engine, entry_id, staff)
    with pytest.raises(reversals.NotReversibleError):
        reverse(engine, first.entry_id, staff)
    with pytest.raises(reversals.EntryNotFoundError):
        reverse(engine, uuid.uuid4(), staff)


def test_reversal_by_many_at_once_happens_once(engine, make_customer, staff):
    payer, payee = make_customer(1_000), make_customer(5_000)
    entry_id = transfers.transfer(engine, order(payer, payee, 300)).entry_id

    def attempt(_):
        try:
            reverse(engine, entry_id, staff)
        except ledger.AlreadyReversedError:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(attempt, range(8))) == 1
    assert money(engine, payer)[0] == 1_000


def test_reversal_needs_the_money_to_be_there(engine, make_customer, staff):
    payer, payee, third = make_customer(1_000), make_customer(), make_customer()
    entry_id = transfers.transfer(engine, order(payer, payee, 300)).entry_id
    transfers.transfer(engine, order(payee, third, 300))
    with pytest.raises(ledger.InsufficientFundsError):
        reverse(engine, entry_id, staff)


@pytest.mark.parametrize("amount", [200, 400])
def test_database_refuses_a_reversal_that_is_not_the_opposite(engine, make_customer, amount):
    payer, payee = make_customer(1_000), make_customer(1_000)
    entry_id = transfers.transfer(engine, order(payer, payee, 300)).entry_id
    movement = ledger.Movement(
        "reversal", payee.account, payer.account, amount, "EUR", None, reverses_id=entry_id
    )  # fmt: skip
    with pytest.raises(DBAPIError, match="not the opposite"), engine.begin() as connection:
        ledger.book(connection, uuid.uuid4(), movement, payee.account, payer.account)


def test_database_refuses_the_reversal_of_a_reversal(engine, make_customer, staff):
    payer, payee = make_customer(1_000), make_customer(1_000)
    back = reverse(engine, transfers.transfer(engine, order(payer, payee, 300)).entry_id, staff).entry_id
    movement = ledger.Movement("reversal", payer.account, payee.account, 300, "EUR", None, reverses_id=back)
    with pytest.raises(DBAPIError, match="reverses a reversal"), engine.begin() as connection:
        ledger.book(connection, uuid.uuid4(), movement, payer.account, payee.account)


# Four eyes


def test_transfer_above_the_limit_waits_with_its_money_reserved(engine, make_customer, boss):
    payer, payee = make_customer(1_000), make_customer()
    assert transfers.transfer(engine, order(payer, payee, 100), SMALL).entry_id  # the limit itself needs nobody
    receipt = transfers.transfer(engine, order(payer, payee, 101, key="k"), SMALL)
    assert receipt.entry_id is None
    assert money(engine, payer) == (900, 101, 799)
    waiting = next(view for view in approvals.pending(engine) if view.id == receipt.approval_id)
    assert (waiting.kind, waiting.amount_minor, waiting.debit_number, waiting.credit_number) == (
        "transfer", 101, payer.number, payee.number
    )  # fmt: skip
    done = approvals.approve(engine, receipt.approval_id, boss.id)
    assert (money(engine, payer), money(engine, payee)[0]) == ((799, 0, 799), 201)
    again = transfers.transfer(engine, order(payer, payee, 101, key="k"), SMALL)
    assert (again.replayed, again.entry_id, again.approval_id) == (True, done.entry_id, receipt.approval_id)


def test_default_limit_is_ten_thousand(engine, make_customer):
    payer, payee = make_customer(5_000_000), make_customer()
    assert transfers.transfer(engine, order(payer, payee, 1_000_000)).approval_id is None
    assert transfers.transfer(engine, order(payer, payee, 1_000_001)).approval_id


def test_nobody_decides_alone_or_about_their_own_money(engine, make_customer, staff, boss):
    customer, payee = make_customer(10_000), make_customer()
    by_customer = transfers.transfer(engine, order(customer, payee, 500), SMALL).approval_id
    at_counter = cash.withdraw(
        engine, cash.CashOrder(staff.id, new_key(), customer.account, 500, "EUR"), SMALL
    ).approval_id
    for approval_id, person in ((by_customer, customer), (by_customer, payee), (at_counter, staff),
                                (at_counter, customer)):  # fmt: skip
        for decide in (approvals.approve, approvals.reject):
            with pytest.raises(approvals.OwnApprovalError):
                decide(engine, approval_id, person.id)
    with pytest.raises(DBAPIError, match="four_eyes"), engine.begin() as connection:
        connection.execute(
            text("UPDATE approvals SET status = 'rejected', decided_by = created_by WHERE id = :id"),
            {"id": at_counter},
        )
    approvals.reject(engine, by_customer, boss.id, "unusual")
    approvals.approve(engine, at_counter, boss.id)
    told = [news.kind for news in notifications.latest(engine, customer.id)[0]]
    assert told.count(notifications.Kind.TRANSFER_REJECTED) == 1
    assert money(engine, customer) == (9_500, 0, 9_500)
    for approval_id in (by_customer, at_counter):
        for decide in (approvals.approve, approvals.reject):
            with pytest.raises(approvals.AlreadyDecidedError):
                decide(engine, approval_id, boss.id)
    with pytest.raises(approvals.ApprovalNotFoundError):
        approvals.approve(engine, uuid.uuid4(), boss.id)


def test_payment_and_reversal_wait_too(engine, make_customer, staff, boss):
    payer, payee = make_customer(1_000), make_customer()
    waiting = payments.pay(engine, payment(payer, 200), SMALL).approval_id
    assert next(v for v in approvals.pending(engine) if v.id == waiting).counterparty == "Grüne Energie GmbH"
    approvals.approve(engine, waiting, boss.id)
    paid = accounts.history(engine, payer.account).movements[0]
    assert (paid.kind, paid.other_number) == ("payment", "DE89370400440532013000")
    entry_id = transfers.transfer(engine, order(payer, payee, 300)).entry_id
    back = reverse(engine, entry_id, staff, policy=SMALL).approval_id
    assert money(engine, payee) == (300, 300, 0)
    with pytest.raises(ledger.AlreadyReversedError):
        reverse(engine, entry_id, staff, policy=SMALL)
    approvals.approve(engine, back, boss.id)
    assert (money(engine, payer)[0], money(engine, payee)[0]) == (800, 0)


def test_decisions_at_once_count_once(engine, make_customer, staff, boss):
    payer, payee = make_customer(1_000), make_customer()
    approval_id = transfers.transfer(engine, order(payer, payee, 500), SMALL).approval_id

    def decide(number):
        try:
            (approvals.approve if number % 2 else approvals.reject)(engine, approval_id, boss.id)
        except approvals.AlreadyDecidedError:
            return None
        return bool(number % 2)

    with ThreadPoolExecutor(8) as pool:
        decisions = [found for found in pool.map(decide, range(8)) if found is not None]
    assert len(decisions) == 1
    assert money(engine, payer) == ((500, 0, 500) if decisions[0] else (1_000, 0, 1_000))


def test_approval_ends_by_itself(engine, owner, make_customer, boss):
    payer, payee = make_customer(1_000), make_customer()
    approval_id = transfers.transfer(engine, order(payer, payee, 500), SMALL).approval_id
    with owner.begin() as connection:
        connection.execute(text("ALTER TABLE approvals DISABLE TRIGGER decide_once"))
        connection.execute(
            text("UPDATE approvals SET expires_at = now() - interval '1 second' WHERE id = :id"), {"id": approval_id}
        )
        connection.execute(text("ALTER TABLE approvals ENABLE TRIGGER decide_once"))
    with pytest.raises(approvals.AlreadyDecidedError):
        approvals.approve(engine, approval_id, boss.id)
    assert approval_id not in {view.id for view in approvals.pending(engine)}
    with ThreadPoolExecutor(4) as pool:
        assert sum(pool.map(lambda _: approvals.expire_due(engine), range(4))) == 1
    assert money(engine, payer) == (1_000, 0, 1_000)


def test_decisions_corrections_and_limits_are_in_the_audit_trail(engine, make_customer, staff, boss):
    payer, payee = make_customer(1_000), make_customer()
    entry_id = transfers.transfer(engine, order(payer, payee, 100)).entry_id
    for key in ("trail", "trail"):
        reverse(engine, entry_id, staff, key=key)
    large = transfers.transfer(engine, order(payer, payee, 300), SMALL).approval_id
    approvals.reject(engine, large, boss.id, "unusual")
    overdrafts.set_limit(engine, payer.account, 7, audit.Origin(boss.id))

    def trail(kind, object_id):
        found = audit.read(engine, audit.Filter(object_type=kind, object_id=str(object_id))).events
        return [(event.action, event.actor_id, event.after) for event in found]

    [(action, actor, after)] = trail("entry", entry_id)
    assert (action, actor, after["amount_minor"]) == ("reversal", staff.id, 100)
    assert trail("approval", large) == [("approval-rejected", boss.id, {"status": "rejected", "reason": "unusual"})]
    assert trail("account", payer.account) == [("overdraft-limit", boss.id, {"limit_minor": 7})]


def test_limits_by_currency():
    policy = Approvals(limits={"JPY": 5})
    assert (policy.limit_for("JPY"), policy.limit_for("EUR")) == (5, 1_000_000)
    with pytest.raises(ValueError, match="no accounts in XAU"):
        Approvals(limits={"XAU": 1})


def test_customer_is_told_that_the_transfer_waits(app, make_customer):
    from conftest import browser

    payer, payee = make_customer(2_000_000), make_customer()
    client = browser(app)
    client.log_in(payer.email)
    fields = client.fields("/transfer")
    form = {**fields, "from_account": str(payer.account), "to_number": payee.number, "amount": "10000.01"}
    page = client.get(client.post("/transfer", form).location).get_data(as_text=True)
    assert "waiting for approval" in page
    assert "sent." not in page
    assert "9,999.99" in page  # available
    assert "10,000.01" in page  # reserved
