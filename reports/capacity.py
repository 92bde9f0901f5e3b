"""When each limit of the platform is reached: python -m reports.capacity --url … --password-file … --authority ….

Reads the recording rule ``capacity:used:ratio`` and writes one HTML page with a plot for each resource.
"""

import argparse
import io
import sys
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import jinja2
import matplotlib as mpl
from matplotlib.figure import Figure

from reports.forecast import DAY, Forecast, forecast
from reports.prometheus import Prometheus, PrometheusError, Series

RECORDED = "capacity:used:ratio"
# Short enough for a young platform; a month of it stays below the 11 000 points that Prometheus gives at once.
STEP = timedelta(minutes=15)
EXPRESSION = f"max_over_time({RECORDED}[15m])"
# From here on the platform speaks of saturation.
WARNING_SHARE = 0.8
LIMIT_SHARE = 1.0
# Labels that say where a resource is, from the whole to the part.
PLACE_LABELS = ("site", "instance", "mountpoint", "datname")
TEMPLATE = Path(__file__).with_name("capacity.html.j2")
# A line of fewer points is hard to see.
LEAST_POINTS = 10
STEEL, AMBER, RED = "#2b5c8a", "#d98b00", "#b3261e"


@dataclass(frozen=True)
class Resource:
    """One limited thing, its history and its forecast."""

    name: str
    place: str
    series: Series
    forecast: Forecast | None

    @property
    def share(self) -> float:
        """Return the highest use of the last day, as a share of the limit."""
        last = self.series.points[-1][0]
        return max(value for moment, value in self.series.points if moment > last - DAY.total_seconds())

    @property
    def warning(self) -> datetime | None:
        """Return when four fifths of the limit are used, by the forecast."""
        return self.forecast.reaches(WARNING_SHARE) if self.forecast else None

    @property
    def earliest(self) -> datetime | None:
        """Return when that may happen at the earliest."""
        return self.forecast.earliest(WARNING_SHARE) if self.forecast else None

    @property
    def limit(self) -> datetime | None:
        """Return when the whole is used, by the forecast."""
        return self.forecast.reaches(LIMIT_SHARE) if self.forecast else None


def resources(prometheus: Prometheus, days: int, now: datetime) -> list[Resource]:
    """Return every resource that the platform records, the soonest to run out first.

    Raises:
        PrometheusError: there is no answer, or nothing is recorded.
    """
    found = prometheus.query_range(EXPRESSION, now - timedelta(days=days), now, STEP)
    if not found:
        raise PrometheusError(
            f"Prometheus at {prometheus.url} has no series {RECORDED}: run site.yml, which brings its rules, "
            "and wait for two minutes."
        )
    made = []
    for series in found:
        place = " ".join(series.labels[label] for label in PLACE_LABELS if label in series.labels)
        made.append(Resource(series.labels["resource"], place, series, forecast(series.points, now)))
    never = datetime.max.replace(tzinfo=UTC)
    return sorted(made, key=lambda item: (item.earliest or never, -item.share, item.name, item.place))


def plot(resource: Resource) -> str:
    """Return the plot of a resource's use and forecast as SVG."""
    figure = Figure(figsize=(6.4, 2.3), layout="constrained")
    axes = figure.subplots()
    moments = [datetime.fromtimestamp(moment, UTC) for moment, _ in resource.series.points]
    axes.plot(
        moments,
        [100 * value for _, value in resource.series.points],
        color=STEEL,
        linewidth=1,
        marker="." if len(moments) < LEAST_POINTS else "",
        label="used",
    )
    if line := resource.forecast:
        ahead = line.now + (line.now - line.peaks[0][0])
        ends = [line.peaks[0][0], ahead]
        levels = [100 * (line.level + line.growth * ((end - line.now) / DAY)) for end in ends]
        axes.plot(ends, levels, color=STEEL, linestyle="--", linewidth=1, label="forecast by peaks")
    axes.axhline(100 * WARNING_SHARE, color=AMBER, linewidth=1)
    axes.axhline(100 * LIMIT_SHARE, color=RED, linewidth=1)
    axes.set_ylim(0, 105)
    axes.set_ylabel("% of the limit")
    axes.tick_params(axis="x", labelrotation=20, labelsize=8)
    figure.legend(fontsize=8, frameon=False, loc="outside lower center", ncols=2)
    stream = io.StringIO()
    # Letters stay letters: a page of many plots is then a quarter of the size.
    with mpl.rc_context({"svg.hashsalt": f"{resource.name} {resource.place}", "svg.fonttype": "none"}):
        figure.savefig(stream, format="svg", metadata={"Date": None})
    text = stream.getvalue()
    return text[text.index("<svg") :]


def page(found: list[Resource], source: str, days: int, now: datetime) -> str:
    """Return the report as HTML."""
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    template = environment.from_string(TEMPLATE.read_text(encoding="utf-8"))
    return template.render(resources=found, plot=plot, source=source, days=days, now=now, warning=WARNING_SHARE)


def write(prometheus: Prometheus, days: int, output: Path) -> str:
    """Write the report and return a line on what is in it.

    Raises:
        PrometheusError: there is no answer, or nothing is recorded; no file is written.
        OSError: the file cannot be written.
    """
    now = datetime.now(UTC)
    found = resources(prometheus, days, now)
    text = page(found, prometheus.url, days, now)
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(text, encoding="utf-8")
    return f"{output}: {len(found)} resources, first in the list: {found[0].name}, {found[0].place}"


def main() -> int:
    """Write the report of a site; return 2 and say why if it cannot be had."""
    parser = argparse.ArgumentParser(prog="python -m reports.capacity", description=__doc__)
    parser.add_argument("--url", required=True, help="Prometheus, for instance https://mon1.example.com:9090")
    parser.add_argument("--user", default="operator")
    parser.add_argument("--password-file", type=Path, required=True, help="file that holds the password alone")
    parser.add_argument("--authority", type=Path, required=True, help="certificate of the site's authority")
    parser.add_argument(
        "--days",
        type=int,
        default=30,
        choices=range(1, 91),
        metavar="DAYS",
        help="length of the history, 1 to 90 (default: 30)",
    )
    parser.add_argument("--output", type=Path, default=Path("capacity.html"))
    arguments = parser.parse_args()
    try:
        password = arguments.password_file.read_text(encoding="utf-8").strip()
        prometheus = Prometheus(arguments.url, arguments.user, password, arguments.authority)
        print(write(prometheus, arguments.days, arguments.output))
    except (PrometheusError, OSError) as error:
        print(f"No report: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
