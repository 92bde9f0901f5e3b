"""Forecasts of capacity, and what their report says when Prometheus does not."""

import json
import math
import ssl
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from reports import capacity
from reports.forecast import forecast
from reports.prometheus import Prometheus, PrometheusError, Series

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)


def history(days: float, share_of: Callable[[float], float]) -> list[tuple[float, float]]:
    """Return a point for each hour until now; ``share_of`` takes the days before now as a negative number."""
    hours = range(round(days * 24), -1, -1)
    return [((NOW - timedelta(hours=hour)).timestamp(), share_of(-hour / 24)) for hour in hours]


def test_steady_growth_reaches_its_limits_on_the_days_that_follow_from_it() -> None:
    found = forecast(history(30, lambda day: 0.6 + 0.01 * day), NOW)
    assert found is not None
    assert found.growth == pytest.approx(0.01)
    assert found.error == pytest.approx(0, abs=1e-9)
    for share, days in ((0.8, 20), (1.0, 40)):
        reached = found.reaches(share)
        assert reached is not None
        assert (reached - NOW) / timedelta(days=1) == pytest.approx(days, abs=0.01)


def test_peaks_decide_and_not_the_average() -> None:
    # A tide of half the limit every day: its average never comes near what its peaks reach in ten days.
    found = forecast(history(30, lambda day: 0.45 + 0.01 * day + 0.25 * math.cos(2 * math.pi * day)), NOW)
    assert found is not None
    reached = found.reaches(0.8)
    assert reached is not None
    assert (reached - NOW) / timedelta(days=1) == pytest.approx(10, abs=1)


def test_peaks_that_scatter_may_reach_the_limit_sooner() -> None:
    found = forecast(history(30, lambda day: 0.5 + 0.002 * day + 0.05 * math.sin(5 * int(day))), NOW)
    assert found is not None
    reached, earliest = found.reaches(0.8), found.earliest(0.8)
    assert reached is not None
    assert earliest is not None
    assert NOW < earliest < reached


@pytest.mark.parametrize("growth", [0.0, -0.01, 1e-5])
def test_what_does_not_grow_enough_has_no_date(growth: float) -> None:
    found = forecast(history(30, lambda day: 0.5 + growth * day), NOW)
    assert found is not None
    assert found.reaches(0.8) is None


def test_what_is_over_the_limit_is_so_now() -> None:
    found = forecast(history(30, lambda _: 0.9), NOW)
    assert found is not None
    assert found.reaches(0.8) == NOW


def test_a_young_platform_is_read_by_the_hour_and_a_newborn_one_not_at_all() -> None:
    assert forecast(history(0.5, lambda day: 0.6 + 0.1 * day), NOW) is not None
    assert forecast(history(1 / 24, lambda day: 0.6 + 0.1 * day), NOW) is None


class Recorded(Prometheus):
    """A server that has recorded the given series."""

    def __init__(self, found: list[Series]) -> None:
        super().__init__("https://mon1.example.com:9090", "operator", "secret", Path("ca.crt"))
        self.found = found

    def query_range(self, expression: str, start: datetime, end: datetime, step: timedelta) -> list[Series]:
        """Return the recorded series."""
        assert capacity.RECORDED in expression
        assert start < end
        assert step > timedelta()
        return self.found


def test_report_puts_first_what_runs_out_first_and_escapes_names(tmp_path: Path) -> None:
    slow = Series({"resource": "disk", "instance": "db1", "mountpoint": "/<b>"}, history(30, lambda d: 0.5 + 0.002 * d))
    fast = Series({"resource": "memory", "instance": "app1"}, history(30, lambda day: 0.5 + 0.01 * day))
    young = Series({"resource": "processors", "instance": "lb1"}, history(1 / 24, lambda _: 0.3))
    output = tmp_path / "new" / "capacity.html"
    line = capacity.write(Recorded([slow, young, fast]), 30, output)
    assert line.endswith("3 resources, first in the list: memory, app1")
    text = output.read_text(encoding="utf-8")
    assert text.count("<svg") == 3
    assert "/&lt;b&gt;" in text
    assert "/<b>" not in text
    assert "no forecast: less than three hours of history" in text


def test_nothing_recorded_is_said_and_leaves_no_file(tmp_path: Path) -> None:
    with pytest.raises(PrometheusError, match=r"no series capacity:used:ratio: run site\.yml"):
        capacity.write(Recorded([]), 30, tmp_path / "capacity.html")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("code", "text", "sentence"),
    [
        (401, "", "refuses the user or the password"),
        (502, "<html>", "answers 502, and not as Prometheus does"),
        (400, json.dumps({"status": "error", "error": "parse error"}), "refuses the question: parse error"),
    ],
)
def test_a_useless_answer_is_named(
    server: tuple[str, dict[str, tuple[int, str]]], code: int, text: str, sentence: str
) -> None:
    url, given = server
    given["answer"] = (code, text)
    with pytest.raises(PrometheusError, match=sentence):
        Prometheus(url, "operator", "secret", Path(ssl.get_default_verify_paths().cafile or "")).query("up")


def test_a_server_that_is_away_is_named() -> None:
    with pytest.raises(PrometheusError, match=r"does not answer .*prometheus\.service"):
        Prometheus("http://127.0.0.1:1", "operator", "secret", Path("ca.crt")).query("up")
