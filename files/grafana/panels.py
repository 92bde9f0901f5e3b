"""The few kinds of panels that all dashboards are made of, so that they look and behave alike.

Every panel says in plain words what it shows, in which unit, from where on it is bad, and what an empty one means.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from grafana_foundation_sdk.builders import bargauge, logs, stat, table, timeseries
from grafana_foundation_sdk.builders import common as common_builders
from grafana_foundation_sdk.builders import dashboard as dashboard_builders
from grafana_foundation_sdk.models import common, units
from grafana_foundation_sdk.models.dashboard import (
    DataTransformerConfig,
    DynamicConfigValue,
    FieldColorModeId,
    ValueMap,
    ValueMappingResult,
)

from files.grafana import limits
from files.grafana.limits import Steps
from files.grafana.queries import Lines, Prom, Sql, Target

Builder = bargauge.Panel | logs.Panel | stat.Panel | table.Panel | timeseries.Panel
Query = Prom | Lines
# Texts and colours of single values.
Meanings = dict[str, tuple[str, str]]

COUNT = units.Short
SHARE = units.PercentUnit
SECONDS = units.Seconds
BYTES = units.BytesIEC
BYTES_PER_SECOND = units.BytesPerSecondIEC
REQUESTS_PER_SECOND = units.RequestsPerSecond
PER_SECOND = units.CountsPerSecond
TEXT = units.String
# Where nothing counts as good.
NOTHING_YET = "Nothing was measured in this time: see whether its target is up on the dashboard Services."

YES_NO: Meanings = {"1": ("yes", limits.GOOD), "0": ("no", limits.BAD)}
UP_DOWN: Meanings = {"1": ("up", limits.GOOD), "0": ("down", limits.BAD)}
WHOLE_BROKEN: Meanings = {"1": ("whole", limits.GOOD), "0": ("broken", limits.WORST)}


@dataclass(frozen=True)
class Panel:
    """A panel and its size on a grid of 24 columns."""

    make: Callable[[], Builder]
    title: str
    width: int
    height: int


@dataclass(frozen=True)
class Column:
    """One figure of a table."""

    title: str
    query: Query
    unit: str = COUNT
    steps: Steps = limits.NONE
    meanings: Meanings = field(default_factory=dict)


def letters(targets: Sequence[Target]) -> list[Target]:
    """Name the questions of a panel A, B, C and so on."""
    return [target.ref_id(chr(ord("A") + number)) for number, target in enumerate(targets)]


def mapping(meanings: Meanings) -> list[ValueMap]:
    """Return meanings as Grafana's builder takes them."""
    results = {value: ValueMappingResult(text=text, color=colour) for value, (text, colour) in meanings.items()}
    return [ValueMap(options=results)] if results else []


def dressed(
    panel: Builder, title: str, description: str, unit: str, empty: str, steps: Steps, queries: Sequence[Query | Sql]
) -> Builder:
    """Give a panel what every panel has."""
    panel.title(title).description(description).unit(unit).no_value(empty).thresholds(limits.config(steps))
    return panel.datasource(queries[0].source)


def by_threshold() -> dashboard_builders.FieldColor:
    """Return the colour that follows the steps."""
    return dashboard_builders.FieldColor().mode(FieldColorModeId.THRESHOLDS)


def reduced(queries: Sequence[Query]) -> common_builders.ReduceDataOptions:
    """Return what makes one figure of a series: the latest value, or the number of lines in the whole time."""
    are_lines = isinstance(queries[0], Lines)
    return common_builders.ReduceDataOptions().calcs(["sum" if are_lines else "lastNotNull"])


def now(
    title: str,
    description: str,
    *queries: Query,
    unit: str = COUNT,
    steps: Steps = limits.NONE,
    meanings: Meanings | None = None,
    empty: str = NOTHING_YET,
    width: int = 4,
    height: int = 4,
    decimals: int | None = None,
    link: str = "",
) -> Panel:
    """Return large figures of this moment on the colour of their step; ``link`` is the dashboard that tells more."""

    def make() -> Builder:
        panel = stat.Panel().reduce_options(reduced(queries)).graph_mode(common.BigValueGraphMode.NONE)
        panel.color_mode(common.BigValueColorMode.BACKGROUND_SOLID if steps != limits.NONE or meanings else
                         common.BigValueColorMode.VALUE)  # fmt: skip
        panel.color_scheme(by_threshold()).mappings(mapping(meanings or {}))
        panel.text_mode(common.BigValueTextMode.AUTO if len(queries) == 1 else common.BigValueTextMode.VALUE_AND_NAME)
        made = [one.target(instant=True) if isinstance(one, Prom) else one.over_time() for one in queries]
        panel.targets(letters(made))
        if decimals is not None:
            panel.decimals(decimals)
        if link:
            panel.data_links([dashboard_builders.DashboardLink("More").url(f"/d/{link}?${{__url_time_range}}")])
        return dressed(panel, title, description, unit, empty, steps, queries)

    return Panel(make, title, width, height)


def over_time(
    title: str,
    description: str,
    *queries: Query,
    unit: str = COUNT,
    steps: Steps = limits.NONE,
    empty: str = NOTHING_YET,
    width: int = 12,
    height: int = 8,
    stacked: bool = False,
    bars: bool = False,
    least: float | None = 0,
    most: float | None = None,
    colours: dict[str, str] | None = None,
) -> Panel:
    """Return lines or bars over time, with a dashed line at each step; ``colours`` fixes those of named series."""

    def make() -> Builder:
        panel = timeseries.Panel().line_width(1).fill_opacity(40 if stacked or bars else 8)
        panel.show_points(common.VisibilityMode.NEVER).span_nulls(False)
        panel.draw_style(common.GraphDrawStyle.BARS if bars else common.GraphDrawStyle.LINE)
        panel.stacking(
            common_builders.StackingConfig().mode(common.StackingMode.NORMAL if stacked else common.StackingMode.NONE)
        )
        is_limited = steps != limits.NONE
        panel.thresholds_style(
            common_builders.GraphThresholdsStyleConfig().mode(
                common.GraphTresholdsStyleMode.DASHED if is_limited else common.GraphTresholdsStyleMode.OFF
            )
        )
        panel.color_scheme(dashboard_builders.FieldColor().mode(FieldColorModeId.PALETTE_CLASSIC))
        legend = common_builders.VizLegendOptions().display_mode(common.LegendDisplayMode.TABLE)
        legend.placement(common.LegendPlacement.RIGHT if width > 12 else common.LegendPlacement.BOTTOM)
        panel.legend(legend.show_legend(True).calcs(["lastNotNull", "max"]))
        panel.tooltip(
            common_builders.VizTooltipOptions().mode(common.TooltipDisplayMode.MULTI).sort(common.SortOrder.DESCENDING)
        )
        if least is not None:
            panel.min(least)
        if most is not None:
            panel.max(most)
        for name, colour in (colours or {}).items():
            fixed = {"mode": FieldColorModeId.FIXED, "fixedColor": colour}
            panel.override_by_name(name, [DynamicConfigValue(id_val="color", value=fixed)])
        made = [one.target(instant=False) if isinstance(one, Prom) else one.over_time() for one in queries]
        panel.targets(letters(made))
        return dressed(panel, title, description, unit, empty, steps, queries)

    return Panel(make, title, width, height)


def ranking(
    title: str,
    description: str,
    *queries: Query,
    unit: str = COUNT,
    steps: Steps = limits.NONE,
    empty: str = NOTHING_YET,
    width: int = 8,
    height: int = 8,
    least: float | None = 0,
    most: float | None = None,
) -> Panel:
    """Return one horizontal bar for each thing, now."""

    def make() -> Builder:
        panel = bargauge.Panel().display_mode(common.BarGaugeDisplayMode.BASIC).reduce_options(reduced(queries))
        panel.orientation(common.VizOrientation.HORIZONTAL).color_scheme(by_threshold())
        if least is not None:
            panel.min(least)
        if most is not None:
            panel.max(most)
        made = [one.target(instant=True) if isinstance(one, Prom) else one.over_time() for one in queries]
        panel.targets(letters(made))
        return dressed(panel, title, description, unit, empty, steps, queries)

    return Panel(make, title, width, height)


def listing(
    title: str,
    description: str,
    labels: dict[str, str],
    *columns: Column,
    empty: str = NOTHING_YET,
    width: int = 24,
    height: int = 8,
    sort: str = "",
    meanings: dict[str, Meanings] | None = None,
) -> Panel:
    """Return a table with a line for each combination of ``labels`` (their names, and titles of their columns).

    ``sort`` is the title of the column that lines are ordered by: a figure's largest value comes first, and of a label
    the first in the alphabet. ``meanings`` colour the values of labels.
    """

    def make() -> Builder:
        panel = table.Panel().show_header(True).cell_height(common.TableCellHeight.SM)
        queries = [column.query for column in columns]
        made = [one.target(instant=True, table=True) if isinstance(one, Prom) else one.counted() for one in queries]
        panel.targets(letters(made))
        renamed = dict(labels)
        for number, column in enumerate(columns):
            if isinstance(column.query, Lines):
                renamed["Sum" if column.query.total else "Count"] = column.title
            else:
                renamed["Value" if len(columns) == 1 else f"Value #{chr(ord('A') + number)}"] = column.title
        order = {name: number for number, name in enumerate(renamed)}
        if len(columns) > 1:
            panel.with_transformation(DataTransformerConfig(id_val="merge", options={}))
        options = {"excludeByName": {"Time": True}, "renameByName": renamed, "indexByName": order}
        panel.with_transformation(DataTransformerConfig(id_val="organize", options=options))
        for column in columns:
            properties: list[DynamicConfigValue] = [DynamicConfigValue(id_val="unit", value=column.unit)]
            if column.steps != limits.NONE or column.meanings:
                properties += [
                    DynamicConfigValue(id_val="thresholds", value=limits.config(column.steps).build()),
                    DynamicConfigValue(id_val="mappings", value=mapping(column.meanings)),
                    DynamicConfigValue(id_val="custom.cellOptions", value={"type": "color-text"}),
                ]
            panel.override_by_name(column.title, properties)
        for name, known in (meanings or {}).items():
            properties = [
                DynamicConfigValue(id_val="mappings", value=mapping(known)),
                DynamicConfigValue(id_val="custom.cellOptions", value={"type": "color-background"}),
            ]
            panel.override_by_name(name, properties)
        if sort:
            is_figure = sort in {column.title for column in columns}
            panel.sort_by([common_builders.TableSortByFieldState().display_name(sort).desc(is_figure)])
        return dressed(panel, title, description, COUNT, empty, limits.NONE, queries)

    return Panel(make, title, width, height)


def rows(
    title: str,
    description: str,
    query: Sql,
    columns: dict[str, str],
    *,
    units: dict[str, str] | None = None,
    empty: str,
    width: int = 8,
    height: int = 9,
) -> Panel:
    """Return a table of what a statement in SQL answers, in its order.

    ``columns`` are the names of its columns and their titles, ``units`` those of figures by their titles.
    """

    def make() -> Builder:
        panel = table.Panel().show_header(True).cell_height(common.TableCellHeight.SM)
        panel.targets(letters([query.rows()]))
        order = {name: number for number, name in enumerate(columns)}
        options = {"excludeByName": {}, "renameByName": columns, "indexByName": order}
        panel.with_transformation(DataTransformerConfig(id_val="organize", options=options))
        for name, unit in (units or {}).items():
            panel.override_by_name(name, [DynamicConfigValue(id_val="unit", value=unit)])
        return dressed(panel, title, description, COUNT, empty, limits.NONE, [query])

    return Panel(make, title, width, height)


def lines(
    title: str, description: str, query: Lines, *, empty: str = "No line fits.", width: int = 24, height: int = 12
) -> Panel:
    """Return log lines, the latest first."""

    def make() -> Builder:
        panel = logs.Panel().show_time(True).wrap_log_message(True).enable_log_details(True)
        panel.sort_order(common.LogsSortOrder.DESCENDING).targets(letters([query.lines()]))
        return dressed(panel, title, description, TEXT, empty, limits.NONE, [query])

    return Panel(make, title, width, height)
