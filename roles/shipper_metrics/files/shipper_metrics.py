"""Tell Prometheus how far behind the shippers of this host are, by way of node_exporter's textfile collector.

Beats and Logstash answer their figures on 127.0.0.1 only. The few that matter become ``shippers.prom``, with one that
none of them tells: how old the oldest event is that was not sent yet. For that the program remembers, from one start to
the next, when each shipper had taken in how many events.
"""

from __future__ import annotations

import argparse
import http.client
import json
import math
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

TIMEOUT_SECONDS = 5
# An answer of Logstash with many pipelines has some 100 KiB; more is no answer of a shipper.
LARGEST_ANSWER = 8 * 1024 * 1024
# A start that is computed from an uptime is that exact, on a busy host.
START_SECONDS = 5
# A long outage needs no finer steps.
MOST_MARKS = 240

HELP = {
    "shipper_up": ("gauge", "Whether a shipper answered with its figures."),
    "shipper_uptime_seconds": ("gauge", "How long a shipper has been running."),
    "shipper_events_published_total": ("counter", "Events that a shipper took in since its start."),
    "shipper_events_acked_total": ("counter", "Events that the output accepted since its start."),
    "shipper_events_failed_total": ("counter", "Events that the output did not accept and that are sent again."),
    "shipper_events_retried_total": ("counter", "Events given to the output again, also when it was not reached."),
    "shipper_events_dropped_total": ("counter", "Events that were given up: refused for good, or tried too often."),
    "shipper_events_waiting": ("gauge", "Events that were taken in and neither accepted by the output nor given up."),
    "shipper_oldest_event_age_seconds": (
        "gauge",
        "Least age of the oldest event that waits, counted from when a look at the figures first saw it; "
        "0 if none waits. Begins again when the shipper restarts.",
    ),
    "shipper_queue_filled_ratio": ("gauge", "Share of the queue that is in use."),
    "shipper_output_errors_total": ("counter", "Failed reads from and writes to the output since its start."),
    "logstash_queue_bytes": ("gauge", "Size of the queue on the disk."),
    "logstash_queue_max_bytes": ("gauge", "Size that the queue may have."),
    "logstash_dead_letter_queue_bytes": ("gauge", "Size of the queue of events that Elasticsearch refused for good."),
    "logstash_dead_letter_dropped_events_total": ("counter", "Events lost because that queue was full."),
}


class ShipperError(Exception):
    """A shipper did not answer, or with something else than its figures."""


class Mark(NamedTuple):
    """How many events had been taken in at a time."""

    time: float
    entered: float


@dataclass
class Memory:
    """What is remembered of a queue: when its shipper started, and when how much had entered it."""

    started: float = 0
    marks: list[Mark] = field(default_factory=list)


Memories = dict[str, Memory]
Sample = tuple[str, dict[str, str], float]


def figure(document: object, path: str) -> float | None:
    """Return the number at a dotted path of an answer, or None where there is none."""
    for name in path.split("."):
        if not isinstance(document, dict) or name not in document:
            return None
        document = document[name]
    is_number = isinstance(document, (int, float)) and not isinstance(document, bool)
    return float(document) if is_number and math.isfinite(document) else None  # type: ignore[arg-type]


def needed(document: object, path: str) -> float:
    """Return the number at a dotted path of an answer.

    Raises:
        ShipperError: it is missing.
    """
    value = figure(document, path)
    if value is None:
        raise ShipperError(f"answers without {path}")
    return value


def oldest_age(memory: Memory, now: float, uptime: float, entered: float, waiting: float) -> float:
    """Remember how much has entered a queue, and return the least age of the oldest event in it.

    Events leave in the order in which they came, so the oldest that waits is the first after those that left.
    """
    if now - uptime > memory.started + START_SECONDS or (memory.marks and entered < memory.marks[-1].entered):
        memory.started = now - uptime
        memory.marks.clear()
    if not memory.marks or entered > memory.marks[-1].entered:
        memory.marks.append(Mark(now, entered))
    left = entered - waiting
    # All before the last mark that is done with say nothing more.
    done = [number for number, mark in enumerate(memory.marks) if mark.entered <= left]
    del memory.marks[: done[-1] if done else 0]
    if len(memory.marks) > MOST_MARKS:
        # The first two are kept, because the age is that of one of them.
        memory.marks[2:-1] = memory.marks[2:-1:2]
    if waiting <= 0:
        return 0.0
    return max(now - next(mark.time for mark in memory.marks if mark.entered > left), 0.0)


def beat_samples(name: str, answer: dict[str, Any], memories: Memories, now: float) -> Iterator[Sample]:
    """Yield what matters of the answer of a Beat at /stats.

    Raises:
        ShipperError: the answer lacks what every Beat tells.
    """
    labels = {"shipper": name}
    uptime = needed(answer, "beat.info.uptime.ms") / 1000
    output, pipeline = "libbeat.output.events.", "libbeat.pipeline."
    published = needed(answer, f"{pipeline}events.published")
    acked = needed(answer, f"{output}acked")
    queued = figure(answer, f"{pipeline}queue.filled.events")
    # An event in a queue on the disk counts as done with by whoever made it, so that only the queue knows of it.
    waiting = max(needed(answer, f"{pipeline}events.active"), queued or 0)
    given_up = (f"{pipeline}events.dropped", f"{output}dropped", f"{output}dead_letter")
    errors = ("libbeat.output.read.errors", "libbeat.output.write.errors")
    yield "shipper_uptime_seconds", labels, uptime
    yield "shipper_events_published_total", labels, published
    yield "shipper_events_acked_total", labels, acked
    yield "shipper_events_failed_total", labels, needed(answer, f"{output}failed")
    yield "shipper_events_retried_total", labels, figure(answer, f"{pipeline}events.retry") or 0
    yield "shipper_events_dropped_total", labels, sum(figure(answer, path) or 0 for path in given_up)
    yield "shipper_events_waiting", labels, waiting
    age = oldest_age(memories.setdefault(name, Memory()), now, uptime, published, waiting)
    yield "shipper_oldest_event_age_seconds", labels, age
    yield "shipper_output_errors_total", labels, sum(figure(answer, path) or 0 for path in errors)
    filled = figure(answer, f"{pipeline}queue.filled.pct")
    if filled is None:
        filled = figure(answer, f"{pipeline}queue.filled.pct.events")
    if filled is not None:
        yield "shipper_queue_filled_ratio", labels, filled


def logstash_samples(name: str, answer: dict[str, Any], memories: Memories, now: float) -> Iterator[Sample]:
    """Yield what matters of the answer of Logstash at /_node/stats, for each of its pipelines.

    Raises:
        ShipperError: the answer lacks what every Logstash tells.
    """
    uptime = needed(answer, "jvm.uptime_in_millis") / 1000
    yield "shipper_uptime_seconds", {"shipper": name}, uptime
    pipelines = answer.get("pipelines")
    if not isinstance(pipelines, dict) or not pipelines:
        raise ShipperError("answers without a pipeline")
    for pipeline, found in sorted(pipelines.items()):
        # Pipelines of Logstash itself.
        if str(pipeline).startswith("."):
            continue
        labels = {"shipper": name, "pipeline": str(pipeline)}
        entered = needed(found, "events.in")
        waiting = figure(found, "queue.events_count")
        if waiting is None:
            waiting = needed(found, "queue.events")
        yield "shipper_events_published_total", labels, entered
        yield "shipper_events_acked_total", labels, needed(found, "events.out")
        yield "shipper_events_waiting", labels, waiting
        age = oldest_age(memories.setdefault(f"{name}/{pipeline}", Memory()), now, uptime, entered, waiting)
        yield "shipper_oldest_event_age_seconds", labels, age
        most = figure(found, "queue.max_queue_size_in_bytes") or figure(found, "queue.capacity.max_queue_size_in_bytes")
        size = figure(found, "queue.queue_size_in_bytes") or figure(found, "queue.capacity.queue_size_in_bytes") or 0.0
        # A queue in memory has no size.
        if most:
            yield "logstash_queue_bytes", labels, size
            yield "logstash_queue_max_bytes", labels, most
            yield "shipper_queue_filled_ratio", labels, size / most
        dead = figure(found, "dead_letter_queue.queue_size_in_bytes")
        if dead is not None:
            yield "logstash_dead_letter_queue_bytes", labels, dead
            dropped = figure(found, "dead_letter_queue.dropped_events") or 0.0
            yield "logstash_dead_letter_dropped_events_total", labels, dropped


Reader = Callable[[str, dict[str, Any], Memories, float], Iterator[Sample]]
KINDS: dict[str, tuple[str, Reader]] = {
    "beat": ("/stats", beat_samples),
    "logstash": ("/_node/stats/jvm,pipelines", logstash_samples),
}


@dataclass(frozen=True)
class Shipper:
    """One of the services to ask."""

    kind: str
    name: str
    port: int

    @classmethod
    def parse(cls, text: str) -> Shipper:
        """Return the shipper that an argument of the form KIND:NAME:PORT names.

        Raises:
            argparse.ArgumentTypeError: it names none.
        """
        parts = text.split(":")
        if len(parts) != 3 or parts[0] not in KINDS or not parts[1] or not parts[2].isdecimal():
            raise argparse.ArgumentTypeError(f"{text!r} is not KIND:NAME:PORT, with a KIND of {', '.join(KINDS)}")
        if not 0 < int(parts[2]) < 65536:
            raise argparse.ArgumentTypeError(f"{text!r} has a port that does not exist")
        return cls(parts[0], parts[1], int(parts[2]))

    def ask(self) -> dict[str, Any]:
        """Return the shipper's answer.

        Raises:
            ShipperError: there is none, or it is no JSON object.
        """
        path = KINDS[self.kind][0]
        address = f"http://127.0.0.1:{self.port}{path}"
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=TIMEOUT_SECONDS)
        try:
            connection.request("GET", path)
            answered = connection.getresponse()
            answer = json.loads(answered.read(LARGEST_ANSWER)) if answered.status == http.client.OK else None
        except (OSError, ValueError, http.client.HTTPException) as error:
            raise ShipperError(f"no figures at {address}: {error}") from None
        finally:
            connection.close()
        if not isinstance(answer, dict):
            raise ShipperError(f"no figures at {address}: status {answered.status}, or no JSON object")
        return answer

    def samples(self, memories: Memories, now: float) -> list[Sample]:
        """Return all samples of the shipper; of one that does not answer, only that."""
        up = {"shipper": self.name}
        try:
            found = list(KINDS[self.kind][1](self.name, self.ask(), memories, now))
        except ShipperError as error:
            # The first word is a level of syslog, which systemd reads.
            print(f"<3>{self.name}: {error}", file=sys.stderr)
            return [("shipper_up", up, 0.0)]
        return [("shipper_up", up, 1.0), *found]


def escaped(value: str) -> str:
    """Return a label's value as it stands between quotation marks."""
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def render(samples: Sequence[Sample]) -> str:
    """Return samples as Prometheus reads them, those of a name together."""
    lines = []
    for name, (kind, text) in HELP.items():
        own = [(labels, value) for found, labels, value in samples if found == name]
        if own:
            lines += [f"# HELP {name} {text}", f"# TYPE {name} {kind}"]
        for labels, value in own:
            shown = ",".join(f'{label}="{escaped(content)}"' for label, content in labels.items())
            lines.append(f"{name}{{{shown}}} {value:.15g}")
    return "\n".join(lines) + "\n"


def load(path: Path) -> Memories:
    """Return what was remembered; a file that is missing or damaged holds nothing."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        return {
            name: Memory(
                float(known["started"]), [Mark(float(when), float(entered)) for when, entered in known["marks"]]
            )
            for name, known in found.items()
        }
    except (OSError, ValueError, AttributeError, KeyError, TypeError):
        return {}


def write(path: Path, text: str) -> None:
    """Write a file such that nobody ever reads half of it."""
    fresh = path.with_name(f"{path.name}.tmp")
    fresh.write_text(text, encoding="utf-8")
    fresh.chmod(0o644)
    fresh.replace(path)


def main(arguments: Sequence[str]) -> int:
    """Ask every shipper once and write the figures; return 0, also if one does not answer, which the figures say."""
    parser = argparse.ArgumentParser(prog="shipper-metrics", description=__doc__)
    parser.add_argument("--output", type=Path, required=True, help="file of metrics to write")
    parser.add_argument("--memory", type=Path, required=True, help="file that is kept from one start to the next")
    parser.add_argument("shippers", nargs="+", type=Shipper.parse, metavar="KIND:NAME:PORT")
    options = parser.parse_args(arguments)
    now = time.time()
    known = load(options.memory)
    samples: list[Sample] = []
    for shipper in options.shippers:
        samples += shipper.samples(known, now)
    wanted = {shipper.name for shipper in options.shippers}
    kept = {name: memory for name, memory in known.items() if name.split("/")[0] in wanted}
    document = {name: {"started": memory.started, "marks": memory.marks} for name, memory in kept.items()}
    try:
        write(options.memory, json.dumps(document))
        write(options.output, render(samples))
    except OSError as error:
        print(f"<3>cannot write {error.filename}: {error.strerror}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
