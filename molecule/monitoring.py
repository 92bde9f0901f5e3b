"""What the playbook of the monitoring does to several hosts of one group."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import testinfra
from companions import Lookout
from testinfra.host import Host

if TYPE_CHECKING:
    from conftest import Apply

PLAYBOOK = Path(__file__).parents[1] / "playbooks/monitoring.yml"


def assert_changed_one_after_another(
    apply: Apply, group: str, questions: dict[str, Callable[[], object]], **variables: object
) -> None:
    """Apply a change that restarts each server, and require that never all of them were away."""
    with Lookout(questions) as lookout:
        answer = apply(PLAYBOOK, "--limit", group, **variables)
    assert not answer.failed, answer.output
    everybody = frozenset(questions)
    away = [everybody - serving for serving in lookout.seen]
    assert lookout.serving() == everybody
    assert frozenset().union(*away) == everybody, f"each is restarted: {away}"
    assert everybody not in away, f"never all at once: {away}"
    print(f"away: {[sorted(names) for names in away]}")


def assert_stopped_at_the_first(
    apply: Apply,
    group: str,
    questions: dict[str, Callable[[], object]],
    state: Callable[[Host], str],
    **variables: object,
) -> None:
    """Apply a setting that cannot work, and require that nothing happened to any host but the first."""
    first, *names = questions
    others = {name: testinfra.get_host(f"docker://{name}") for name in names}
    before = {name: state(host) for name, host in others.items()}
    with Lookout(questions) as lookout:
        answer = apply(PLAYBOOK, "--limit", group, **variables)
    assert answer.failed
    assert answer.stopped == {first}, answer.output
    assert frozenset(questions) in lookout.seen, "all served before"
    assert any(first not in serving for serving in lookout.seen), "the first was tried"
    assert all(serving >= set(others) for serving in lookout.seen), f"the others served all the while: {lookout.seen}"
    assert {name: state(host) for name, host in others.items()} == before
