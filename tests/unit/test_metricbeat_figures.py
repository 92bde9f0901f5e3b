"""Which sets of figures count as read."""

import importlib.util
from pathlib import Path

PLUGIN = Path(__file__).parents[2] / "plugins/filter/metricbeat_figures.py"
SPEC = importlib.util.spec_from_file_location("metricbeat_figures", PLUGIN)
assert SPEC and SPEC.loader
figures = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(figures)

MODULES = [{"module": "system", "metricsets": ["cpu", "load"]}, {"module": "redis", "metricsets": ["info"]}]


def test_what_never_succeeded_is_named() -> None:
    stats = {"metricbeat": {"system": {"cpu": {"success": 3, "failures": 1}, "load": {"success": 0}}}}
    assert figures.metricbeat_unread(MODULES, stats) == ["system.load", "redis.info"]


def test_all_are_named_before_the_first_answer() -> None:
    assert figures.metricbeat_unread(MODULES, {}) == ["system.cpu", "system.load", "redis.info"]
    assert figures.metricbeat_unread(MODULES, {"metricbeat": None}) == ["system.cpu", "system.load", "redis.info"]


def test_nothing_is_named_when_all_were_read() -> None:
    read = {"success": 1, "failures": 0}
    stats = {"metricbeat": {"system": {"cpu": read, "load": read}, "redis": {"info": read}}}
    assert figures.metricbeat_unread(MODULES, stats) == []


def test_silence_is_taken_for_nothing_to_say_after_a_while_and_a_failure_is_not() -> None:
    stats = {"beat": {"info": {"uptime": {"ms": 11_000}}}, "metricbeat": {"redis": {"info": {"failures": 0}}}}
    assert figures.metricbeat_unread(MODULES[1:], stats) == ["redis.info"]
    stats["beat"]["info"]["uptime"]["ms"] = 13_000
    assert figures.metricbeat_unread(MODULES[1:], stats) == []
    stats["metricbeat"]["redis"]["info"]["failures"] = 2
    assert figures.metricbeat_unread(MODULES[1:], stats) == ["redis.info"]
