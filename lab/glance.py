"""The platform at a glance: the few figures that an operator looks at first, and the alerts that fire."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from rich.table import Table

from reports.prometheus import Prometheus

SEVERITY_STYLES = {"p1": "bold red", "p2": "red", "p3": "yellow", "p4": "cyan"}
# Watchdog always fires: it is how one notices that alerting itself is broken.
FIRING = 'ALERTS{alertstate="firing", alertname!="Watchdog"}'
PLACE_LABELS = ("instance", "mountpoint", "name", "slo")


@dataclass(frozen=True)
class Figure:
    """One question to Prometheus, how its answer is shown, and which answer is bad."""

    title: str
    expression: str
    show: Callable[[float], str]
    is_bad: Callable[[float], bool]


def age(seconds: float) -> str:
    """Return a time span in its largest unit."""
    for length, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit} ago"
    return f"{seconds:.0f} s ago"


def percent(share: float) -> str:
    """Return a share as a percentage."""
    return f"{100 * share:.1f} %"


FIGURES = (
    Figure("hosts that do not answer", 'count(up{job="node"} == 0) or vector(0)', "{:.0f}".format, lambda n: n > 0),
    Figure("bank instances that answer", 'sum(up{job="bank"})', "{:.0f}".format, lambda n: n < 1),
    Figure(
        "other targets that do not answer", 'count(up{job!="node"} == 0) or vector(0)', "{:.0f}".format, lambda n: n > 0
    ),
    Figure("requests per second", "sum(rate(flask_http_request_total[5m]))", "{:.1f}".format, lambda _: False),
    Figure(
        "books out of balance, in minor units",
        "max(bank_ledger_imbalance_minor_units)",
        "{:.0f}".format,
        lambda n: n != 0,
    ),
    Figure(
        "least error budget left of 30 days", "min(slo:error_budget_left:ratio)", percent, lambda share: share < 0.25
    ),
    Figure(
        "last backup of PostgreSQL",
        "time() - min(pg_backup_last_success_timestamp_seconds)",
        age,
        lambda seconds: seconds > 30 * 60,
    ),
    Figure(
        "last snapshot of Elasticsearch",
        "time() - max(elasticsearch_snapshot_last_success_timestamp_seconds)",
        age,
        lambda seconds: seconds > 26 * 3600,
    ),
    Figure(
        "fullest disk, memory or pool",
        'max(capacity:used:ratio{resource!="processors"})',
        percent,
        lambda share: share > 0.9,
    ),
)


def figures(prometheus: Prometheus) -> Iterator[tuple[str, str]]:
    """Yield the title of each figure and its value, red when it is bad."""
    for figure in FIGURES:
        found = prometheus.query(figure.expression)
        if not found:
            yield figure.title, "[yellow]not measured yet[/yellow]"
            continue
        value = found[0].points[-1][1]
        shown = figure.show(value)
        yield figure.title, f"[red]{shown}[/red]" if figure.is_bad(value) else shown


def firing(prometheus: Prometheus) -> list[tuple[str, str, str]]:
    """Return severity, name and place of each alert that fires, the most urgent first."""
    alerts = []
    for series in prometheus.query(FIRING):
        labels = series.labels
        place = " ".join(labels[name] for name in PLACE_LABELS if name in labels)
        alerts.append((labels.get("severity", "none"), labels["alertname"], place))
    return sorted(alerts)


def table(prometheus: Prometheus) -> Table:
    """Return figures and alerts as one table.

    Raises:
        PrometheusError: there is no answer.
    """
    shown = Table("what", "now", title="Platform")
    for title, value in figures(prometheus):
        shown.add_row(title, value)
    shown.add_section()
    alerts = firing(prometheus)
    for severity, name, place in alerts:
        style = SEVERITY_STYLES.get(severity, "white")
        shown.add_row(f"[{style}]{severity.upper()} {name}[/{style}]", place)
    if not alerts:
        shown.add_row("alerts", "[green]none fires[/green]")
    return shown
