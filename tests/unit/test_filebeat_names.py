"""Which lines never reach the queue on the disk, which loses what comes after a field without a name."""

import re
from pathlib import Path

import pytest
import yaml

VARIABLES = Path(__file__).parents[2] / "roles/filebeat/vars/main.yml"
EMPTY_NAME = re.compile(yaml.safe_load(VARIABLES.read_text(encoding="utf-8"))["__filebeat_empty_name"])


@pytest.mark.parametrize(
    "line",
    [
        '{"": 1}',
        '{"a": {"" : 1}}',
        '{"a": [{"":1}]}',
        '{".": 1}',
        '{".a": 1}',
        '{"a.": 1}',
        '{"a..b": 1}',
        '{"x": 1, "a.b.": 2}',
        '{"\\u002e": 1}',
        '{"a\\u002E\\u002eb": 1}',
    ],
)
def test_names_that_are_empty_between_their_dots_are_found(line: str) -> None:
    assert EMPTY_NAME.search(line)


@pytest.mark.parametrize(
    "line",
    [
        '{"event.id": "1", "message": ""}',
        '{"message": "A sentence.", "event.dataset": "bank.app"}',
        '{"message": "He said \\"no\\".", "a.b.c": ["", {"d.e": null}]}',
        '{"url.path": "/a/../b", "log": {"level": "info"}}',
    ],
)
def test_lines_of_the_bank_pass(line: str) -> None:
    assert not EMPTY_NAME.search(line)
