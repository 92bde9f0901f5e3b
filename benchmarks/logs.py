"""Measure a log line's way from a file to a search, beside raw bulk requests of the same lines and cat of the file.

Usage: python -m benchmarks.logs [--events 100000] [--seconds 30] [--output FILE]

Runs on the lab (make up). Lines carry days that lie weeks back, so that they get indices of their own, which are
removed at the end; a lab that has lines of these days is left alone.
"""

import argparse
import base64
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from elasticsearch import Elasticsearch, helpers

from lab import hosts, secrets
from lab.settings import AUTHORITY, LabError

PROJECT = Path(__file__).parents[1]
# Where the role filebeat looks for the bank's lines; a name of its own, so that no instance writes to it.
LOG = "/var/log/bank/benchmark.json"
STAGED = "/var/log/bank/benchmark.staged"
PORT = 9200
# As many as Filebeat sends at once (filebeat_bulk_events).
BULK_EVENTS = 1600
RATE = 1000
POLL_SECONDS = 0.1
PATIENCE_SECONDS = 300
# As far back as Filebeat takes lines (filebeat_days_behind) is farther.
RAW_DAY, FILE_DAY, RATE_DAY = ((datetime.now(UTC) - timedelta(days=days)).date().isoformat() for days in (60, 61, 62))
# Service: group whose host it is looked at on.
UNITS = {"filebeat": "bank_app", "elasticsearch": "elasticsearch"}

# Runs on the host that ships. Writes ten times a second, and prints when each of the writes was made.
WRITER = """
import json, sys, time
lines = open(sys.argv[1], "rb").readlines()
rate = int(sys.argv[3])
step = rate // 10
begun = time.time()
with open(sys.argv[2], "ab", buffering=0) as stream:
    for number in range(0, len(lines), step):
        time.sleep(max(0, begun + number / rate - time.time()))
        stream.write(b"".join(lines[number:number + step]))
        print(json.dumps([time.time(), min(number + step, len(lines))]))
"""


# Prints the processor time of all processes of a unit; systemd does not count it on every host.
PROCESSOR_TIME = """
import os, pathlib, sys
ticks = 0
for process in pathlib.Path("/proc").glob("[0-9]*"):
    try:
        if sys.argv[1] in (process / "cgroup").read_text():
            fields = (process / "stat").read_text().rpartition(")")[2].split()
            ticks += int(fields[11]) + int(fields[12])
    except OSError:
        pass
print(ticks / os.sysconf("SC_CLK_TCK"))
"""

READER = """
import subprocess, sys, time
begun = time.perf_counter()
subprocess.run(["cat", sys.argv[1]], stdout=subprocess.DEVNULL, check=True)
print(time.perf_counter() - begun)
"""


def line(number: int, day: str) -> dict[str, object]:
    """Return a line of the fields and the length that the bank writes for a request."""
    return {
        "@timestamp": f"{day}T00:00:{number % 60:02}.{number % 1000:03}Z",
        "log.level": "info",
        "message": "request answered",
        "ecs.version": "8.11.0",
        "event": {"dataset": "bank.access", "duration": 1_000_000 + number, "outcome": "success"},
        "http": {
            "request": {"id": f"{number:032x}", "method": "POST"},
            "response": {"status_code": 201},
        },
        "labels": {"route": "transfers.create"},
        "process": {"pid": 4242},
        "service": {"name": "bank", "version": "0.2.0", "environment": "production"},
        "source": {"ip": f"192.0.2.{number % 250}"},
        "trace": {"id": f"{number + 1:032x}"},
        "url": {"path": "/api/v1/transfers"},
        "user": {"id": f"{number % 1000}"},
    }


def index(day: str) -> str:
    """Return the index of a day."""
    return "app-logs-" + day.replace("-", ".")


class Site:
    """The lab's hosts and its Elasticsearch, as the measurements need them."""

    def __init__(self) -> None:
        """Connect.

        Raises:
            LabError: the lab lacks a host of the bank or of Elasticsearch, or does not run.
        """
        members = {group: host for host in hosts.inventory() for group in host.groups}
        if not {"bank_app", "elasticsearch"} <= members.keys():
            raise LabError("The inventory has no host in bank_app or elasticsearch, which this measures.")
        self.containers = {group: host.container for group, host in members.items()}
        log_in = f"elastic:{secrets.ensure()['vault_elasticsearch_elastic_password']}"
        self.client = Elasticsearch(
            hosts.url(members["elasticsearch"], PORT),
            # The client encodes ASCII only by itself.
            basic_auth=base64.b64encode(log_in.encode()).decode(),
            ca_certs=str(AUTHORITY / "ca.crt"),
            request_timeout=60,
        )
        # Fails here, with the reason, when the lab is not up.
        self.client.cluster.health(timeout="10s")

    def run(self, *words: str, text: str | None = None) -> str:
        """Run a command on the host that ships; return its output."""
        command = ["docker", "exec", "--interactive", self.containers["bank_app"], *words]
        return subprocess.run(command, input=text, capture_output=True, text=True, check=True).stdout

    def write(self, path: str, lines: Iterable[dict[str, object]]) -> int:
        """Write lines to a file of the host that ships, readable as the bank's are; return its bytes."""
        text = "".join(json.dumps(fields) + "\n" for fields in lines)
        self.run("sh", "-c", f"umask 027 && cat > {path}", text=text)
        return len(text)

    def found(self, day: str) -> int:
        """Return how many lines of a day a search finds."""
        # No index yet, or one whose shard is just being made.
        answer = self.client.options(ignore_status=[404, 503]).count(index=index(day))
        return int(answer.get("count", 0))

    def processor_seconds(self) -> dict[str, float]:
        """Return the processor time that each service has taken so far."""
        taken = {}
        for unit, group in UNITS.items():
            words = ["docker", "exec", self.containers[group], "python3", "-c", PROCESSOR_TIME, f"/{unit}.service"]
            taken[unit] = float(subprocess.run(words, capture_output=True, text=True, check=True).stdout)
        return taken

    @contextmanager
    def processor_time(self, events: int) -> Iterator[dict[str, float]]:
        """Give the milliseconds of processor time for 1,000 events, by service, when the block has ended."""
        before = self.processor_seconds()
        used: dict[str, float] = {}
        yield used
        after = self.processor_seconds()
        used.update({unit: round((after[unit] - before[unit]) * 1e6 / events, 1) for unit in UNITS})

    def forget(self) -> None:
        """Remove what the measurements made."""
        self.run("rm", "--force", LOG, STAGED)
        for day in (RAW_DAY, FILE_DAY, RATE_DAY):
            self.client.options(ignore_status=404).indices.delete(index=index(day))

    def await_all(self, day: str, wanted: int) -> list[tuple[float, int]]:
        """Return when how many lines were found, until all are.

        Raises:
            TimeoutError: they were not, for PATIENCE_SECONDS.
        """
        seen: list[tuple[float, int]] = []
        end = time.time() + PATIENCE_SECONDS
        while time.time() < end:
            number = self.found(day)
            seen.append((time.time(), number))
            if number >= wanted:
                return seen
            time.sleep(POLL_SECONDS)
        raise TimeoutError(f"{seen[-1][1]} of {wanted} lines were found after {PATIENCE_SECONDS} s.")


def raw_bulk(site: Site, events: int) -> dict[str, Any]:
    """Index lines by the client, one connection and no file, and wait until a search finds all."""
    actions = ({"_op_type": "create", "_index": index(RAW_DAY), **line(number, RAW_DAY)} for number in range(events))
    with site.processor_time(events) as used:
        begun = time.time()
        for _ in helpers.streaming_bulk(site.client, actions, chunk_size=BULK_EVENTS):
            pass
        ended = site.await_all(RAW_DAY, events)[-1][0]
    return {
        "events_per_second": round(events / (ended - begun)),
        "cpu_ms_per_1000": {"elasticsearch": used["elasticsearch"]},
    }


def cat(site: Site, size: int, events: int) -> dict[str, Any]:
    """Read the file as fast as the host can."""
    best = min(float(site.run("python3", "-c", READER, STAGED)) for _ in range(3))
    return {"events_per_second": round(events / best), "mib_per_second": round(size / best / 2**20)}


def from_file(site: Site, events: int) -> dict[str, Any]:
    """Give Filebeat a file with all lines at once, and wait until a search finds them."""
    with site.processor_time(events) as used:
        begun = time.time()
        site.run("mv", STAGED, LOG)
        seen = site.await_all(FILE_DAY, events)
    whole = seen[-1][0] - begun
    return {"events_per_second": round(events / whole), "cpu_ms_per_1000": used}


def at_a_rate(site: Site, seconds: int) -> dict[str, Any]:
    """Write RATE lines a second, and compare when they were written with when a search found them."""
    events = RATE * seconds
    site.write(STAGED, (line(number, RATE_DAY) for number in range(events)))
    with site.processor_time(events) as used:
        words = ["docker", "exec", site.containers["bank_app"], "python3", "-c", WRITER, STAGED, LOG, str(RATE)]
        with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as writer:
            seen = site.await_all(RATE_DAY, events)
            written = [tuple(json.loads(row)) for row in writer.communicate()[0].splitlines()]
    lags = []
    for moment, number in written:
        found = next(when for when, count in seen if count >= number)
        lags.append(found - moment)
    return {
        "events_per_second": RATE,
        "lag_p50_s": round(statistics.median(lags), 2),
        "lag_p95_s": round(statistics.quantiles(lags, n=20)[-1], 2),
        "lag_max_s": round(max(lags), 2),
        "cpu_ms_per_1000": used,
    }


def main() -> None:
    """Parse the command line, measure and write the figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--events", type=int, default=100_000)
    parser.add_argument("--seconds", type=int, default=30, help="of lines at a rate")
    parser.add_argument("--output", type=Path, default=PROJECT / "benchmarks" / "logs.json")
    arguments = parser.parse_args()
    result: dict[str, Any] = {"cores": os.cpu_count(), "load_before": round(os.getloadavg()[0], 1)}
    try:
        site = Site()
    except LabError as error:
        sys.exit(str(error))
    if taken := [index(day) for day in (RAW_DAY, FILE_DAY, RATE_DAY) if site.found(day)]:
        sys.exit(f"The lab has lines of its own in {', '.join(taken)}: start with a new lab (make clean, make up).")
    try:
        size = site.write(STAGED, (line(number, FILE_DAY) for number in range(arguments.events)))
        result |= {"events": arguments.events, "bytes_per_line": round(size / arguments.events)}
        for name, measure in {
            "raw bulk": lambda: raw_bulk(site, arguments.events),
            "cat": lambda: cat(site, size, arguments.events),
            "file to search": lambda: from_file(site, arguments.events),
            "at a rate": lambda: at_a_rate(site, arguments.seconds),
        }.items():
            result[name] = measure()
            print(f"{name:<16} {json.dumps(result[name])}", flush=True)
    finally:
        site.forget()
    result["of raw bulk"] = round(
        result["file to search"]["events_per_second"] / result["raw bulk"]["events_per_second"], 2
    )
    arguments.output.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
