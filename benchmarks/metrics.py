"""Measure what Prometheus takes in and costs, how fast rules and dashboards are, and how soon an outage is told.

Usage: python -m benchmarks.metrics [--parts rest load rules queries kills] [--kills 10] [--output FILE]

Runs on the lab (make up). The load goes to a second Prometheus on the same host with a folder of its own, both of which
are removed. For each kill all instances of the bank are killed, and started again as soon as the pager was told. A part
that is left out keeps the figures that FILE has. The steps of all kills are drawn beside FILE.
"""

import argparse
import json
import math
import os
import random
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import matplotlib as mpl
from docker import DockerClient
from matplotlib.figure import Figure

from lab import engine, hosts, secrets
from lab.settings import AUTHORITY, LabError
from reports.prometheus import Prometheus, PrometheusError, Series
from tests import pager

PROJECT = Path(__file__).parents[1]
DASHBOARDS = PROJECT / "files/grafana/dashboards"
PROMETHEUS_PORT, ALERTMANAGER_PORT = 9090, 9093
ALERT = "AllApiDown"
TARGET_SECONDS = 60
PATIENCE_SECONDS = 240
POLL_SECONDS = 0.5

# The second Prometheus and the program that it reads, both reachable on the host itself alone.
SPARE, SOURCE = "benchmark-prometheus", "benchmark-source"
SPARE_PORT, SOURCE_PORT = 9598, 9599
SPARE_FOLDER = "/var/tmp/benchmark-prometheus"
SERIES_PER_TARGET = 10_000
# Series and seconds between two scrapes: the first three differ in series, the last in pace.
LOADS = [(20_000, 5), (100_000, 5), (200_000, 5), (100_000, 1)]

# Serves pages of so many series, made before the first is asked for: what is measured is the reader.
SOURCE_PROGRAM = """
import http.server, random, sys
count = int(sys.argv[2])
pages = []
for round in range(8):
    labels = 'path="/api/v1/transfers",code="201"'
    value = lambda: f"{round * 1000 + random.random():.6f}"
    lines = [f'load_{n % 100}_total{{series="{n}",{labels}}} {value()}' for n in range(count)]
    pages.append(("\\n".join(lines) + "\\n").encode())
class Page(http.server.BaseHTTPRequestHandler):
    served = 0
    def do_GET(self):
        Page.served += 1
        body = pages[Page.served % len(pages)]
        self.send_response(200)
        self.send_header("Content-Type", "text/plain; version=0.0.4")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *words): pass
http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Page).serve_forever()
"""

# As Grafana asks: a graph is some 700 points wide, and no closer than Prometheus' own scrapes.
POINTS, CLOSEST_SECONDS = 700, 15
RANGES = {"1 h": 3600, "6 h": 6 * 3600, "24 h": 24 * 3600}
# What Grafana puts for its own variables.
VARIABLES = {"__rate_interval": "1m", "__interval": "15s", "__range": "1h", "__range_s": "3600"}
VARIABLE = re.compile(r"\$\{?(\w+)(?::\w+)?\}?")


def middle_and_high(values: list[float], digits: int = 1) -> dict[str, float]:
    """Return p50, p95 and the highest of some values; p95 is one of the values, not between two."""
    ordered = sorted(values)
    return {
        "p50": round(statistics.median(ordered), digits),
        "p95": round(ordered[math.ceil(len(ordered) * 0.95) - 1], digits),
        "max": round(ordered[-1], digits),
    }


def expressions(folder: Path) -> list[str]:
    """Return what the dashboards of a folder ask Prometheus for, each once, with every value of each variable.

    Raises:
        LabError: there is none.
    """
    found = set()
    for file in sorted(folder.rglob("*.json")):
        panels = json.loads(file.read_text(encoding="utf-8")).get("panels", [])
        targets = [target for panel in panels for target in panel.get("targets") or []]
        found |= {
            VARIABLE.sub(lambda name: VARIABLES.get(name[1], ".*"), target["expr"])
            for target in targets
            if target.get("expr") and target.get("datasource", {}).get("type", "prometheus") == "prometheus"
        }
    if not found:
        raise LabError(f"{folder} has no dashboard that asks Prometheus: name another folder with --dashboards.")
    return sorted(found)


class Site:
    """The lab's hosts, its Prometheus and its Alertmanager, as the measurements need them."""

    def __init__(self) -> None:
        """Connect.

        Raises:
            LabError: the lab lacks a host that is measured, or does not run.
        """
        self.hosts = {host.name: host for host in hosts.inventory()}
        for group in ("bank_app", "prometheus", "alertmanager"):
            if not any(group in host.groups for host in self.hosts.values()):
                raise LabError(f"The inventory has no host in {group}, which this measures.")
        self.client: DockerClient = engine.ensure()
        self.monitor = next(host for host in self.hosts.values() if "prometheus" in host.groups)
        self.instances = [name for name, host in self.hosts.items() if "bank_app" in host.groups]
        known = secrets.ensure()
        self.prometheus = Prometheus(
            hosts.url(self.monitor, PROMETHEUS_PORT),
            "operator",
            known["vault_prometheus_web_password"],
            AUTHORITY / "ca.crt",
        )
        teller = next(host for host in self.hosts.values() if "alertmanager" in host.groups)
        self.alertmanager = hosts.url(teller, ALERTMANAGER_PORT)
        self.alertmanager_login = ("operator", known["vault_alertmanager_web_password"])
        try:
            self.prometheus.query("up")
        except PrometheusError as error:
            raise LabError(str(error)) from None

    def on(self, host: str, *command: str) -> tuple[int, str]:
        """Run a command on a host: its exit code and output."""
        code, output = self.client.containers.get(self.hosts[host].container).exec_run(list(command))
        return code, output.decode(errors="replace")

    def must(self, host: str, *command: str) -> str:
        """Run a command on a host; return its output.

        Raises:
            LabError: it failed.
        """
        code, output = self.on(host, *command)
        if code:
            raise LabError(f"{' '.join(command)[:100]} on {host} failed: {output.strip()}")
        return output

    def number(self, expression: str) -> float:
        """Return the one value of an expression.

        Raises:
            LabError: it has none.
        """
        found = self.prometheus.query(expression)
        if not found:
            raise LabError(f"Prometheus has no value for {expression}: give it {PATIENCE_SECONDS} s after make up.")
        return found[0].points[0][1]

    def known_alerts(self) -> list[dict[str, Any]]:
        """Return the alerts of ALERT that Alertmanager has."""
        answer = self.prometheus.session.get(
            f"{self.alertmanager}/api/v2/alerts",
            params={"filter": f'alertname="{ALERT}"'},
            auth=self.alertmanager_login,
            timeout=10,
        )
        answer.raise_for_status()
        return answer.json()


def until(condition: Callable[[], Any], what: str, seconds: float = PATIENCE_SECONDS) -> Any:  # noqa: ANN401
    """Return the first true value of a condition.

    Raises:
        TimeoutError: there was none for so long; the text says what was waited for.
    """
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if value := condition():
            return value
        time.sleep(POLL_SECONDS)
    raise TimeoutError(f"not within {seconds:.0f} s: {what}")


def at_rest(site: Site, _: argparse.Namespace) -> dict[str, Any]:
    """Return what the lab's own Prometheus takes in and costs."""
    own = '{job="prometheus"}'
    return {
        "targets": round(site.number("count(up)")),
        "series": round(site.number(f"prometheus_tsdb_head_series{own}")),
        "samples_per_second": round(site.number(f"sum(rate(prometheus_tsdb_head_samples_appended_total{own}[5m]))"), 1),
        "resident_mib": round(site.number(f"process_resident_memory_bytes{own}") / 2**20),
        "cpu_cores": round(site.number(f"rate(process_cpu_seconds_total{own}[5m])"), 3),
    }


def figures(site: Site) -> dict[str, float]:
    """Return the plain metrics of the second Prometheus, and the moment."""
    page = site.must(site.monitor.name, "curl", "--silent", "--fail", f"http://127.0.0.1:{SPARE_PORT}/metrics")
    found = {"now": time.time()}
    for line in page.splitlines():
        name, _, value = line.rpartition(" ")
        if name and not line.startswith("#"):
            found[name.partition("{")[0]] = found.get(name.partition("{")[0], 0) + float(value)
    return found


@contextmanager
def spare(site: Site, series: int, seconds: int) -> Iterator[None]:
    """Run a second Prometheus that reads so many series every so many seconds."""
    host = site.monitor.name
    targets = series // SERIES_PER_TARGET
    configuration = {
        "global": {"scrape_interval": f"{seconds}s", "scrape_timeout": f"{seconds}s"},
        "scrape_configs": [
            {
                "job_name": "load",
                "static_configs": [
                    {"targets": [f"127.0.0.1:{SOURCE_PORT}"], "labels": {"instance": f"source{number}"}}
                    for number in range(targets)
                ],
            }
        ],
    }
    run = ["systemd-run", "--collect", "--quiet"]
    try:
        site.must(host, "mkdir", "--parents", SPARE_FOLDER)
        site.must(
            host,
            "python3",
            "-c",
            "import sys; open(sys.argv[1], 'w').write(sys.argv[2])",
            f"{SPARE_FOLDER}/prometheus.yml",
            json.dumps(configuration),
        )
        source = ["python3", "-c", SOURCE_PROGRAM, str(SOURCE_PORT), str(SERIES_PER_TARGET)]
        site.must(host, *run, f"--unit={SOURCE}", *source)
        page = ["curl", "--silent", "--fail", "--output", "/dev/null", f"http://127.0.0.1:{SOURCE_PORT}/"]
        until(lambda: site.on(host, *page)[0] == 0, "the source of series answers")
        program = [
            "/opt/prometheus/current/bin/prometheus",
            f"--config.file={SPARE_FOLDER}/prometheus.yml",
            f"--storage.tsdb.path={SPARE_FOLDER}/data",
            f"--web.listen-address=127.0.0.1:{SPARE_PORT}",
        ]
        site.must(host, *run, f"--unit={SPARE}", *program)
        ready = ["curl", "--silent", "--fail", "--output", "/dev/null", f"http://127.0.0.1:{SPARE_PORT}/-/ready"]
        until(lambda: site.on(host, *ready)[0] == 0, "the second Prometheus is ready")
        yield
    finally:
        site.on(host, "systemctl", "stop", f"{SPARE}.service", f"{SOURCE}.service")
        site.on(host, "rm", "--recursive", "--force", SPARE_FOLDER)


def under_load(site: Site, arguments: argparse.Namespace) -> dict[str, Any]:
    """Return what a second Prometheus takes in and costs, by series and pace, and how fast a page comes without it."""
    rows = []
    transfer = 0.0
    for series, seconds in LOADS:
        with spare(site, series, seconds):
            until(lambda wanted=series: figures(site)["prometheus_tsdb_head_series"] >= wanted, "all series are known")
            before = figures(site)
            time.sleep(arguments.seconds)
            after = figures(site)
            took = after["now"] - before["now"]
            samples = (
                after["prometheus_tsdb_head_samples_appended_total"]
                - before["prometheus_tsdb_head_samples_appended_total"]
            )
            processor = after["process_cpu_seconds_total"] - before["process_cpu_seconds_total"]
            words = ["curl", "--silent", "--output", "/dev/null", "--write-out", "%{time_total}"]
            fetch = [float(site.must(site.monitor.name, *words, f"http://127.0.0.1:{SOURCE_PORT}/")) for _ in range(5)]
            transfer = SERIES_PER_TARGET / min(fetch)
        rows.append(
            {
                "series": series,
                "interval_s": seconds,
                "offered_per_second": series // seconds,
                "samples_per_second": round(samples / took),
                "cpu_us_per_sample": round(processor / samples * 1e6, 2),
                "resident_mib": round(after["process_resident_memory_bytes"] / 2**20),
                "heap_mib": round(after["go_memstats_heap_inuse_bytes"] / 2**20),
            }
        )
        print(json.dumps(rows[-1]), flush=True)
    same_pace = [row for row in rows if row["interval_s"] == LOADS[0][1]]
    slope = statistics.linear_regression(
        [row["series"] for row in same_pace], [row["resident_mib"] for row in same_pace]
    )
    return {
        "runs": rows,
        "mib_per_million_series": round(slope.slope * 1e6),
        "kib_per_series": round(slope.slope * 1024, 1),
        "curl_samples_per_second": round(transfer),
    }


def rules(site: Site, _: argparse.Namespace) -> dict[str, Any]:
    """Return how long the rules take, and how long the same expressions take by the API, one after the other."""
    groups = site.prometheus.ask("rules")["groups"]
    spent = {group["name"]: group["evaluationTime"] * 1000 for group in groups}
    asked = []
    for group in groups:
        for rule in group["rules"]:
            begun = time.perf_counter()
            site.prometheus.query(rule["query"])
            asked.append((time.perf_counter() - begun) * 1000)
    slowest = max(spent, key=lambda name: spent[name])
    whole = "sum(avg_over_time(prometheus_rule_group_last_duration_seconds[5m]))"
    return {
        "groups": len(groups),
        "rules": len(asked),
        "interval_s": groups[0]["interval"],
        "all_groups_ms": round(sum(spent.values()), 1),
        "all_groups_5m_mean_ms": round(site.number(whole) * 1000, 1),
        "slowest": {"group": slowest, "ms": round(spent[slowest], 1)},
        "missed_5m": round(site.number("sum(increase(prometheus_rule_group_iterations_missed_total[5m]))")),
        "same_by_api_ms": round(sum(asked), 1),
    }


def queries(site: Site, arguments: argparse.Namespace) -> dict[str, Any]:
    """Return how long the dashboards' expressions take over some ranges, and an expression that reads nothing."""
    wanted = expressions(arguments.dashboards)
    oldest = site.number("min(prometheus_tsdb_lowest_timestamp_seconds)")
    result: dict[str, Any] = {
        "expressions": len(wanted),
        "hours_of_data": round((time.time() - oldest) / 3600, 1),
        "without data": 0,
    }

    def milliseconds(expression: str, seconds: int) -> tuple[float, list[Series]]:
        now = datetime.now(UTC)
        step = timedelta(seconds=max(CLOSEST_SECONDS, seconds // POINTS))
        begun = time.perf_counter()
        found = site.prometheus.query_range(expression, now - timedelta(seconds=seconds), now, step)
        return (time.perf_counter() - begun) * 1000, found

    for name, seconds in RANGES.items():
        taken, nothing = [], []
        for _ in range(arguments.rounds):
            for expression in wanted:
                spent, found = milliseconds(expression, seconds)
                taken.append(spent)
                result["without data"] += name == "1 h" and not found
            nothing += [milliseconds("vector(1)", seconds)[0] for _ in range(20)]
        result[name] = middle_and_high(taken) | {"vector(1) p50": round(statistics.median(nothing), 1)}
        print(f"  {name}: {json.dumps(result[name])}", flush=True)
    result["without data"] //= arguments.rounds
    return result


def first_after(series: list[Series], moment: float, value: float) -> list[float]:
    """Return for each series when it first had a value after a moment."""
    return [next(when for when, found in one.points if when > moment and found == value) for one in series]


def samples(site: Site, selector: str) -> list[Series]:
    """Return the samples of the last minutes, as they were written."""
    result = site.prometheus.ask("query", query=f"{selector}[4m]")["result"]
    return [Series(item["metric"], [(float(when), float(value)) for when, value in item["values"]]) for item in result]


def kill(site: Site, pages: pager.Pages) -> dict[str, float]:
    """Kill all instances at once, and start them as soon as the pager was told; return how long each step took."""
    begun = time.time()
    try:
        processes = [
            subprocess.Popen(["docker", "exec", site.hosts[name].container, "sh", "-c", pager.HALT])
            for name in site.instances
        ]
        for process in processes:
            process.wait()

        def told(status: str) -> list[dict[str, Any]]:
            found = [entry for entry in pages(begun) if entry["body"]["groupLabels"].get("alertname") == ALERT]
            return [entry for entry in found if entry["body"]["status"] == status]

        received = until(site.known_alerts, f"Alertmanager has {ALERT}")
        handed = datetime.fromisoformat(received[0]["updatedAt"]).timestamp()
        page = until(lambda: told("firing"), f"the page of {ALERT}")[0]["at"]
        seen = max(first_after(samples(site, 'up{job="bank"}'), begun, 0))
        state = samples(site, f'ALERTS{{alertname="{ALERT}", alertstate="pending"}}')
        pending = first_after(state, begun, 1)[0]
        firing = first_after(samples(site, f'ALERTS{{alertname="{ALERT}", alertstate="firing"}}'), begun, 1)[0]
    finally:
        for name in site.instances:
            site.on(name, "systemctl", "start", "bank.service")
    until(lambda: told("resolved"), f"the page that {ALERT} is over")
    return {
        "scrape": seen - begun,
        "evaluation": pending - seen,
        "for": firing - pending,
        "hand-over": handed - firing,
        "grouping and delivery": page - handed,
        "whole": page - begun,
    }


def kills(site: Site, arguments: argparse.Namespace) -> dict[str, Any]:
    """Return how long it took from kills of all instances to the page, in whole and by step."""
    rows: list[dict[str, float]] = []
    with pager.pager(site.hosts, site.on) as pages:
        whole = f'sum(up{{job="bank"}}) == {len(site.instances)}'
        for number in range(arguments.kills):
            until(lambda: site.prometheus.query(whole) and not site.known_alerts(), "all instances are up")
            # Scrapes and evaluations have a beat; kills have none.
            time.sleep(random.uniform(0, 15))
            rows.append({step: round(seconds, 1) for step, seconds in kill(site, pages).items()})
            print(f"  {number + 1}: {json.dumps(rows[-1])}", flush=True)
    return {
        "kills": rows,
        "seconds": {step: middle_and_high([row[step] for row in rows]) for step in rows[0]},
    }


def draw(rows: list[dict[str, float]], path: Path) -> None:
    """Draw the steps of each kill as a bar, the longest on top, beside the target."""
    ordered = sorted(rows, key=lambda row: row["whole"])
    figure = Figure(figsize=(8, 0.7 + 0.3 * len(rows)), layout="constrained")
    axes = figure.subplots()
    begin = [0.0] * len(rows)
    for step in (name for name in rows[0] if name != "whole"):
        widths = [row[step] for row in ordered]
        axes.barh(range(len(rows)), widths, left=begin, label=step)
        begin = [left + width for left, width in zip(begin, widths, strict=True)]
    axes.axvline(TARGET_SECONDS, color="black", linestyle="dashed", label="target")
    axes.set_xlabel(f"seconds from the kill of all instances to the page of {ALERT}")
    axes.set_ylabel("kills, by length")
    axes.set_yticks([])
    figure.legend(ncols=6, loc="outside upper center", fontsize="small")
    # The same figures give the same file.
    with mpl.rc_context({"svg.hashsalt": "metrics", "svg.fonttype": "none"}):
        figure.savefig(path, metadata={"Date": None})


PARTS = {"rest": at_rest, "load": under_load, "rules": rules, "queries": queries, "kills": kills}


def main() -> None:
    """Parse the command line, measure and write the figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--kills", type=int, default=10, help="how often all instances are killed (two minutes each)")
    parser.add_argument("--seconds", type=int, default=30, help="of each load")
    parser.add_argument("--rounds", type=int, default=3, help="how often each expression is asked for each range")
    parser.add_argument("--dashboards", type=Path, default=DASHBOARDS, help="folder of Grafana's dashboards")
    parser.add_argument("--output", type=Path, default=PROJECT / "benchmarks" / "metrics.json")
    arguments = parser.parse_args()
    result = json.loads(arguments.output.read_text(encoding="utf-8")) if arguments.output.exists() else {}
    try:
        site = Site()
        for name in arguments.parts:
            load = round(os.getloadavg()[0], 1)
            result[name] = {"cores": os.cpu_count(), "load_before": load} | PARTS[name](site, arguments)
            print(f"{name:<8} {json.dumps(result[name])}", flush=True)
            arguments.output.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
            if name == "kills":
                draw(result[name]["kills"], arguments.output.with_suffix(".svg"))
    except (LabError, PrometheusError, pager.PagerError, TimeoutError) as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
