"""Where log lines go, what they become, and what happens when they cannot be written."""

from __future__ import annotations

import itertools
import json
import logging
from pathlib import Path

import pytest

from bank import log
from bank.config import Logging


@pytest.fixture
def logged(settings, tmp_path):
    """Send the log to a file of the test's own at a level; return how to read its lines and how many were dropped."""
    drops = []

    def start(level="info", path=tmp_path / "bank.log"):
        here = settings.model_copy(update={"logging": Logging(path=str(path), level=level)})
        log.configure(here, lambda: drops.append(1))
        return lambda: [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()], drops

    yield start
    log.configure(settings)


def test_own_and_library_lines_have_the_same_shape(logged):
    lines, drops = logged()
    log.logger.info("transfer completed", **{"event.action": "transfer", "bank.amount_minor": 1250})
    logging.getLogger("some.library").warning("pool is %s", "full")
    own, library = lines()
    assert (own["message"], own["log.level"], own["log"]["logger"]) == ("transfer completed", "info", "bank")
    assert own["bank"]["amount_minor"] == 1250
    assert (library["message"], library["log.level"]) == ("pool is full", "warning")
    assert library["log"]["logger"] == "some.library"
    assert own.keys() - {"bank"} == library.keys()
    assert own["service"] == library["service"]
    assert not drops


def test_fields_without_a_place_on_the_list_are_left_out(logged):
    lines, _ = logged()
    log.logger.warning("refused", password="hunter2", **{"user.id": "u1"})
    (line,) = lines()
    assert "hunter2" not in json.dumps(line)
    assert line["user"] == {"id": "u1"}


@pytest.mark.parametrize(("level", "kept"), [("debug", 4), ("info", 3), ("warning", 2), ("error", 1)])
def test_level_of_the_settings_is_the_least_that_is_written(logged, level, kept):
    lines, _ = logged(level)
    for name in ("debug", "info", "warning", "error"):
        getattr(log.logger, name)(f"at {name}")
    assert [line["log.level"] for line in lines()] == ["debug", "info", "warning", "error"][-kept:]


def test_errors_are_described_in_their_fields(logged):
    lines, _ = logged()
    try:
        int("no number")
    except ValueError as error:
        log.logger.error("request failed", exc_info=error)
    (line,) = lines()
    assert line["error"]["type"] == "builtins.ValueError"
    assert "no number" in line["error"]["message"]
    assert "test_errors_are_described_in_their_fields" in line["error"]["stack_trace"]


def test_full_disk_drops_the_line_counts_it_and_goes_on(logged, capsys):
    _, drops = logged(path=Path("/dev/full"))
    log.logger.info("first")
    logging.getLogger("some.library").error("second")
    assert len(drops) == 2
    assert capsys.readouterr().err.count("a log line could not be written: [Errno 28]") == 2


def test_text_that_is_no_unicode_drops_the_line(logged):
    lines, drops = logged()
    log.logger.info("before \ud800")
    log.logger.info("after")
    assert [line["message"] for line in lines()] == ["after"]
    assert len(drops) == 1


def test_rotated_file_is_opened_anew(logged, tmp_path):
    lines, _ = logged()
    log.logger.info("old")
    (tmp_path / "bank.log").rename(tmp_path / "bank.log.1")
    log.logger.info("new")
    assert [line["message"] for line in lines()] == ["new"]
    assert '"old"' in (tmp_path / "bank.log.1").read_text(encoding="utf-8")


def test_no_field_is_the_parent_of_another():
    # Elastic's formatter refuses to nest such a pair, which would fail the request that logs it.
    fields = log.ALLOWED - {"event"}
    assert not [(one, other) for one, other in itertools.permutations(fields, 2) if other.startswith(f"{one}.")]
