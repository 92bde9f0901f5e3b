"""Lines as the bank writes them, from the log of a host to the log store."""

from __future__ import annotations

import shlex
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

from testinfra.host import Host

WRITER = Path(__file__).with_name("write_lines.py").read_text(encoding="utf-8")
LINES = 1000

Search = Callable[..., dict[str, Any]]


def count(search: Search, run: str) -> tuple[int, int, int]:
    """Return how many different lines of a run are stored, and how many documents of transactions and of others."""
    body = {
        "size": 0,
        "track_total_hits": True,
        "query": {"term": {"labels.run": run}},
        "aggs": {
            # A cardinality would be an estimate.
            "ids": {"terms": {"field": "event.id", "size": 2 * LINES}},
            "datasets": {"terms": {"field": "event.dataset"}},
        },
    }
    answer = search("/app-logs-*/_search", body).get("aggregations")
    if not answer:
        return 0, 0, 0
    found = {bucket["key"]: bucket["doc_count"] for bucket in answer["datasets"]["buckets"]}
    return len(answer["ids"]["buckets"]), found.get("bank.transaction", 0), found.get("bank.app", 0)


def start_writing(app: Host, seconds: float) -> str:
    """Let a program on the host write lines; return the name of the run."""
    run = uuid.uuid4().hex
    app.run_expect([0], f"printf %s {shlex.quote(WRITER)} > /root/write_lines.py")
    program = f"python3 /root/write_lines.py {run} {LINES} {seconds}"
    app.run_expect([0], f"systemd-run --quiet --unit=writer-{run[:8]} {program}")
    return run


def assert_all_arrive(search: Search, run: str, seconds: int) -> None:
    """Wait until every line of a run is stored; transactions once, others at least once."""
    end = time.monotonic() + seconds
    while count(search, run)[0] < LINES and time.monotonic() < end:
        time.sleep(0.5)
    # Whatever was sent twice has arrived by then too.
    time.sleep(1.5)
    ids, transactions, others = count(search, run)
    assert (ids, transactions) == (LINES, LINES // 2)
    assert others >= LINES // 2
