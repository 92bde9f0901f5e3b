"""The audit trail: append-only, linked, complete, and readable by pages."""

import json
import threading
import uuid
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from bank import log, metrics
from bank.config import Logging
from bank.database import make_engine
from bank.services import audit, reconcile, scheduler, schema
from bank.services.audit import Filter, Object, Origin
from conftest import as_owner


def record(engine, action="test", **more):
    with engine.begin() as connection:
        return audit.record(connection, Origin(uuid.uuid4(), "203.0.113.7", "r-1"), action, Object("user", "x"), **more)


@pytest.fixture
def trail(engine):
    """Some rows of a subject of their own."""
    subject = Object("thing", uuid.uuid4().hex)
    with engine.begin() as connection:
        for step in range(5):
            audit.record(
                connection, Origin(), f"step-{step % 2}", subject, before={"step": step}, after={"é": "\u2028"}
            )
    return subject


def test_rows_are_linked_and_hold_what_was_recorded(engine):
    actor = uuid.uuid4()
    with engine.begin() as connection:
        number = audit.record(
            connection, Origin(actor, "2001:db8::1", "abc"), "role-change", Object("user", "u-1"),
            before={"role": "teller", "z": [1, None, True]}, after={"role": "supervisor"},
        )  # fmt: skip
    event = audit.read(engine, Filter(actor_id=actor)).events[0]
    assert (event.number, event.action, event.object_type, event.object_id) == (number, "role-change", "user", "u-1")
    assert (event.before, event.after) == ({"role": "teller", "z": [1, None, True]}, {"role": "supervisor"})
    assert (event.source_ip, event.request_id) == ("2001:db8::1", "abc")
    assert abs(event.occurred_at - datetime.now(UTC)) < timedelta(seconds=30)
    verdict = audit.verify(engine)
    assert verdict.problem is None
    assert verdict.rows >= number
    assert len(verdict.head) == 64


def test_nothing_is_recorded_when_the_act_is_rolled_back(engine):
    before = audit.verify(engine)
    with pytest.raises(RuntimeError), engine.begin() as connection:
        audit.record(connection, Origin(), "never", Object("user", "x"))
        raise RuntimeError
    assert audit.verify(engine) == before


@pytest.mark.parametrize(
    "statement",
    ["UPDATE audit_events SET action = 'x'", "DELETE FROM audit_events", "TRUNCATE audit_events"],
)
def test_trail_is_append_only_for_the_application_and_for_the_owner(engine, owner, trail, statement):
    for who, state in ((engine, "42501"), (owner, "23001")):
        with pytest.raises(DBAPIError) as error, who.begin() as connection:
            connection.execute(text(statement))
        assert error.value.orig.sqlstate == state


def test_writers_at_once_make_one_chain(engine):
    start = threading.Barrier(8)

    def write(_):
        start.wait()
        return record(engine)

    before = audit.verify(engine).rows
    with ThreadPoolExecutor(8) as pool:
        numbers = list(pool.map(write, range(24)))
    assert sorted(numbers) == list(range(before + 1, before + 25))
    assert audit.verify(engine).problem is None


def test_pages_and_filters(engine, trail):
    wanted = Filter(object_type=trail.type, object_id=trail.id)
    first = audit.read(engine, wanted, length=2)
    record(engine)  # what arrives meanwhile moves nothing
    second = audit.read(engine, wanted, before=first.next_before, length=2)
    third = audit.read(engine, wanted, before=second.next_before, length=2)
    steps = [event.before["step"] for page in (first, second, third) for event in page.events]
    assert steps == [4, 3, 2, 1, 0]
    assert third.next_before is None
    assert [e.before["step"] for e in audit.read(engine, Filter(object_id=trail.id, action="step-1")).events] == [3, 1]
    now = datetime.now(UTC)
    assert len(audit.read(engine, Filter(object_id=trail.id, since=now - timedelta(minutes=1), until=now)).events) == 5
    assert not audit.read(engine, Filter(object_id=trail.id, until=now - timedelta(minutes=1))).events
    assert not audit.read(engine, Filter(object_id=trail.id, since=now)).events


@pytest.fixture(scope="module")
def other_database(servers, settings, superuser):
    """A trail that may be broken: its owner, and somebody who can switch the triggers off."""
    name = "audit_broken"
    with superuser.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text(f"CREATE DATABASE {name} OWNER bank_owner"))
    engine = make_engine(as_owner(settings, servers, name=name))
    schema.migrate(engine, "bank_app")
    with engine.begin() as connection:
        for step in range(6):
            audit.record(connection, Origin(), "step", Object("thing", str(step)), after={"step": step})
    yield engine
    engine.dispose()


def change(number, assignment):
    return f"UPDATE audit_events SET {assignment} WHERE number = {number}"


def remove(number):
    return f"DELETE FROM audit_events WHERE number = {number}"


@pytest.mark.parametrize(
    ("statements", "problem"),
    [
        ([change(3, "action = 'other'")], "row 3 was changed"),
        ([change(6, "after = '{\"step\": 9}'")], "row 6 was changed"),
        ([change(1, "occurred_at = occurred_at + interval '1 s'")], "row 1 was changed"),
        ([change(2, "hash = previous_hash")], "row 2 was changed"),
        ([remove(4)], "row 4 is missing"),
        ([remove(1)], "row 1 is missing"),
        ([remove(4), change(5, "number = 4"), change(6, "number = 5")], "row 4 does not follow the row before it"),
        (
            [change(2, "number = 99"), change(5, "number = 2"), change(99, "number = 5")],
            "row 2 does not follow the row before it",
        ),
        ([remove(6)], "the known head is not part of the trail"),
    ],
)
def test_tampering_is_found(other_database, statements, problem, monkeypatch):
    whole = audit.verify(other_database)
    assert (whole.rows, whole.problem) == (6, None)
    with other_database.connect() as connection, connection.begin() as transaction:
        connection.execute(text("ALTER TABLE audit_events DISABLE TRIGGER USER"))
        for statement in statements:
            connection.execute(text(statement))

        class Same:
            """Looks at the tampered rows before they are rolled back."""

            def connect(self):
                return self

            def execution_options(self, **_):
                return self

            def __enter__(self):
                return connection

            def __exit__(self, *_):
                return None

        assert audit.verify(Same(), whole.head).problem == problem
        transaction.rollback()
    assert audit.verify(other_database, whole.head) == whole


def test_head_leaves_with_the_log_and_the_metrics_tell(other_database, settings, tmp_path):
    file = tmp_path / "bank.json"
    log.configure(settings.model_copy(update={"logging": Logging(path=str(file))}))

    def told():
        reconcile._cache.clear()
        page = metrics.exposition(reconcile.figures(other_database)).decode()
        return dict(line.split(" ") for line in page.splitlines() if line.startswith("bank_audit"))

    def line():
        found = [json.loads(line) for line in file.read_text().splitlines()]
        return [entry for entry in found if entry["event"].get("action") == "audit-anchor"][-1]

    assert told() == {}
    whole = scheduler.check_audit_if_due(other_database, 60)
    assert (whole.rows, whole.problem) == (6, None)
    assert scheduler.check_audit_if_due(other_database, 60) is None
    assert line()["bank"]["audit"] == {"head": whole.head, "rows": 6}
    assert (line()["log.level"], line()["event"]["dataset"]) == ("info", "bank.audit")
    assert told()["bank_audit_chain_valid"] == "1.0"
    assert abs(float(told()["bank_audit_last_check_timestamp_seconds"]) - datetime.now(UTC).timestamp()) < 60
    # A trail that ends sooner than it did is whole in itself, but not the one that was checked before.
    with other_database.begin() as connection:
        connection.execute(text("ALTER TABLE audit_events DISABLE TRIGGER USER"))
        connection.execute(text(remove(6)))
        connection.execute(text("ALTER TABLE audit_events ENABLE TRIGGER USER"))
    for _ in range(2):  # what is broken stays broken
        assert scheduler.check_audit_if_due(other_database, 0).problem == "the known head is not part of the trail"
        assert told()["bank_audit_chain_valid"] == "0.0"
    assert (line()["log.level"], line()["event"]["outcome"]) == ("error", "failure")
