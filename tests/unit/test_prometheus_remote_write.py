"""What cannot work with receivers of samples is said in words, all of it at once."""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any

import pytest

ROLE = Path(__file__).parents[2] / "roles/prometheus"
problems = runpy.run_path(str(ROLE / "filter_plugins/prometheus_remote_write.py"))["prometheus_remote_write_problems"]
RECEIVER = {"name": "archive", "url": "https://metrics.example.com:9090/api/v1/write?tenant=bank"}


def test_what_can_work_is_left_alone() -> None:
    queue = {"max_shards": 1, "min_backoff": "30ms", "max_backoff": "1m30s", "capacity": None}
    log_in = {"user": "platform", "password": 'it\'s "$HOME" `id` %é'}
    assert problems([RECEIVER | log_in | {"queue": queue}, RECEIVER | {"name": "other_site-2"}]) == []
    assert problems([]) == []


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"url": "http://metrics.example.com/"}, "The url of archive must begin with https://"),
        ({"url": "https://user:secret@metrics.example.com/"}, "hold no user, password or space"),
        ({"url": "https://metrics.example.com/a b"}, "hold no user, password or space"),
        ({"name": "../web"}, 'The name "../web" needs letters, digits, dashes and underscores only.'),
        ({"name": "a\n"}, "needs letters, digits, dashes and underscores only."),
        ({"user": "platform"}, "archive needs user and password both, or neither."),
        ({"password": "secret"}, "archive needs user and password both, or neither."),
        ({"user": "platform", "password": "two\nlines"}, "The password of archive has a space at an end"),
        ({"user": "platform", "password": "end "}, "The password of archive has a space at an end"),
        ({"queue": {"max_shards": 0}}, "The queue of archive has max_shards 0: write a number above 0."),
        ({"queue": {"min_backoff": "soon"}}, 'The queue of archive has min_backoff "soon": write a duration like 5s.'),
    ],
)
def test_fault_is_named_without_the_secret(change: dict[str, Any], sentence: str) -> None:
    found = problems([RECEIVER | change])
    assert len(found) == 1
    assert sentence in found[0]
    assert "secret" not in found[0]


def test_all_faults_are_said_at_once() -> None:
    found = problems([RECEIVER, RECEIVER | {"url": "", "user": "platform"}])
    assert [sentence.split()[0] for sentence in found] == ["The", "archive", "Two"]
