"""Panels as HTML, near to how Grafana's pages draw them, for people who have no Grafana at hand."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import matplotlib.dates
from markupsafe import Markup

from reports.dashboards import Panel
from reports.grafana import Answer, Field, Frame
from reports.plots import LEAST_POINTS, figure_of, svg
from reports.units import shown

# Grafana's names of colours, as its light pages have them.
COLOURS = {
    "green": "#37872d", "yellow": "#e0b400", "orange": "#fa6400", "red": "#c4162a", "dark-red": "#8a0f1e",
    "blue": "#1f60c4", "text": "#1d2733",
}  # fmt: skip
PALETTE = (
    "#2b5c8a", "#d98b00", "#4f8a3c", "#8f3bb8", "#c4162a", "#3a9c9c", "#8a6d3b", "#e377a2", "#5c6b7a", "#a3b300",
)  # fmt: skip
# The picture of a panel: columns and rows of Grafana's grid in hundredths of an inch.
COLUMN, ROW, FRAME = 58, 38, 34
LEGEND_LINE, LEGEND_LINES = 17, 6
# Inches beside the axes for numbers and times.
LEFT, BOTTOM, EDGE = 0.62, 0.26, 0.06
LINES_SHOWN = 40


@dataclass(frozen=True)
class Style:
    """How the values of a panel, or of a column, look."""

    unit: str
    decimals: int | None
    steps: list[dict[str, Any]]
    mappings: dict[str, dict[str, str]]

    def text(self, value: float) -> str:
        """Return a value as people read it."""
        meaning = self.mappings.get(f"{value:g}")
        return meaning["text"] if meaning else shown(value, self.unit, self.decimals)

    def colour(self, value: float) -> str:
        """Return the colour of a value, by its meaning or its step."""
        meaning = self.mappings.get(f"{value:g}")
        if meaning:
            return COLOURS[meaning["color"]]
        reached = [step["color"] for step in self.steps if step["value"] is None or value >= step["value"]]
        return COLOURS[reached[-1]] if reached else COLOURS["text"]

    @property
    def limits(self) -> list[tuple[float, str]]:
        """Return where a step begins, and its colour."""
        return [(step["value"], COLOURS[step["color"]]) for step in self.steps if step["value"] is not None]


def style_of(config: dict[str, Any]) -> Style:
    """Return the style that a field configuration of Grafana describes."""
    known = {}
    for mapping in config.get("mappings") or []:
        known |= mapping["options"]
    steps = (config.get("thresholds") or {}).get("steps") or []
    return Style(config.get("unit", "short"), config.get("decimals"), steps, known)


def default_style(panel: Panel) -> Style:
    """Return the style of a panel's values."""
    return style_of(panel.source["fieldConfig"]["defaults"])


def overridden(panel: Panel) -> dict[str, dict[str, Any]]:
    """Return what is set for single columns or series, by their titles."""
    found: dict[str, dict[str, Any]] = {}
    for override in panel.source["fieldConfig"]["overrides"]:
        properties = {entry["id"]: entry.get("value") for entry in override["properties"]}
        found[override["matcher"]["options"]] = properties
    return found


def name_of(field: Field, panel: Panel) -> str:
    """Return the name of a series as a legend shows it."""
    labels = ", ".join(value for key, value in field.labels.items() if key != "__name__")
    return field.shown or labels or (panel.title if field.name in ("Value", "Count") else field.name)


def series(answers: dict[str, Answer]) -> list[tuple[Field, Field]]:
    """Return the time and the numbers of every series."""
    found = []
    for answer in answers.values():
        for frame in answer.frames:
            times = [field for field in frame if field.kind == "time"]
            found += [(times[0], field) for field in frame if times and field.kind == "number" and field.numbers]
    return found


def reduced(field: Field, panel: Panel) -> float:
    """Return one figure of a series: its latest value, or its sum where the panel says so."""
    calculations = (panel.source["options"].get("reduceOptions") or {}).get("calcs") or []
    return sum(field.numbers) if "sum" in calculations else field.numbers[-1]


def stat(panel: Panel, answers: dict[str, Answer]) -> Markup:
    """Return large figures."""
    style = default_style(panel)
    is_filled = panel.source["options"].get("colorMode", "").startswith("background")
    found = series(answers)
    parts = []
    for _, field in found:
        value = reduced(field, panel)
        colour = style.colour(value)
        dress = f"background:{colour};color:#fff" if is_filled else f"color:{colour}"
        name = Markup("<small>{}</small>").format(name_of(field, panel)) if len(found) > 1 else ""
        parts.append(Markup('<div class="figure" style="{}">{}{}</div>').format(dress, style.text(value), name))
    return Markup("").join(parts)


def bars(panel: Panel, answers: dict[str, Answer]) -> Markup:
    """Return one horizontal bar for each series, the largest first."""
    style = default_style(panel)
    values = sorted(((reduced(field, panel), name_of(field, panel)) for _, field in series(answers)), reverse=True)
    most = panel.source["fieldConfig"]["defaults"].get("max") or max(value for value, _ in values) or 1
    line = Markup(
        '<div class="bar"><span class="name">{}</span><span class="track"><span style="width:{}%;background:{}"></span>'
        '</span><span class="value" style="color:{}">{}</span></div>'
    )
    return Markup("").join(
        line.format(
            name, round(100 * min(max(value / most, 0), 1)), style.colour(value), style.colour(value), style.text(value)
        )
        for value, name in values
    )


def rows_of(answers: dict[str, Answer]) -> list[dict[str, Any]]:
    """Return the lines of a table: figures of the same labels stand in one line."""
    is_one = len(answers) == 1
    found: dict[tuple[tuple[str, str], ...], dict[str, Any]] = {}
    for letter, answer in answers.items():
        for frame in answer.frames:
            for labels, figures in lines_of(frame):
                line = found.setdefault(tuple(sorted(labels.items())), dict(labels))
                for name, value in figures.items():
                    line[name if is_one or name != "Value" else f"Value #{letter}"] = value
    return list(found.values())


def lines_of(frame: Frame) -> list[tuple[dict[str, str], dict[str, float]]]:
    """Return the lines of one frame: words, which tell lines apart, and figures."""
    length = max((len(field.values) for field in frame), default=0)
    found = []
    for number in range(length):
        labels: dict[str, str] = {}
        figures: dict[str, float] = {}
        for field in frame:
            if field.kind == "number":
                labels |= {key: value for key, value in field.labels.items() if key != "__name__"}
                # A data source may name the figure by its series.
                figures["Value" if field.labels or field.name.startswith("Value") else field.name] = field.values[
                    number
                ]
            elif field.kind != "time":
                labels[field.name] = str(field.values[number])
        found.append((labels, figures))
    return found


def table(panel: Panel, answers: dict[str, Answer]) -> Markup:
    """Return a table, its columns named and ordered as the panel says."""
    (organised,) = [entry for entry in panel.source["transformations"] if entry["id"] == "organize"]
    names = {
        name: organised["options"]["renameByName"].get(name, name)
        for name, _ in sorted(organised["options"]["indexByName"].items(), key=lambda entry: entry[1])
    }
    special = overridden(panel)
    rows = rows_of(answers)
    used = {name: title for name, title in names.items() if any(name in row for row in rows)}
    for order in panel.source["options"].get("sortBy") or []:
        key = next((name for name, title in names.items() if title == order["displayName"]), "")
        known = [row for row in rows if row.get(key) is not None]
        known.sort(key=lambda row, key=key: row[key], reverse=order.get("desc", False))
        rows = known + [row for row in rows if row.get(key) is None]
    figures = {name for name in used if any(isinstance(row.get(name), int | float) for row in rows)}
    head = Markup("").join(
        Markup('<th class="number">{}</th>' if name in figures else "<th>{}</th>").format(title)
        for name, title in used.items()
    )
    body = Markup("").join(
        Markup("<tr>{}</tr>").format(
            Markup("").join(cell(row.get(name), special.get(title, {})) for name, title in used.items())
        )
        for row in rows
    )
    return Markup("<table><tr>{}</tr>{}</table>").format(head, body)


def cell(value: float | str | None, properties: dict[str, Any]) -> Markup:
    """Return one cell of a table."""
    if value is None:
        return Markup("<td></td>")
    style = style_of(properties)
    if isinstance(value, str):
        meaning = style.mappings.get(value)
        if not meaning:
            return Markup("<td>{}</td>").format(value)
        return Markup('<td><span class="mark" style="background:{}">{}</span></td>').format(
            COLOURS[meaning["color"]], meaning["text"]
        )
    colour = style.colour(value) if "custom.cellOptions" in properties else COLOURS["text"]
    return Markup('<td class="number" style="color:{}">{}</td>').format(colour, style.text(value))


def plot(panel: Panel, answers: dict[str, Answer]) -> Markup:
    """Return lines, bars or areas over time, with a legend of the latest and the highest values."""
    style, special = default_style(panel), overridden(panel)
    custom = panel.source["fieldConfig"]["defaults"]["custom"]
    found = series(answers)
    grid = panel.source["gridPos"]
    legend_height = LEGEND_LINE * min(len(found), LEGEND_LINES + 1)
    width, height = grid["w"] * COLUMN / 100, max(grid["h"] * ROW - FRAME - legend_height, 90) / 100
    # Looking for the best layout takes longer than everything else.
    figure = figure_of(width, height, layout="none")
    axes = figure.add_axes((LEFT / width, BOTTOM / height, 1 - (LEFT + EDGE) / width, 1 - (BOTTOM + EDGE) / height))
    legend = []
    below: list[float] = []
    for number, (times, field) in enumerate(found):
        name = name_of(field, panel)
        fixed = (special.get(name, {}).get("color") or {}).get("fixedColor")
        colour = COLOURS[fixed] if fixed else PALETTE[number % len(PALETTE)]
        moments = [datetime.fromtimestamp(moment / 1000, UTC) for moment in times.values]
        values = [value if isinstance(value, int | float) else float("nan") for value in field.values]
        if (custom.get("stacking") or {}).get("mode") == "normal":
            base = below if len(below) == len(values) else [0.0] * len(values)
            tops = [(value if value == value else 0) + under for value, under in zip(values, base, strict=True)]
            axes.fill_between(moments, base, tops, color=colour, alpha=0.6, linewidth=0.5, step="post")
            below = tops
        else:
            marker = "." if len(field.numbers) < LEAST_POINTS else ""
            axes.plot(moments, values, color=colour, linewidth=1, marker=marker)
        legend.append((name, colour, style.text(field.numbers[-1]), style.text(max(field.numbers))))
    dress_axes(axes, panel, style, is_limited=custom["thresholdsStyle"]["mode"] != "off")
    entry = Markup('<div><i style="background:{}"></i>{}<b>{}</b><em>{}</em></div>')
    listed = [entry.format(colour, name, latest, most) for name, colour, latest, most in legend[:LEGEND_LINES]]
    if len(legend) > LEGEND_LINES:
        listed.append(Markup("<div>and {} more</div>").format(len(legend) - LEGEND_LINES))
    picture = Markup(svg(figure, str(panel)))
    return Markup('{}<div class="legend">{}</div>').format(picture, Markup("").join(listed))


def dress_axes(axes: Any, panel: Panel, style: Style, *, is_limited: bool) -> None:  # noqa: ANN401 - untyped library
    """Give a picture its range, its numbers with units, and a dashed line at each limit that is in sight."""
    defaults = panel.source["fieldConfig"]["defaults"]
    low, high = axes.get_ylim()
    low = defaults.get("min", low)
    high = max(high, defaults.get("max", high))
    if not any(values_of(axes)):
        high = max(high, low + 1)
    axes.set_ylim(low, high)
    for value, colour in style.limits if is_limited else []:
        if low <= value <= high:
            axes.axhline(value, color=colour, linewidth=1, linestyle="--")
    axes.yaxis.set_major_formatter(lambda value, _: shown(value, style.unit))
    axes.xaxis.set_major_locator(matplotlib.dates.AutoDateLocator(minticks=3, maxticks=8, tz=UTC))
    axes.xaxis.set_major_formatter(matplotlib.dates.ConciseDateFormatter(axes.xaxis.get_major_locator(), tz=UTC))
    axes.xaxis.get_offset_text().set_visible(False)
    axes.tick_params(labelsize=7)
    axes.grid(color="#e6ebf0", linewidth=0.5)
    axes.spines[["top", "right"]].set_visible(False)


def values_of(axes: Any) -> list[float]:  # noqa: ANN401 - untyped library
    """Return the numbers that a picture draws as lines or areas."""
    drawn_lines = [float(value) for line in axes.get_lines() for value in line.get_ydata()]
    areas = [float(path.vertices[:, 1].max()) for area in axes.collections for path in area.get_paths()]
    return [value for value in drawn_lines + areas if value == value]


def log_lines(panel: Panel, answers: dict[str, Answer]) -> Markup:
    """Return log lines with their times, the latest first."""
    parts = []
    for answer in answers.values():
        for frame in answer.frames:
            columns = {field.name: field.values for field in frame}
            times = next((field.values for field in frame if field.kind == "time"), [])
            texts = next((columns[name] for name in ("line", "message") if name in columns), [])
            parts += [
                Markup("<div><time>{}</time>{}</div>").format(moment_text(moment), text or "")
                for moment, text in zip(times, texts, strict=False)
            ]
    return Markup('<div class="lines">{}</div>').format(Markup("").join(parts[:LINES_SHOWN]))


def moment_text(moment: object) -> str:
    """Return a moment, given in milliseconds or as text, without its day."""
    if isinstance(moment, int | float):
        return datetime.fromtimestamp(moment / 1000, UTC).strftime("%H:%M:%S")
    return str(moment)[11:19]


DRAWN: dict[str, Callable[[Panel, dict[str, Answer]], Markup]] = {
    "stat": stat,
    "bargauge": bars,
    "table": table,
    "timeseries": plot,
    "logs": log_lines,
}


def drawn(panel: Panel, answers: dict[str, Answer]) -> Markup:
    """Return the inside of a panel: its data, its errors, or its own words for having none.

    Raises:
        KeyError: the kind of panel is unknown here.
    """
    errors = [answer.error for answer in answers.values() if answer.error]
    if errors:
        return Markup('<p class="error">{}</p>').format("; ".join(errors))
    if not any(answer.has_data for answer in answers.values()):
        return Markup('<p class="empty">{}</p>').format(panel.empty)
    return DRAWN[panel.source["type"]](panel, answers)
