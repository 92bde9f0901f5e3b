"""The ``bank`` command: migrations and demonstration data."""

import os
import re

import pytest
from click.testing import CliRunner
from sqlalchemy import text

import bank
from bank.cli import main
from bank.database import make_engine
from bank.services import passwords, schema
from bank.services import seed as seeding
from conftest import as_owner, configuration_text

HEAD = schema.known_revisions()[0]
DEMO = "admin123 é\"'$x"
EVERYTHING = text("""
    SELECT u.email, u.display_name, u.role, a.number, a.kind, b.balance_minor, b.version,
           (SELECT string_agg(p.amount_minor || e.kind || e.counterparty || e.reference, ',' ORDER BY p.version)
              FROM postings p JOIN journal_entries e ON e.id = p.entry_id WHERE p.account_id = a.id)
      FROM users u JOIN accounts a ON a.owner_id = u.id JOIN balances b ON b.account_id = a.id
     ORDER BY u.email, a.kind
""")


@pytest.fixture
def empty_database(servers, settings, superuser, request):
    """A database of its own: its name, and an engine for its owner."""
    name = f"cli_{os.urandom(4).hex()}"
    with superuser.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text(f"CREATE DATABASE {name} OWNER bank_owner"))
    engine = make_engine(as_owner(settings, servers, name=name))
    yield name, engine
    engine.dispose()


@pytest.fixture
def run(servers, tmp_path, empty_database):
    path = tmp_path / "bank.toml"
    path.write_text(configuration_text(servers, database=empty_database[0]))

    def run(*arguments, owner=False, typed=None, **environment):
        variables = {"BANK_CONFIG": str(path), **environment}
        if owner:
            variables |= {"BANK_DATABASE__USER": "bank_owner", "BANK_DATABASE__PASSWORD": servers.owner_password}
        return CliRunner().invoke(main, list(arguments), env=variables, input=typed)

    return run


def test_version(run):
    assert run("version").output == f"{bank.__version__}\n"


def test_migrate_needs_the_owner_and_repeats_safely(run):
    refused = run("migrate")
    assert refused.exit_code == 1
    assert "permission denied" in refused.stderr
    assert refused.stderr.count("\n") == 1
    assert run("migrate", owner=True).output == f"schema moved from nothing to {HEAD}\n"
    assert run("migrate", owner=True).output == f"schema is at {HEAD}, nothing to do\n"


def test_migrate_says_what_failed(run):
    result = run("migrate", BANK_DATABASE__PASSWORD="wrong canary")
    assert result.exit_code == 1
    assert result.stderr.startswith("bank: the schema was not changed: database cli_")
    assert "password authentication failed" in result.stderr
    assert "canary" not in result.stderr


def test_migrate_says_that_a_role_is_missing(run, empty_database):
    result = run("migrate", owner=True, BANK_DATABASE__APPLICATION_ROLE="nobody_here")
    assert result.exit_code == 1
    assert 'role "nobody_here" does not exist' in result.stderr
    with empty_database[1].connect() as connection:
        assert connection.execute(text("SELECT to_regclass('public.users')")).scalar() is None


def test_two_migrations_at_once(empty_database, settings, servers):
    from concurrent.futures import ThreadPoolExecutor

    def migrate(_):
        engine = make_engine(as_owner(settings, servers, name=empty_database[0]))
        try:
            return schema.migrate(engine, "bank_app")
        finally:
            engine.dispose()

    with ThreadPoolExecutor(3) as pool:
        results = sorted(pool.map(migrate, range(3)), key=str)
    assert sorted(results, key=str) == [(HEAD, HEAD), (HEAD, HEAD), (None, HEAD)]


def test_seed_repeats_and_is_deterministic(run, empty_database):
    run("migrate", owner=True)
    assert (
        run("seed", "--customers", "5", "--seed", "7", BANK_DEMO_PASSWORD=DEMO).output == "10 people, 10 of them new\n"
    )
    _, engine = empty_database
    with engine.connect() as connection:
        first = connection.execute(EVERYTHING).all()
    assert (
        run("seed", "--customers", "5", "--seed", "7", BANK_DEMO_PASSWORD=DEMO).output == "10 people, 0 of them new\n"
    )
    assert (
        run("seed", "--customers", "8", "--seed", "7", BANK_DEMO_PASSWORD=DEMO).output == "13 people, 3 of them new\n"
    )
    with engine.connect() as connection:
        rows = connection.execute(EVERYTHING).all()
        hashes = connection.execute(text("SELECT email, role, password_hash FROM users ORDER BY email")).all()
        sums = connection.execute(text("SELECT sum(balance_minor), min(version) FROM balances")).one()
    assert [row for row in rows if row.email in {old.email for old in first}] == first
    assert sums[0] == 0
    people = {row.email: row for row in hashes}
    assert people["admin@demo.local"].role == "admin"
    assert people["user@demo.local"].role == "customer"
    for role in ("teller", "supervisor", "auditor"):
        assert people[f"{role}@demo.local"].role == role
    assert passwords.matches(people["user@demo.local"].password_hash, DEMO)
    assert len({row.password_hash for row in hashes}) == len(hashes)  # salted


def test_seed_gives_the_same_in_another_database(run, empty_database, servers, settings, superuser):
    run("migrate", owner=True)
    run("seed", "--customers", "3", "--seed", "9", BANK_DEMO_PASSWORD=DEMO)
    with superuser.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text(f"CREATE DATABASE {empty_database[0]}_b OWNER bank_owner"))
    other = make_engine(as_owner(settings, servers, name=f"{empty_database[0]}_b"))
    schema.migrate(other, "bank_app")
    seeding.seed(other, customers=3, seed_number=9, password=DEMO)
    with empty_database[1].connect() as one, other.connect() as two:
        assert one.execute(EVERYTHING).all() == two.execute(EVERYTHING).all()
    other.dispose()


def test_seed_takes_a_new_password_over(run, empty_database):
    run("migrate", owner=True)
    run("seed", "--customers", "1", BANK_DEMO_PASSWORD=DEMO)
    result = run("seed", "--customers", "1", BANK_DEMO_PASSWORD="another password")
    assert result.output == "6 people, 0 of them new, 6 passwords changed\n"
    with empty_database[1].connect() as connection:
        stored = connection.execute(text("SELECT password_hash FROM users WHERE email = 'user@demo.local'")).scalar()
    assert passwords.matches(stored, "another password")


@pytest.mark.parametrize(("password", "words"), [("", "set BANK_DEMO_PASSWORD"), ("1234567", "at least 8 characters")])
def test_seed_refuses_a_missing_or_short_password(run, password, words):
    run("migrate", owner=True)
    result = run("seed", BANK_DEMO_PASSWORD=password)
    assert result.exit_code == 1
    assert words in result.stderr


def test_seed_says_that_the_schema_is_missing(run):
    result = run("seed", BANK_DEMO_PASSWORD=DEMO)
    assert result.exit_code == 1
    assert "no demonstration data" in result.stderr
    assert result.stderr.count("\n") == 1


def test_verify_audit_prints_the_head_and_finds_what_was_changed(run, empty_database):
    from bank.services import audit

    run("migrate", owner=True)
    assert run("verify-audit").output == f"0 rows, head {'0' * 64}\n"
    _, engine = empty_database
    with engine.begin() as connection:
        for _ in range(3):
            audit.record(connection, audit.Origin(), "test", audit.Object("thing", "1"))
    result = run("verify-audit")
    head = re.fullmatch(r"3 rows, head ([0-9a-f]{64})\n", result.output)[1]
    assert run("verify-audit", "--head", head).exit_code == 0
    with engine.begin() as connection:
        connection.execute(text("ALTER TABLE audit_events DISABLE TRIGGER USER"))
        connection.execute(text("UPDATE audit_events SET action = 'other' WHERE number = 2"))
    broken = run("verify-audit")
    assert broken.exit_code == 1
    assert broken.stderr == "bank: the audit trail is broken: row 2 was changed; 1 rows before that are good.\n"


STRONG = "seven green lamps on a pier"


def test_create_admin_reads_the_password_from_standard_input(run, empty_database):
    run("migrate", owner=True)
    made = run("create-admin", "--email", "Boss@Example.org", typed=STRONG + "\n")
    user_id = re.fullmatch(r"admin ([0-9a-f-]{36}) added\n", made.output)[1]
    again = run("create-admin", "--email", "boss@example.org", "--role", "auditor", typed=STRONG + "\n")
    assert (again.exit_code, again.stderr) == (1, "bank: somebody has this email already.\n")
    with empty_database[1].connect() as connection:
        user = connection.execute(text("SELECT id, email, role, password_hash FROM users")).one()
        event = connection.execute(text("SELECT action, object_id, after FROM audit_events")).one()
    assert (str(user.id), user.email, user.role) == (user_id, "boss@example.org", "admin")
    assert passwords.matches(user.password_hash, STRONG)
    assert tuple(event) == ("user-create", user_id, {"role": "admin"})


@pytest.mark.parametrize(
    ("arguments", "password", "words"),
    [
        (["--email", "boss"], STRONG, "email address"),
        (["--email", "a@b.c"], "too short", "12 characters"),
        (["--email", "a@b.c"], "", "12 characters"),
        (["--email", "a@b.c", "--role", "customer"], STRONG, "is not one of"),
        (["--email", "a@b.c", "--password", STRONG], "", "No such option"),
    ],
)
def test_create_admin_refuses(run, arguments, password, words):
    refused = run("create-admin", *arguments, typed=password + "\n")
    assert refused.exit_code != 0
    assert words in refused.stderr


def test_rotate_keys(run, empty_database, servers):
    from bank.keys import Keyring
    from bank.services import second_factor

    run("migrate", owner=True)
    assert run("rotate-keys").output == "0 second factors sealed with secret_key\n"
    made = run("create-admin", "--email", "a@b.c", typed=STRONG + "\n")
    user_id = made.output.split()[1]
    sealed = Keyring(servers.secret_key).seal(second_factor.PURPOSE, b"SEED", user_id)
    with empty_database[1].begin() as connection:
        connection.execute(
            text("INSERT INTO second_factors (user_id, seed, last_step) VALUES (:id, :seed, 0)"),
            {"id": user_id, "seed": sealed},
        )
    new = {"BANK_SECRET_KEY": "Another-Secret-9-Of-Enough-Length!"}
    lost = run("rotate-keys", **new)
    assert lost.exit_code == 1
    assert "1 second factors open with neither secret" in lost.stderr
    both = new | {"BANK_EARLIER_SECRET_KEY": servers.secret_key}
    assert run("rotate-keys", **both).output == "1 second factors sealed with secret_key\n"
    assert run("rotate-keys", **new).output == "0 second factors sealed with secret_key\n"
