"""What Prometheus learns, by way of node_exporter's textfile collector, and what the job remembers for its next run."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, fields
from pathlib import Path

STEPS = ("connect", "rollover", "snapshot", "prune", "retention")


@dataclass
class Facts:
    """What is known after a run; what a failed step could not find out stays as it was."""

    run_timestamp: float = 0
    success_timestamp: float = 0
    deleted_total: int = 0
    future_indices: int = 0
    lifecycle_by_server: bool = False
    snapshots_wanted: bool = False
    snapshots_by_server: bool = False
    snapshot_timestamp: float = 0
    snapshot_seconds: float = 0
    snapshot_bytes: int = 0
    snapshots_good: int = 0
    snapshots_bad: int = 0


def load(path: Path) -> Facts:
    """Return what was known after the last run; a file that is missing or damaged holds nothing."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        known = {field.name for field in fields(Facts)}
        return Facts(**{name: value for name, value in found.items() if name in known})
    except (OSError, ValueError, AttributeError, TypeError):
        return Facts()


def write(path: Path, text: str, mode: int) -> None:
    """Write a file such that nobody ever reads half of it."""
    fresh = path.with_name(f"{path.name}.tmp")
    with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode), "w", encoding="utf-8") as stream:
        stream.write(text)
        stream.flush()
        os.fsync(stream.fileno())
    fresh.replace(path)


def save(path: Path, facts: Facts) -> None:
    """Remember what is known."""
    write(path, json.dumps(asdict(facts), indent=1) + "\n", 0o640)


def render(facts: Facts, failed: set[str]) -> str:
    """Return all metrics as Prometheus reads them."""
    lines = []

    def add(name: str, kind: str, text: str, *samples: tuple[str, float]) -> None:
        lines.extend([f"# HELP {name} {text}", f"# TYPE {name} {kind}"])
        lines.extend(f"{name}{labels} {value:.15g}" for labels, value in samples)

    job = "elasticsearch_maintenance"
    add(f"{job}_last_run_timestamp_seconds", "gauge", "When the job ended last.", ("", facts.run_timestamp))
    add(
        f"{job}_last_success_timestamp_seconds",
        "gauge",
        "When the job last ended without a failure.",
        ("", facts.success_timestamp),
    )
    add(
        f"{job}_step_failed",
        "gauge",
        "Whether a step of the last run failed; its reason is in the journal.",
        *((f'{{step="{step}"}}', int(step in failed)) for step in STEPS),
    )
    add(f"{job}_deleted_indices_total", "counter", "Indices deleted because they expired.", ("", facts.deleted_total))
    add(f"{job}_future_indices", "gauge", "Daily indices whose day has not come yet.", ("", facts.future_indices))
    add(
        f"{job}_lifecycle_by_server",
        "gauge",
        "Whether the server expires indices by itself.",
        ("", int(facts.lifecycle_by_server)),
    )
    if facts.snapshots_wanted:
        name = "elasticsearch_snapshot"
        add(
            f"{name}_last_success_timestamp_seconds",
            "gauge",
            "When the last good snapshot was complete, 0 for none.",
            ("", facts.snapshot_timestamp),
        )
        add(f"{name}_last_duration_seconds", "gauge", "How long it took.", ("", facts.snapshot_seconds))
        add(f"{name}_last_size_bytes", "gauge", "Size of all that it holds.", ("", facts.snapshot_bytes))
        states = (('{state="good"}', facts.snapshots_good), ('{state="bad"}', facts.snapshots_bad))
        add(f"{name}s", "gauge", "Daily snapshots in the repository.", *states)
        add(f"{name}_by_server", "gauge", "Whether the server takes them itself.", ("", int(facts.snapshots_by_server)))
    return "\n".join(lines) + "\n"
