"""What every dashboard has: variables, links, alerts as annotations, what is wrong at the top, and the rows below."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from grafana_foundation_sdk.builders import dashboard as builders
from grafana_foundation_sdk.models import dashboard as models

from files.grafana import limits
from files.grafana.panels import Column, Meanings, Panel, listing, now
from files.grafana.queries import LINES, METRICS, Prom

TAG = "bank-platform"
COLUMNS = 24
REFRESH = "30s"
SEVERITIES: Meanings = {
    "p1": ("P1", limits.WORST),
    "p2": ("P2", limits.BAD),
    "p3": ("P3", limits.WARNING),
    "p4": ("P4", limits.NOTICE),
}
# Where an alert is, from the whole to the part.
PLACE = ("site", "instance", "name", "slo")


@dataclass(frozen=True)
class Variable:
    """A choice at the top of a dashboard: all values of a label, or of a field of log lines."""

    name: str
    label: str
    query: str
    source: models.DataSourceRef = METRICS

    def builder(self) -> builders.QueryVariable:
        """Return the builder of a choice of several values, all to begin with."""
        made = builders.QueryVariable(self.name).label(self.label).datasource(self.source)
        made.query({"query": self.query, "refId": "values"} if self.source is METRICS else self.query)
        made.refresh(models.VariableRefresh.ON_TIME_RANGE_CHANGED).sort(models.VariableSort.ALPHABETICAL_ASC)
        # Regular expressions know this as everything, also where the label is missing; so does a query of lines.
        made.multi(True).include_all(True).all_value(".*" if self.source is METRICS else "*")
        return made.current(models.VariableOption(selected=True, text=["All"], value=["$__all"]))


SITE = Variable("site", "Site", "label_values(up, site)")
HOST = Variable("host", "Host", '{"find": "terms", "field": "host.name", "size": 100}', LINES)


def instance(job: str, label: str = "Host") -> Variable:
    """Return the choice of hosts that have a job, of the chosen sites."""
    return Variable("instance", label, f'label_values(up{{job="{job}", site=~"$site"}}, instance)')


@dataclass(frozen=True)
class Row:
    """Panels from left to right and from top to bottom, below a title."""

    title: str
    panels: Sequence[Panel]


@dataclass(frozen=True)
class Board:
    """One dashboard."""

    uid: str
    title: str
    description: str
    rows: Sequence[Row]
    variables: Sequence[Variable] = (SITE,)
    runbooks: Sequence[str] = ()
    since: str = "now-3h"
    refresh: str = REFRESH
    # The wall and the list of alerts show all of them in a way of their own.
    shows_its_alerts: bool = True
    # Where other dashboards have the alerts that belong here, too.
    alerts: Sequence[str] = ()

    @property
    def alert_names(self) -> list[str]:
        """Return the alerts of the dashboard: those that link it, or those that it names."""
        return list(self.alerts) or limits.names_of(self.uid)


class Annotations(models.AnnotationQuery):
    """Annotations from Prometheus: the builder's model lacks what they say."""

    def to_json(self) -> dict[str, Any]:
        """Return the JSON with title and text."""
        return super().to_json() | {
            "titleFormat": "{{severity}} {{alertname}}",
            "textFormat": "{{instance}} {{name}} {{slo}}",
            "tagKeys": "severity,site",
            "step": "60s",
        }


class AnnotationsBuilder(builders.AnnotationQuery):
    """Builder of annotations from Prometheus."""

    def __init__(self) -> None:
        super().__init__()
        self._internal = Annotations()


def firing(names: Sequence[str] = (), severities: str = "p[1-4]") -> str:
    """Return the selector of the alerts that fire, of the given names or all but the one that always fires."""
    wanted = f'alertname=~"{"|".join(names)}"' if names else 'alertname!="Watchdog"'
    return f'ALERTS{{alertstate="firing", {wanted}, severity=~"{severities}", site=~"$site"}}'


def since(selector: str) -> str:
    """Return for how long what each alert of a selector looks at has been so."""
    labels = ", ".join(("severity", "alertname", *PLACE))
    return f"max by ({labels}) (time() - ALERTS_FOR_STATE and ignoring (alertstate) {selector})"


def alert_list(title: str, description: str, selector: str, *, empty: str, width: int, height: int) -> Panel:
    """Return the table of the alerts of a selector, the most urgent first."""
    titles = {"severity": "Severity", "alertname": "Alert", "site": "Site", "instance": "Host"}
    titles |= {"name": "Unit", "slo": "Objective"}
    column = Column("For", Prom(since(selector)), unit="s")
    return listing(
        title,
        description,
        titles,
        column,
        empty=empty,
        width=width,
        height=height,
        sort=titles["severity"],
        meanings={titles["severity"]: SEVERITIES},
    )


def wrong(board: Board) -> list[Panel]:
    """Return the panels that say at the top what is wrong, by the alerts of the dashboard."""
    if not board.shows_its_alerts:
        return []
    return [
        now(
            "Alerts that fire",
            "How many of the alerts that belong to this dashboard fire now. 0 is good.",
            Prom(f"count({firing(board.alert_names)}) or vector(0)"),
            steps=limits.ANY,
            link="alerts",
        ),
        alert_list(
            "What is wrong now",
            "The alerts of this dashboard that fire, and for how long what they look at has been so. The message of "
            "each "
            "links its runbook.",
            firing(board.alert_names),
            empty="No alert of this dashboard fires.",
            width=20,
            height=4,
        ),
    ]


def annotations(board: Board) -> AnnotationsBuilder:
    """Return the annotations that mark when alerts of the dashboard fired, or any grave ones where it shows all."""
    selector = firing(board.alert_names) if board.shows_its_alerts else firing(severities="p[12]")
    return AnnotationsBuilder().name("Alerts").datasource(METRICS).enable(True).icon_color("red").expr(selector)


def links(board: Board) -> list[builders.DashboardLink]:
    """Return the links to the other dashboards and to the runbooks of the project, which a site completes."""
    others = builders.DashboardLink("Dashboards").type(models.DashboardLinkType.DASHBOARDS).tags([TAG])
    made = [others.as_dropdown(True).include_vars(True).keep_time(True)]
    for name in board.runbooks:
        title = f"Runbook: {name.removesuffix('.md').replace('_', ' ')}"
        link = builders.DashboardLink(title).type(models.DashboardLinkType.LINK).icon("doc").target_blank(True)
        made.append(link.url(f"docs/runbooks/{name}"))
    return made


def build(board: Board) -> models.Dashboard:
    """Return a dashboard as Grafana reads it.

    Raises:
        ValueError: a panel is wider than the grid.
    """
    made = builders.Dashboard(board.title).uid(board.uid).description(board.description).tags([TAG])
    made.time(board.since, "now").timezone("browser").refresh(board.refresh).editable()
    made.tooltip(models.DashboardCursorSync.CROSSHAIR).links(links(board)).annotation(annotations(board))
    for variable in board.variables:
        made.with_variable(variable.builder())
    number, y = 0, 0
    rows = [Row("", wrong(board)), *board.rows]
    for row in rows:
        if row.title:
            number += 1
            title = builders.Row(row.title).id(number).grid_pos(models.GridPos(x=0, y=y, w=COLUMNS, h=1))
            made.with_row(title)
            y += 1
        x = tallest = 0
        for panel in row.panels:
            if panel.width > COLUMNS:
                raise ValueError(f"{board.uid}, {panel.title}: wider than {COLUMNS} columns")
            if x + panel.width > COLUMNS:
                x, y, tallest = 0, y + tallest, 0
            number += 1
            place = models.GridPos(x=x, y=y, w=panel.width, h=panel.height)
            made.with_panel(panel.make().id(number).grid_pos(place))
            x, tallest = x + panel.width, max(tallest, panel.height)
        y += tallest
    return made.build()
