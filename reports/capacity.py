"""When each limit of the platform is reached: python -m reports.capacity --url … --password-file … --authority ….

Reads the recording rule ``capacity:used:ratio`` and writes one HTML page with a plot for each resource.
"""

import sys
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import jinja2

from reports.command_line import parser_of, run
from reports.forecast import DAY, Forecast, forecast
from reports.plots import AMBER, LEAST_POINTS, RED, STEEL, figure_of, svg
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
    figure = figure_of(6.4, 2.3)
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
    return svg(figure, f"{resource.name} {resource.place}")


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
    parser = parser_of("capacity", __doc__, "https://mon1.example.com:9090", Path("capacity.html"))
    parser.add_argument(
        "--days",
        type=int,
        default=30,
        choices=range(1, 91),
        metavar="DAYS",
        help="length of the history, 1 to 90 (default: 30)",
    )
    arguments = parser.parse_args()
    return run(arguments, Prometheus, lambda server: write(server, arguments.days, arguments.output))


if __name__ == "__main__":
    sys.exit(main())
