"""The rules that the database keeps, tried with raw SQL and by many at once."""

import contextlib
import threading
import uuid
from concurrent.futures import ThreadPoolExecutor

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import text
from sqlalchemy.exc import DataError, DBAPIError, OperationalError

from bank import database, metrics
from bank.database import make_engine
from bank.models import Base
from bank.services import accounts, ledger, schema, transfers

SETTLEMENT = "00000000-0000-4000-8000-000000000001"


def order(customer, to, amount, *, key=None, reference="", currency="EUR"):
    return transfers.Order(
        user_id=customer.id,
        key=key or uuid.uuid4().hex,
        from_account=customer.account,
        to_number=to if isinstance(to, str) else to.number,
        amount_minor=amount,
        currency=currency,
        reference=reference,
    )


def post(connection, legs, currency="EUR", entry=None):
    entry = entry or uuid.uuid4()
    connection.execute(
        text("INSERT INTO journal_entries (id, kind, currency) VALUES (:id, 'transfer', :currency)"),
        {"id": entry, "currency": currency},
    )
    for account, amount in legs:
        connection.execute(
            text("INSERT INTO postings (entry_id, account_id, amount_minor) VALUES (:entry, :account, :amount)"),
            {"entry": entry, "account": account, "amount": amount},
        )
    return entry


@pytest.mark.parametrize("legs", [[100], [100, -99], [], [-100, 50, 49]])
def test_entry_that_does_not_sum_to_zero_fails_at_commit(engine, make_customer, legs):
    people = [make_customer(1_000) for _ in legs]
    with pytest.raises(DBAPIError, match="postings that sum to"), engine.connect() as connection:
        transaction = connection.begin()
        entry = post(connection, [(who.account, amount) for who, amount in zip(people, legs, strict=True)])
        assert entry  # nothing was wrong until here
        transaction.commit()


def test_balanced_entry_is_accepted_and_moves_the_balances(engine, make_customer, balance_of):
    one, two = make_customer(1_000), make_customer()
    with engine.begin() as connection:
        post(connection, [(one.account, -300), (two.account, 300)])
    assert (balance_of(one.account), balance_of(two.account)) == (700, 300)


def test_legs_cannot_join_an_entry_later_even_if_they_balance(engine, make_customer):
    one, two = make_customer(1_000), make_customer()
    with engine.begin() as connection:
        entry = post(connection, [(one.account, -300), (two.account, 300)])
    with pytest.raises(DBAPIError, match="already complete"), engine.begin() as connection:
        for account, amount in ((one.account, -1), (two.account, 1)):
            connection.execute(
                text("INSERT INTO postings (entry_id, account_id, amount_minor) VALUES (:e, :a, :m)"),
                {"e": entry, "a": account, "m": amount},
            )


def test_leg_in_another_currency_is_refused(engine, make_customer):
    euro, dollar = make_customer(1_000), make_customer(currency="USD")
    with pytest.raises(DBAPIError, match="same currency"), engine.begin() as connection:
        post(connection, [(euro.account, -300), (dollar.account, 300)])


def test_overdraft_is_refused_by_the_database_itself(engine, make_customer, balance_of):
    one, two = make_customer(100), make_customer()
    with pytest.raises(DBAPIError, match="within_overdraft"), engine.begin() as connection:
        post(connection, [(one.account, -101), (two.account, 101)])
    assert balance_of(one.account) == 100


@pytest.mark.parametrize("who", ["owner", "engine", "superuser"])
@pytest.mark.parametrize("table", ["postings", "journal_entries"])
@pytest.mark.parametrize(
    "statement",
    ["UPDATE {} SET id = id", "DELETE FROM {}", "TRUNCATE {} CASCADE"],
)
def test_journal_is_append_only_for_everybody(request, make_customer, who, table, statement):
    make_customer(1_000)
    reason = "permission denied" if who == "engine" else "append-only"
    if who == "owner" and table == "postings" and statement.startswith("UPDATE"):
        reason = "append-only|can only be updated to DEFAULT"
    statement = statement.format(table)
    if table == "postings":
        statement = statement.replace("SET id = id", "SET amount_minor = 1")
    with pytest.raises(DBAPIError, match=reason), request.getfixturevalue(who).begin() as connection:
        connection.execute(text(statement))


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE balances SET balance_minor = 1000000",
        "UPDATE balances SET overdraft_limit_minor = NULL",
        "INSERT INTO balances (account_id, balance_minor) VALUES (gen_random_uuid(), 5)",
        "INSERT INTO balances (account_id, overdraft_limit_minor) VALUES (gen_random_uuid(), NULL)",
        "DELETE FROM balances",
        "TRUNCATE users CASCADE",
        "UPDATE users SET role = 'admin'",
        "UPDATE accounts SET owner_id = NULL",
        "DELETE FROM idempotency_keys",
        "UPDATE idempotency_keys SET fingerprint = ''",
        "DROP TABLE users",
        "CREATE TABLE mine (id int)",
        "ALTER TABLE postings DISABLE TRIGGER ALL",
        "DROP TRIGGER append_only ON postings",
        "SET session_replication_role = replica",
        "UPDATE alembic_version SET version_num = 'x'",
        "SELECT apply_posting()",
    ],
)
def test_application_may_do_no_more_than_it_needs(engine, statement):
    with pytest.raises(DBAPIError, match=r"permission denied|must be owner|trigger functions can only"):
        with engine.begin() as connection:
            connection.execute(text(statement))


def test_recorded_time_is_the_databases(engine, make_customer):
    one, two = make_customer(10), make_customer()
    with engine.begin() as connection:
        entry = uuid.uuid4()
        connection.execute(
            text(
                "INSERT INTO journal_entries (id, kind, currency, booked_at, recorded_at) "
                "VALUES (:id, 'transfer', 'EUR', '2001-01-01', '2001-01-01')"
            ),
            {"id": entry},
        )
        for account, amount in ((one.account, -1), (two.account, 1)):
            connection.execute(
                text("INSERT INTO postings (entry_id, account_id, amount_minor) VALUES (:e, :a, :m)"),
                {"e": entry, "a": account, "m": amount},
            )
        assert connection.execute(
            text("SELECT recorded_at = now() FROM journal_entries WHERE id = :id"), {"id": entry}
        ).scalar_one()


def test_parallel_transfers_never_overdraw(engine, make_customer, balance_of):
    payer, payee = make_customer(1_000), make_customer()
    start = threading.Barrier(25)

    def attempt(_):
        start.wait()
        outcomes = []
        for _ in range(2):
            try:
                transfers.transfer(engine, order(payer, payee, 100))
                outcomes.append(True)
            except ledger.InsufficientFundsError:
                outcomes.append(False)
        return outcomes

    with ThreadPoolExecutor(25) as pool:
        results = [result for outcomes in pool.map(attempt, range(25)) for result in outcomes]
    assert results.count(True) == 10
    assert (balance_of(payer.account), balance_of(payee.account)) == (0, 1_000)


def test_overdraft_limit_is_used_up_and_not_passed(engine, make_customer, balance_of):
    payer, payee = make_customer(100, overdraft=50), make_customer()
    transfers.transfer(engine, order(payer, payee, 150))
    with pytest.raises(ledger.InsufficientFundsError):
        transfers.transfer(engine, order(payer, payee, 1))
    assert balance_of(payer.account) == -50


def test_opposing_transfers_do_not_deadlock(engine, make_customer, balance_of):
    one, two = make_customer(100_000), make_customer(100_000)
    retried = metrics.DATABASE_RETRIES.labels("40P01")._value.get()

    def attempt(number):
        pair = (one, two) if number % 2 else (two, one)
        transfers.transfer(engine, order(*pair, 10))

    with ThreadPoolExecutor(20) as pool:
        list(pool.map(attempt, range(100)))
    assert balance_of(one.account) + balance_of(two.account) == 200_000
    assert balance_of(one.account) == 100_000
    assert metrics.DATABASE_RETRIES.labels("40P01")._value.get() == retried


def test_total_is_the_same_in_every_snapshot(engine, make_customer):
    people = [make_customer(10_000) for _ in range(4)]
    ids = [who.account for who in people]
    done = threading.Event()
    totals = set()

    def watch():
        while not done.is_set():
            with engine.connect() as connection:
                row = connection.execute(
                    text("SELECT sum(balance_minor), min(balance_minor) FROM balances WHERE account_id = ANY(:ids)"),
                    {"ids": ids},
                ).one()
            totals.add(int(row[0]))
            assert row[1] >= 0

    watcher = threading.Thread(target=watch)
    watcher.start()
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda n: _try(engine, order(people[n % 4], people[(n * 7 + 1) % 4], 1 + n * 37)), range(120)))
    done.set()
    watcher.join()
    assert totals == {40_000}


def _try(engine, what):
    try:
        transfers.transfer(engine, what)
    except (ledger.InsufficientFundsError, ledger.SameAccountError):
        pass


def test_a_connection_that_was_read_from_begins_transactions_again(settings, owner, make_customer):
    one = make_engine(settings.model_copy(update={"database": settings.database.model_copy(update={"pool_size": 1})}))
    payer = make_customer()
    change = text("UPDATE users SET password_hash = 'changed' WHERE id = :id")
    for query in ("SELECT 1", "SELECT 1 / 0"):
        with contextlib.suppress(DBAPIError), database.reading(one) as connection:
            database.execute(connection, text(query), {})
        with pytest.raises(ZeroDivisionError), one.begin() as connection:
            assert database.execute(connection, change, {"id": payer.id}).rowcount == 1
            raise ZeroDivisionError
    one.dispose()
    with owner.connect() as connection:
        assert (
            connection.execute(text("SELECT password_hash FROM users WHERE id = :id"), {"id": payer.id}).scalar()
            != "changed"
        )


def test_the_drivers_errors_are_those_of_sqlalchemy(settings, owner, superuser):
    """Else nothing would try a deadlock again, or answer 503 when the database is gone."""
    one = make_engine(settings.model_copy(update={"database": settings.database.model_copy(update={"pool_size": 1})}))
    query = text("SELECT CAST(:value AS integer)")
    with pytest.raises(DataError) as refused, database.reading(one) as connection:
        database.execute(connection, query, {"value": "secret"})
    assert database.sqlstate(refused.value) == "22P02"
    assert "secret" not in str(refused.value).replace(str(refused.value.orig), "")
    with pytest.raises(OperationalError) as gone, one.begin() as connection:
        (pid,) = database.execute(connection, text("SELECT pg_backend_pid()"), {}).fetchone()
        with superuser.begin() as other:
            other.execute(text("SELECT pg_terminate_backend(:pid, 2000)"), {"pid": pid})
        database.execute(connection, query, {"value": "1"})
    assert gone.value.connection_invalidated
    with one.begin() as connection:
        assert database.execute(connection, query, {"value": "1"}).fetchone() == (1,)
    one.dispose()


def test_same_key_moves_money_once(engine, make_customer, balance_of):
    payer, payee = make_customer(1_000), make_customer()
    first = transfers.transfer(engine, order(payer, payee, 100, key="k"))
    again = transfers.transfer(engine, order(payer, payee, 100, key="k"))
    assert (first.replayed, again.replayed) == (False, True)
    assert first.entry_id == again.entry_id
    assert balance_of(payer.account) == 900


def test_same_key_sent_by_many_at_once_moves_money_once(engine, make_customer, balance_of):
    payer, payee = make_customer(1_000), make_customer()
    what = order(payer, payee, 100, key=uuid.uuid4().hex)
    with ThreadPoolExecutor(20) as pool:
        receipts = list(pool.map(lambda _: transfers.transfer(engine, what), range(20)))
    assert len({receipt.entry_id for receipt in receipts}) == 1
    assert [receipt.replayed for receipt in receipts].count(False) == 1
    assert balance_of(payer.account) == 900


@pytest.mark.parametrize("change", ["amount", "reference", "recipient"])
def test_same_key_for_something_else_is_refused(engine, make_customer, balance_of, change):
    payer, payee, other = make_customer(1_000), make_customer(), make_customer()
    transfers.transfer(engine, order(payer, payee, 100, key="k"))
    second = {
        "amount": order(payer, payee, 101, key="k"),
        "reference": order(payer, payee, 100, key="k", reference="x"),
        "recipient": order(payer, other, 100, key="k"),
    }[change]
    with pytest.raises(ledger.KeyReusedError):
        transfers.transfer(engine, second)
    assert balance_of(payer.account) == 900


def test_keys_belong_to_a_person(engine, make_customer):
    one, two = make_customer(1_000), make_customer(1_000)
    first = transfers.transfer(engine, order(one, two, 100, key="shared"))
    second = transfers.transfer(engine, order(two, one, 100, key="shared"))
    assert first.entry_id != second.entry_id
    assert not second.replayed


def test_refused_transfer_does_not_use_up_its_key(engine, make_customer, balance_of):
    payer, payee = make_customer(50), make_customer()
    with pytest.raises(ledger.InsufficientFundsError):
        transfers.transfer(engine, order(payer, payee, 100, key="k"))
    funder = make_customer(100)
    transfers.transfer(engine, order(funder, payer, 100))
    assert not transfers.transfer(engine, order(payer, payee, 100, key="k")).replayed
    assert balance_of(payer.account) == 50


def test_reasons_for_refusal(engine, make_customer):
    payer, payee, dollars = make_customer(1_000), make_customer(), make_customer(currency="USD")
    with engine.connect() as connection:
        internal = connection.execute(text("SELECT number FROM accounts WHERE id = :id"), {"id": SETTLEMENT}).scalar()
    for expected, what in (
        (ledger.AccountNotFoundError, order(payee, payer, 1).__class__(**{**vars(order(payee, payer, 1)),
                                                                            "from_account": payer.account})),
        (ledger.UnknownRecipientError, order(payer, "BK00", 1)),
        (ledger.UnknownRecipientError, order(payer, internal, 1)),
        (ledger.SameAccountError, order(payer, payer, 1)),
        (ledger.CurrencyMismatchError, order(payer, dollars, 1)),
        (ledger.LedgerError, order(payer, payee, 0)),
        (ledger.LedgerError, order(payer, payee, -5)),
        (ledger.LedgerError, order(payer, payee, 1, key="x" * 256)),
        (ledger.LedgerError, order(payer, payee, 1, reference="x" * 141)),
    ):  # fmt: skip
        with pytest.raises(expected):
            transfers.transfer(engine, what)


def test_history_pages_neither_skip_nor_repeat_while_rows_arrive(engine, make_customer):
    payer, payee = make_customer(1_000), make_customer()
    for _ in range(12):
        transfers.transfer(engine, order(payer, payee, 1))
    seen, before = [], None
    while True:
        page = accounts.history(engine, payee.account, before, length=5)
        seen += [movement.version for movement in page.movements]
        transfers.transfer(engine, order(payer, payee, 1))  # arrives between two pages
        if page.next_before is None:
            break
        before = page.next_before
    assert seen == list(range(12, 0, -1))


def test_models_and_migrations_agree(owner):
    with owner.connect() as connection:
        options = {"compare_type": True, "compare_server_default": True}
        assert compare_metadata(MigrationContext.configure(connection, opts=options), Base.metadata) == []
        command.check(schema.alembic_config(connection))


def test_migrating_again_changes_nothing_and_leaves_a_newer_schema_alone(owner):
    head = schema.known_revisions()[0]
    assert schema.migrate(owner, "bank_app") == (head, head)
    with owner.connect() as connection, connection.begin() as transaction:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
        assert schema.is_current(connection)
        transaction.rollback()


def test_downgrade_and_upgrade_again(servers, settings, superuser):
    from bank.database import make_engine
    from conftest import as_owner

    with superuser.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("CREATE DATABASE downgrade OWNER bank_owner"))
    engine = make_engine(as_owner(settings, servers, name="downgrade"))
    schema.migrate(engine, "bank_app")
    with engine.begin() as connection:
        command.downgrade(schema.alembic_config(connection), "base")
        left = connection.execute(
            text("SELECT relname FROM pg_class JOIN pg_namespace n ON n.oid = relnamespace "
                 "WHERE nspname = 'public' AND relkind IN ('r', 'S') AND relname <> 'alembic_version'")
        ).all()  # fmt: skip
    assert left == []
    assert schema.migrate(engine, "bank_app") == (None, schema.known_revisions()[0])
    engine.dispose()
