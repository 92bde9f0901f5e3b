"""The ledger against a plain model of it, and under many writers with readers in snapshots."""

import threading
import uuid
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass, field

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    invariant,
    multiple,
    rule,
    run_state_machine_as_test,
)
from sqlalchemy import text

from bank.config import Approvals
from bank.services import approvals, cash, holds, ledger, reconcile, reversals, transfers

LIMIT = Approvals(limit_minor=400)
AMOUNTS = st.integers(1, 600)


@dataclass
class Model:
    """What an account should be, in minor units."""

    customer: object
    balance: int = 0
    overdraft: int = 0
    holds: dict[uuid.UUID, int] = field(default_factory=dict)

    @property
    def available(self):
        return self.balance + self.overdraft - sum(self.holds.values())


@dataclass
class Entry:
    id: uuid.UUID
    payer: Model | None
    payee: Model | None
    amount: int
    is_reversed: bool = False


@dataclass
class Waiting:
    """A hold, or an approval with its hold."""

    id: uuid.UUID
    account: Model
    amount: int
    payee: Model | None = None


class LedgerMachine(RuleBasedStateMachine):
    """Does everything that moves money, and compares each account with the model after every step."""

    engine = make_customer = boss = staff = None
    accounts, entries, held, waiting, orders = (Bundle(name) for name in ("a", "e", "h", "w", "o"))

    def __init__(self):
        super().__init__()
        self.models, self.known = [], {}

    def refused(self, expected, action):
        """Expect one of the reasons, or none."""
        if expected is None:
            return action()
        with pytest.raises(expected):
            action()
        return None

    def _move(self, payer, payee, amount):
        if payer:
            payer.balance -= amount
        if payee:
            payee.balance += amount

    @initialize(target=accounts)
    def two(self):
        return multiple(self.open(500, 0), self.open(0, 0))

    @rule(target=accounts, balance=st.integers(0, 1_000), overdraft=st.integers(0, 300))
    def open_account(self, balance, overdraft):
        return self.open(balance, overdraft)

    def open(self, balance, overdraft):
        model = Model(self.make_customer(balance, overdraft=overdraft), balance, overdraft)
        self.models.append(model)
        return model

    @rule(target=entries, account=accounts, amount=AMOUNTS)
    def deposit(self, account, amount):
        order = cash.CashOrder(self.staff.id, uuid.uuid4().hex, account.customer.account, amount, "EUR")
        receipt = cash.deposit(self.engine, order)
        self._move(None, account, amount)
        return Entry(receipt.entry_id, None, account, amount)

    @rule(target=entries, account=accounts, amount=AMOUNTS)
    def withdraw(self, account, amount):
        order = cash.CashOrder(self.staff.id, uuid.uuid4().hex, account.customer.account, amount, "EUR")
        expected = None if amount <= account.available else ledger.InsufficientFundsError
        receipt = self.refused(expected, lambda: cash.withdraw(self.engine, order))
        if receipt is None:
            return multiple()
        self._move(account, None, amount)
        return Entry(receipt.entry_id, account, None, amount)

    def _order(self, payer, payee, amount):
        customer = payer.customer
        return transfers.Order(
            customer.id, uuid.uuid4().hex, customer.account, payee.customer.number, amount, "EUR", ""
        )

    @rule(target=orders, payer=accounts, payee=accounts, amount=AMOUNTS)
    def transfer(self, payer, payee, amount):
        order = self._order(payer, payee, amount)
        expected = None
        if payer is payee:
            expected = ledger.SameAccountError
        elif amount > payer.available:
            expected = ledger.InsufficientFundsError
        receipt = self.refused(expected, lambda: transfers.transfer(self.engine, order, LIMIT))
        if receipt is None:
            return multiple()
        assert not receipt.replayed
        assert (receipt.approval_id is not None) == (amount > LIMIT.limit_minor)
        if receipt.approval_id:
            payer.holds[receipt.approval_id] = amount
        else:
            self._move(payer, payee, amount)
        return order, receipt, payer, payee

    @rule(target=entries, made=orders)
    def remember_entry(self, made):
        order, receipt, payer, payee = made
        if receipt.entry_id is None:
            return multiple()
        return self.known.setdefault(receipt.entry_id, Entry(receipt.entry_id, payer, payee, order.amount_minor))

    @rule(target=waiting, made=orders)
    def remember_waiting(self, made):
        order, receipt, payer, payee = made
        if receipt.approval_id is None:
            return multiple()
        return Waiting(receipt.approval_id, payer, order.amount_minor, payee)

    @rule(made=orders, times=st.integers(1, 3))
    def send_again(self, made, times):
        order, receipt, *_ = made
        for _ in range(times):
            again = transfers.transfer(self.engine, order, LIMIT)
            assert again.replayed
            assert again.approval_id == receipt.approval_id
            assert receipt.entry_id is None or again.entry_id == receipt.entry_id

    @rule(made=orders, more=st.integers(1, 5))
    def use_a_key_again_for_something_else(self, made, more):
        order = made[0]
        other = transfers.Order(**{**vars(order), "amount_minor": order.amount_minor + more})
        with pytest.raises(ledger.KeyReusedError):
            transfers.transfer(self.engine, other, LIMIT)

    @rule(entry=entries)
    def reverse(self, entry):
        if entry.is_reversed:
            expected = ledger.AlreadyReversedError
        elif entry.payee and entry.payee.available < entry.amount:
            expected = ledger.InsufficientFundsError
        else:
            expected = None

        def action():
            return reversals.reverse(self.engine, entry_id=entry.id, by=self.staff.id, key=uuid.uuid4().hex)

        receipt = self.refused(expected, action)
        if receipt:
            self._move(entry.payee, entry.payer, entry.amount)
            entry.is_reversed = True
            with pytest.raises(reversals.NotReversibleError):
                reversals.reverse(self.engine, entry_id=receipt.entry_id, by=self.staff.id, key=uuid.uuid4().hex)

    @rule(target=held, account=accounts, amount=AMOUNTS)
    def hold(self, account, amount):
        claim = ledger.Claim.of(account.customer.id, uuid.uuid4().hex, "hold", amount)
        expected = None if amount <= account.available else ledger.InsufficientFundsError
        receipt = self.refused(
            expected, lambda: holds.place(self.engine, claim, account.customer.account, amount)
        )  # fmt: skip
        if receipt is None:
            return multiple()
        account.holds[receipt.hold_id] = amount
        return Waiting(receipt.hold_id, account, amount)

    @rule(hold=consumes(held), payee=accounts, share=st.integers(1, 100))
    def post(self, hold, payee, share):
        amount = max(1, hold.amount * share // 100)
        movement = ledger.Movement(
            "transfer", hold.account.customer.account, payee.customer.number, amount, "EUR", hold.account.customer.id
        )
        claim = ledger.Claim.of(hold.account.customer.id, uuid.uuid4().hex, "post", hold.id)
        expected = ledger.SameAccountError if payee is hold.account else None
        if self.refused(expected, lambda: holds.post(self.engine, claim, hold.id, movement)):
            del hold.account.holds[hold.id]
            self._move(hold.account, payee, amount)

    @rule(hold=consumes(held), times=st.integers(1, 2))
    def void(self, hold, times):
        for _ in range(times):
            holds.void(self.engine, hold.id)
        del hold.account.holds[hold.id]

    @rule(item=waiting, approve=st.booleans())
    def decide(self, item, approve):
        decide = approvals.approve if approve else approvals.reject
        expected = None if item.id in item.account.holds else approvals.AlreadyDecidedError
        self.refused(expected, lambda: decide(self.engine, item.id, self.boss.id))
        if expected is None:
            del item.account.holds[item.id]
            if approve:
                self._move(item.account, item.payee, item.amount)

    @rule(one=accounts, two=accounts, there=st.integers(1, 400), back=st.integers(1, 400))
    def cross_at_the_same_time(self, one, two, there, back):
        """Opposing transfers in two threads end as if one had come after the other."""
        if one is two:
            return

        def attempt(order):
            try:
                transfers.transfer(self.engine, order, LIMIT)
            except ledger.InsufficientFundsError:
                return False
            return True

        with ThreadPoolExecutor(2) as pool:
            went, came = pool.map(attempt, (self._order(one, two, there), self._order(two, one, back)))
        first = (there <= one.available, back <= two.available + (there if there <= one.available else 0))
        second = (there <= one.available + (back if back <= two.available else 0), back <= two.available)
        assert (went, came) in {first, second}
        if went:
            self._move(one, two, there)
        if came:
            self._move(two, one, back)

    @invariant()
    def accounts_are_as_the_model_says(self):
        models = {model.customer.account: model for model in self.models}
        with self.engine.connect() as connection:
            rows = connection.execute(
                text("SELECT account_id, balance_minor, held_minor FROM balances WHERE account_id = ANY(:ids)"),
                {"ids": list(models)},
            ).all()
        assert len(rows) == len(models)
        for account_id, balance, held in rows:
            model = models[account_id]
            assert (balance, held) == (model.balance, sum(model.holds.values()))
            assert model.available >= 0


def test_ledger_does_what_the_model_does(engine, make_customer):
    LedgerMachine.engine, LedgerMachine.make_customer = engine, staticmethod(make_customer)
    LedgerMachine.staff, LedgerMachine.boss = make_customer(), make_customer()
    run_state_machine_as_test(
        LedgerMachine,
        settings=settings(
            max_examples=20,
            stateful_step_count=25,
            deadline=None,
            suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
        ),
    )
    assert reconcile.reconcile(engine).count == 0


SNAPSHOT = text("""
SELECT b.account_id, b.balance_minor, b.held_minor, b.version,
       (SELECT coalesce(sum(amount_minor), 0) FROM postings p WHERE p.account_id = b.account_id),
       (SELECT coalesce(sum(amount_minor), 0) FROM holds h WHERE h.account_id = b.account_id AND status = 'held')
  FROM balances b WHERE account_id = ANY(:ids)
""")


def test_every_snapshot_adds_up_while_many_write(engine, make_customer):
    """The bank test of Jepsen: many threads on few accounts; whoever reads sees the same total, none below 0."""
    people = [make_customer(10_000) for _ in range(5)]
    other = make_customer()
    ids = [who.account for who in people]
    done, seen = threading.Event(), []

    def watch():
        while not done.is_set():
            with engine.connect().execution_options(isolation_level="REPEATABLE READ") as connection:
                total = 0
                # One query for each account: only the snapshot keeps them together.
                for account in ids:
                    [(_, balance, held, version, postings, holding)] = connection.execute(SNAPSHOT, {"ids": [account]})
                    assert balance == postings
                    assert held == holding
                    assert balance - held >= 0
                    assert version >= 1
                    total += balance
                seen.append(total)

    def write(number):
        payer, payee = people[number % 5], people[(number * 3 + 1) % 5]
        amount = 1 + number * 37 % 5_000
        key = uuid.uuid4().hex
        try:
            if number % 4 == 3:
                hold_id = holds.place(engine, ledger.Claim.of(payer.id, key, number), payer.account, amount).hold_id
                movement = ledger.Movement("transfer", payer.account, payee.number, amount, "EUR", payer.id)
                holds.post(engine, ledger.Claim.of(payer.id, key + "p", number), hold_id, movement)
                return
            order = transfers.Order(payer.id, key, payer.account, payee.number, amount, "EUR", "")
            receipt = transfers.transfer(engine, order, Approvals(limit_minor=4_000))
            if receipt.approval_id:
                approvals.approve(engine, receipt.approval_id, other.id)
        except (ledger.InsufficientFundsError, ledger.SameAccountError):
            pass

    with ThreadPoolExecutor(2) as readers, ThreadPoolExecutor(16) as writers:
        watching = [readers.submit(watch) for _ in range(2)]
        outcomes = [writers.submit(write, number) for number in range(320)]
        wait(outcomes)
        done.set()
        for outcome in outcomes:
            outcome.result()
        for watcher in watching:
            watcher.result()
    assert len(seen) > 5
    assert set(seen) == {50_000}
