"""``bank reconcile`` finds what somebody changed behind the bank's back, and the metrics tell."""

import re
import uuid

import pytest
from click.testing import CliRunner
from sqlalchemy import create_engine, text

from bank.cli import main
from bank.config import Approvals
from bank.database import make_engine
from bank.services import approvals, reconcile, reversals, schema, seed, transfers
from conftest import as_owner, configuration_text


@pytest.fixture(scope="module")
def bank(servers, settings, superuser, tmp_path_factory, owner):
    """A database of its own with some history: an engine of the application, of the superuser, and the command."""
    with superuser.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("CREATE DATABASE reconcile OWNER bank_owner"))
    as_its_owner = make_engine(as_owner(settings, servers, name="reconcile"))
    schema.migrate(as_its_owner, "bank_app")
    as_its_owner.dispose()
    database = settings.database.model_copy(update={"name": "reconcile"})
    app = make_engine(settings.model_copy(update={"database": database}))
    seed.seed(app, customers=2, seed_number=3, password="correct horse")
    with app.connect() as connection:
        people = connection.execute(
            text("SELECT u.id AS user_id, a.id, a.number FROM users u JOIN accounts a ON a.owner_id = u.id "
                 "WHERE a.kind = 'checking' ORDER BY u.email")
        ).all()  # fmt: skip
    one, two, three = people

    def pay(amount):
        order = transfers.Order(one.user_id, uuid.uuid4().hex, one.id, two.number, amount, "EUR", "")
        return transfers.transfer(app, order, Approvals(limit_minor=100))

    entry_id = pay(100).entry_id
    reversals.reverse(app, entry_id=entry_id, by=three.user_id, key="r")
    approvals.approve(app, pay(200).approval_id, three.user_id)
    pay(300)  # goes on waiting
    root = create_engine(superuser.url.set(database="reconcile"))
    path = tmp_path_factory.mktemp("reconcile") / "bank.toml"
    path.write_text(configuration_text(servers, database="reconcile"))
    yield app, root, lambda: CliRunner().invoke(main, ["reconcile"], env={"BANK_CONFIG": str(path)})
    app.dispose()
    root.dispose()


def test_sound_ledger(bank):
    result = bank[2]()
    assert result.exit_code == 0, result.stderr
    lines = result.output.splitlines()
    assert len(lines) == len(reconcile.CHECKS)
    assert all(re.fullmatch(r".{40,}  ok", line) for line in lines)


TAMPERED = {
    "entries are balanced": "UPDATE postings SET amount_minor = amount_minor + 5 WHERE version = 2",
    "postings are in the currency of their entry": "UPDATE journal_entries SET currency = 'USD' WHERE kind = 'salary'",
    "balances equal the sum of their postings": "UPDATE balances SET balance_minor = balance_minor + 1",
    "versions have no gap and carry the running balance":
        "UPDATE postings SET balance_after_minor = 0 WHERE version = 3",
    "each currency sums to zero": "UPDATE balances SET balance_minor = balance_minor - 4 WHERE version = 0",
    "reserved money equals the holds": "UPDATE balances SET held_minor = held_minor + 7",
    "no account is below its limit":
        "ALTER TABLE balances DROP CONSTRAINT ck_balances_within_overdraft; "
        "UPDATE balances SET overdraft_limit_minor = 0, balance_minor = -5",
    "posted holds and approvals are what was booked": "UPDATE holds SET posted_minor = 1 WHERE status = 'posted'",
    "reversals are the exact opposite":
        "UPDATE postings SET amount_minor = amount_minor * 2 WHERE entry_id IN "
        "(SELECT id FROM journal_entries WHERE kind = 'reversal')",
    "keys lead to what they made":
        "DELETE FROM journal_entries WHERE id IN (SELECT entry_id FROM idempotency_keys)",
}  # fmt: skip


def test_every_check_is_tried():
    assert set(TAMPERED) == {check.name for check in reconcile.CHECKS}


@pytest.mark.parametrize("name", TAMPERED)
def test_tampered_row_is_found(bank, name):
    _, root, _ = bank
    with root.connect() as connection, connection.begin() as transaction:
        connection.execute(text("SET LOCAL session_replication_role = replica"))  # triggers and foreign keys sleep
        connection.execute(text(TAMPERED[name]))
        # The checks look at this transaction, which is never committed.
        found = {
            check.name: connection.execute(text(check.query)).all() for check in reconcile.CHECKS
        }  # fmt: skip
        transaction.rollback()
    assert found[name], found
    assert all(len(row) == 3 for rows in found.values() for row in rows)


def test_command_names_the_row_and_the_next_step_and_the_metric_follows(bank):
    app, root, run = bank
    assert reconcile.reconcile(app).count == 0
    with root.begin() as connection:
        connection.execute(text("SET LOCAL session_replication_role = replica"))
        account = connection.execute(text("SELECT min(account_id::text) FROM postings WHERE version > 5")).scalar_one()
        connection.execute(
            text("UPDATE postings SET amount_minor = amount_minor + 3 WHERE account_id = :id AND version = 2"),
            {"id": account},
        )
    try:
        result = run()
        assert result.exit_code == 1
        assert f"account {account}" in result.output
        assert "sum to 3" in result.output
        assert "entries are balanced: compare with the last backup" in result.output
        assert "each currency sums to zero                          ok" in result.output
        assert "does not add up" in result.stderr
        reconcile._cache.clear()
        figures = reconcile.figures(app)
        assert figures.findings == 3
        assert figures.imbalance_minor >= 3
        assert figures.pending_approvals == 1
    finally:
        with root.begin() as connection:
            connection.execute(text("SET LOCAL session_replication_role = replica"))
            connection.execute(
                text("UPDATE postings SET amount_minor = amount_minor - 3 WHERE account_id = :id AND version = 2"),
                {"id": account},
            )
    assert run().exit_code == 0


def test_metrics_tell_the_imbalance_of_the_database_now(app, client, owner, engine):
    reconcile._cache.clear()
    assert reconcile.reconcile(engine).count == 0
    page = client.get("/metrics").get_data(as_text=True)
    assert "bank_ledger_imbalance_minor_units 0.0\n" in page
    assert "bank_reconcile_findings 0.0\n" in page
    assert re.search(r"^bank_pending_approvals \d+\.0$", page, re.MULTILINE)
    assert re.search(r"^bank_reconcile_last_timestamp_seconds 1\.\d+e\+09$", page, re.MULTILINE)


def test_command_says_what_failed(servers, tmp_path):
    path = tmp_path / "bank.toml"
    path.write_text(configuration_text(servers))
    result = CliRunner().invoke(
        main, ["reconcile"], env={"BANK_CONFIG": str(path), "BANK_DATABASE__PASSWORD": "wrong canary"}
    )
    assert result.exit_code == 1
    assert result.stderr.startswith("bank: not reconciled: database bank")
    assert "canary" not in result.stderr
