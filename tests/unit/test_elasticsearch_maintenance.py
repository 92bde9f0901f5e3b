"""What the maintenance job decides from names, days and snapshots, without a server."""

from __future__ import annotations

import importlib
import sys
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from lab.settings import PROJECT

sys.path.insert(0, str(PROJECT / "roles/elasticsearch_maintenance/release/src"))
config, metrics, retention, snapshots = (
    importlib.import_module(f"elasticsearch_maintenance.{name}")
    for name in ("config", "metrics", "retention", "snapshots")
)

TODAY = date(2026, 11, 22)
NOW = datetime(2026, 11, 22, 4, 30, tzinfo=UTC)
KEEP = {"app-logs-": 90, "app-logs-rejected-": 30}
GOOD: dict[str, Any] = {
    "nodes": ["https://es1:9200"],
    "ca_path": "/ca.crt",
    "user": "maintenance",
    "password": "p",
    "retention": KEEP,
    "rollovers": {"dead-letters": 90},
    "snapshots": {"repository": "r", "hour": 1, "days": 14, "minimum": 3, "maximum": 40, "seconds": 60},
    "state_directory": "/state",
}


def test_index_expires_the_day_after_its_last() -> None:
    names = [
        "app-logs-2026.08.24",
        "app-logs-2026.08.23",
        "app-logs-rejected-2026.10.23",
        "app-logs-rejected-2026.10.22",
    ]
    found = retention.plan(names, KEEP, TODAY)
    assert found.expired == ["app-logs-2026.08.23", "app-logs-rejected-2026.10.22"]


@pytest.mark.parametrize(
    "name",
    [
        "app-logs-2026.02.30", "app-logs-2020.01.01-000001", "app-logs-2020.1.1", "app-logs-x-2020.01.01",
        "my-app-logs-2020.01.01", "app-logs-", "app-logs-２０２０.01.01",
    ],
)  # fmt: skip
def test_names_that_are_no_day_of_a_known_prefix_stay(name: str) -> None:
    found = retention.plan([name], KEEP, TODAY)
    assert (found.expired, found.future, found.newest) == ([], [], None)


def test_future_begins_after_tomorrow() -> None:
    found = retention.plan(["app-logs-2026.11.23", "app-logs-2026.11.24"], KEEP, TODAY)
    assert found.future == ["app-logs-2026.11.24"]
    assert found.newest == date(2026, 11, 23)


def test_nothing_goes_where_nothing_is_young() -> None:
    old = retention.plan(["app-logs-2020.01.01", "app-logs-2026.11.19", "app-logs-2099.01.01"], KEEP, TODAY)
    with pytest.raises(
        retention.RetentionError, match=r"1 indices would be deleted, but the newest of all is of 2026-11-19"
    ):
        retention.refuse_silence(old, TODAY)
    retention.refuse_silence(retention.plan(["app-logs-2020.01.01", "app-logs-2026.11.20"], KEEP, TODAY), TODAY)
    retention.refuse_silence(retention.plan(["app-logs-2026.11.01"], KEEP, TODAY), TODAY)


def test_generation_goes_when_its_last_document_has_expired() -> None:
    def days_ago(days: int) -> int:
        return int((NOW - timedelta(days=days)).timestamp() * 1000)

    created = {"dead-000001": days_ago(200), "dead-000002": days_ago(91), "dead-000003": days_ago(89), "dead-x": 0}
    assert retention.expired_generations(created, "dead", 90, NOW) == ["dead-000001"]
    assert retention.expired_generations({"dead-000001": days_ago(900)}, "dead", 90, NOW) == [], "is written to"


def snapshot(days: float, state: str = "SUCCESS", failed: int = 0) -> Any:  # noqa: ANN401
    begun = NOW - timedelta(days=days)
    return snapshots.Snapshot(f"daily-{days}", state, begun, 60, failed)


def test_snapshot_is_due_once_after_its_hour() -> None:
    assert snapshots.is_due([], 1, NOW)
    assert not snapshots.is_due([snapshot(0.1)], 1, NOW), "taken at 02:06"
    assert snapshots.is_due([snapshot(0.2)], 1, NOW), "taken at 23:42 the day before"
    assert not snapshots.is_due([snapshot(0.2)], 5, NOW), "not before its hour"
    assert snapshots.is_due([snapshot(0.1, "PARTIAL"), snapshot(0.1, "FAILED"), snapshot(0.1, failed=1)], 1, NOW)


def test_partial_snapshot_is_not_good() -> None:
    found = snapshots.parse(
        {
            "snapshot": "daily-1",
            "state": "PARTIAL",
            "start_time_in_millis": 1000,
            "duration_in_millis": 2000,
            "shards": {"total": 2, "failed": 1},
            "failures": [{"reason": "node left"}],
        }
    )
    assert (found.is_good, found.seconds, found.reason) == (False, 2, "node left")
    assert snapshots.newest_good([found]) is None


def test_snapshots_go_by_age_and_number_and_some_always_stay() -> None:
    limits = snapshots.Snapshots("r", 1, days=14, minimum=3, maximum=5, seconds=60)

    def gone(*found: Any) -> list[str]:  # noqa: ANN401
        return [one.name for one in snapshots.superfluous(found, limits, NOW)]

    assert gone(*(snapshot(days) for days in (1, 2, 20, 30))) == ["daily-30"]
    assert gone(*(snapshot(days) for days in (1, 2, 3, 4, 5, 6))) == ["daily-6"]
    assert gone(snapshot(2, "PARTIAL"), snapshot(1), snapshot(0.5, "FAILED")) == ["daily-2"], "a good one has followed"
    assert gone(snapshot(2, "PARTIAL"), snapshot(1, "FAILED")) == [], "they are all that there is"
    assert gone(snapshot(1), snapshot(2, "IN_PROGRESS")) == []


def test_configuration_is_read() -> None:
    found = config.parse(GOOD)
    assert found.snapshots.hour == 1
    assert "'p'" not in repr(found), "no password where an error might show it"
    assert config.parse({**GOOD, "snapshots": None}).snapshots is None


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"retention": {"": 5}}, "retention names ''"),
        ({"retention": {"*": 5}}, "retention names '*'"),
        ({"retention": {"a-": 5}}, "retention names 'a-'"),
        ({"retention": {"app-logs-": 0}}, "keeps app-logs- for 0 days"),
        ({"retention": {"app-logs-": -90}}, "for -90 days"),
        ({"retention": {"app-logs-": "90"}}, "for '90' days"),
        ({"retention": {"app-logs-": True}}, "for True days"),
        ({"retention": {"app-logs-": 36500}}, "from 1 to 3660"),
        ({"nodes": ["http://es1:9200"]}, "must begin with https://"),
        ({"nodes": []}, "at least one address"),
        ({"snapshots": {**GOOD["snapshots"], "minimum": 50}}, "lower it"),
        ({"snapshots": {**GOOD["snapshots"], "hour": 24}}, "snapshots.hour is 24"),
        ({"retentoin": {}}, "retentoin is not known"),
    ],
)
def test_mistakes_in_the_configuration_are_named(change: dict[str, object], sentence: str) -> None:
    with pytest.raises(config.ConfigError) as raised:
        config.parse({**GOOD, **change})
    assert sentence in str(raised.value)


def test_metrics_are_whole_and_remembered(tmp_path: Path) -> None:
    facts = metrics.Facts(deleted_total=7, snapshots_wanted=True, snapshot_timestamp=1795321086.137)
    metrics.save(tmp_path / "state.json", facts)
    assert metrics.load(tmp_path / "state.json") == facts
    (tmp_path / "damaged.json").write_text("[", encoding="utf-8")
    assert metrics.load(tmp_path / "damaged.json") == metrics.Facts()
    text = metrics.render(facts, {"snapshot"})
    assert 'elasticsearch_maintenance_step_failed{step="snapshot"} 1\n' in text
    assert 'elasticsearch_maintenance_step_failed{step="retention"} 0\n' in text
    assert "elasticsearch_maintenance_deleted_indices_total 7\n" in text
    assert "elasticsearch_snapshot_last_success_timestamp_seconds 1795321086.137\n" in text
    assert "elasticsearch_snapshot" not in metrics.render(metrics.Facts(), set()), (
        "nothing is promised without snapshots"
    )
