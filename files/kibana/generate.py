"""What Kibana shows of the platform, and what it warns about: writes objects.ndjson and rules.json beside this file.

Run it after a change, and commit all three: python -m files.kibana.generate. Kibana's own format repeats itself too
much to be reviewed, so this file is what people read; the two others are what the role imports, and what anybody may
import by hand. Queries are in Lucene's syntax, which Kibana hands to Elasticsearch as it is; so do the tests.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

HERE = Path(__file__).parent
# The role knows what is its own by these.
PREFIX, TAG = "platform-", "platform"
TIME = "@timestamp"
# Formats that every supported release (8.14 and later) reads; later ones convert them.
CORE_FORMAT = "8.8.0"
FORMATS = {"index-pattern": "8.0.0", "search": "8.0.0", "lens": "8.9.0", "dashboard": "8.9.0"}
LAYER = "layer"
GRID_WIDTH = 48

Document = dict[str, Any]


@dataclass(frozen=True)
class DataView:
    """Indices that are looked at as one."""

    name: str
    pattern: str
    title: str

    @property
    def identifier(self) -> str:
        """Return the identifier of the saved object."""
        return f"{PREFIX}{self.name}"


@dataclass(frozen=True)
class Metric:
    """What is counted or measured."""

    operation: Literal["count", "sum", "percentile", "unique_count"] = "count"
    field: str = ""
    label: str = "Lines"
    percentile: int = 95

    def column(self) -> Document:
        """Return Kibana's column."""
        column = {
            "label": self.label,
            "customLabel": True,
            "dataType": "number",
            "operationType": self.operation,
            "isBucketed": False,
            "scale": "ratio",
            "sourceField": self.field or "___records___",
            "params": {"emptyAsNull": True},
        }
        if self.operation == "percentile":
            column["params"] = {"percentile": self.percentile}
        return column


@dataclass(frozen=True)
class Terms:
    """One part for each of the most frequent values of a field."""

    field: str
    label: str
    size: int = 10
    kind: Literal["string", "ip", "number"] = "string"

    def column(self) -> Document:
        """Return Kibana's column."""
        params = {
            "size": self.size,
            "orderBy": {"type": "column", "columnId": "metric"},
            "orderDirection": "desc",
            "otherBucket": True,
            "missingBucket": False,
            "parentFormat": {"id": "terms"},
        }
        return {
            "label": self.label,
            "customLabel": True,
            "dataType": self.kind,
            "operationType": "terms",
            "isBucketed": True,
            "scale": "ordinal",
            "sourceField": self.field,
            "params": params,
        }


@dataclass(frozen=True)
class Filters:
    """One part for each query."""

    queries: dict[str, str]
    label: str

    def column(self) -> Document:
        """Return Kibana's column."""
        filters = [{"label": label, "input": lucene(query)} for label, query in self.queries.items()]
        return {
            "label": self.label,
            "customLabel": True,
            "dataType": "string",
            "operationType": "filters",
            "isBucketed": True,
            "scale": "ordinal",
            "params": {"filters": filters},
        }


@dataclass(frozen=True)
class Panel:
    """One picture."""

    name: str
    title: str
    shape: Literal["bars", "lines", "table", "donut", "number"]
    query: str
    split: Terms | Filters | None = None
    metric: Metric = field(default_factory=Metric)
    description: str = ""
    width: int = GRID_WIDTH // 2
    height: int = 12

    @property
    def identifier(self) -> str:
        """Return the identifier of the saved object."""
        return f"{PREFIX}{self.name}"


@dataclass(frozen=True)
class LiveView:
    """Lines as they come in, for Discover."""

    name: str
    title: str
    query: str
    columns: tuple[str, ...]
    description: str = ""
    width: int = GRID_WIDTH
    height: int = 18

    @property
    def identifier(self) -> str:
        """Return the identifier of the saved object."""
        return f"{PREFIX}{self.name}"


@dataclass(frozen=True)
class Dashboard:
    """Pictures of one data view, from left to right and from top to bottom."""

    name: str
    title: str
    description: str
    view: DataView
    panels: tuple[Panel | LiveView, ...]


@dataclass(frozen=True)
class Rule:
    """Warns when a query finds more than so many lines in the last minutes; looks every minute."""

    # A random UUID, which Kibana asks for.
    identifier: str
    name: str
    query: str
    view: DataView
    more_than: int
    minutes: int = 5
    priority: Literal["p1", "p2", "p3", "p4"] = "p3"


def lucene(query: str) -> Document:
    """Return a query as Kibana keeps it."""
    return {"query": query, "language": "lucene"}


def reference(name: str, kind: str, identifier: str) -> Document:
    """Return how one object names another."""
    return {"id": identifier, "name": name, "type": kind}


def saved(kind: str, identifier: str, attributes: Document, references: list[Document]) -> Document:
    """Return a saved object as Kibana exports it."""
    return {
        "attributes": attributes,
        "coreMigrationVersion": CORE_FORMAT,
        "id": identifier,
        "references": references,
        "type": kind,
        "typeMigrationVersion": FORMATS[kind],
    }


def text_of(document: object) -> str:
    """Return a document as the text that Kibana keeps it as."""
    return json.dumps(document, ensure_ascii=False, sort_keys=True)


def picture(panel: Panel) -> tuple[str, Document]:
    """Return the kind of Kibana's visualization, and how it is drawn."""
    layer: Document = {"layerId": LAYER, "layerType": "data"}
    match panel.shape:
        case "bars" | "lines":
            series = "bar_stacked" if panel.shape == "bars" else "line"
            layer |= {"seriesType": series, "xAccessor": "time", "accessors": ["metric"]}
            layer |= {"splitAccessor": "split"} if panel.split else {}
            legend = {"isVisible": True, "position": "right"}
            drawn = {"preferredSeriesType": series, "legend": legend, "valueLabels": "hide", "layers": [layer]}
            return "lnsXY", drawn
        case "table":
            return "lnsDatatable", layer | {"columns": [{"columnId": "split"}, {"columnId": "metric"}]}
        case "donut":
            layer |= {"primaryGroups": ["split"], "metrics": ["metric"], "numberDisplay": "percent"}
            layer |= {"categoryDisplay": "default", "legendDisplay": "default"}
            return "lnsPie", {"shape": "donut", "layers": [layer]}
        case _:
            return "lnsMetric", layer | {"metricAccessor": "metric"}


def lens(panel: Panel, view: DataView) -> Document:
    """Return the saved object of a picture."""
    columns: Document = {}
    if panel.split:
        columns["split"] = panel.split.column()
    if panel.shape in ("bars", "lines"):
        columns["time"] = {
            "label": TIME,
            "dataType": "date",
            "operationType": "date_histogram",
            "isBucketed": True,
            "scale": "interval",
            "sourceField": TIME,
            "params": {"interval": "auto", "includeEmptyRows": True, "dropPartials": False},
        }
    columns["metric"] = panel.metric.column()
    kind, drawn = picture(panel)
    layer = {"columns": columns, "columnOrder": list(columns), "incompleteColumns": {}}
    state = {
        "adHocDataViews": {},
        "datasourceStates": {"formBased": {"layers": {LAYER: layer}}},
        "filters": [],
        "internalReferences": [],
        "query": lucene(panel.query),
        "visualization": drawn,
    }
    attributes = {
        "title": panel.title,
        "description": panel.description,
        "visualizationType": kind,
        "state": state,
    }
    named = reference(f"indexpattern-datasource-layer-{LAYER}", "index-pattern", view.identifier)
    return saved("lens", panel.identifier, attributes, [named])


def search(live: LiveView, view: DataView) -> Document:
    """Return the saved object of a live view."""
    index = "kibanaSavedObjectMeta.searchSourceJSON.index"
    source = {"query": lucene(live.query), "filter": [], "indexRefName": index}
    attributes = {
        "title": live.title,
        "description": live.description,
        "columns": list(live.columns),
        "sort": [[TIME, "desc"]],
        "kibanaSavedObjectMeta": {"searchSourceJSON": text_of(source)},
    }
    return saved("search", live.identifier, attributes, [reference(index, "index-pattern", view.identifier)])


def dashboard(board: Dashboard) -> Document:
    """Return the saved object of a dashboard."""
    panels, references = [], []
    x = y = row = 0
    for number, panel in enumerate(board.panels, 1):
        name = str(number)
        if x + panel.width > GRID_WIDTH:
            x, y, row = 0, y + row, 0
        kind = "search" if isinstance(panel, LiveView) else "lens"
        panels.append(
            {
                "type": kind,
                "gridData": {"x": x, "y": y, "w": panel.width, "h": panel.height, "i": name},
                "panelIndex": name,
                "embeddableConfig": {"enhancements": {}},
                "panelRefName": f"panel_{name}",
            }
        )
        references.append(reference(f"{name}:panel_{name}", kind, panel.identifier))
        x, row = x + panel.width, max(row, panel.height)
    options = {"useMargins": True, "syncColors": True, "syncCursor": True, "hidePanelTitles": False}
    attributes = {
        "title": board.title,
        "description": board.description,
        "panelsJSON": text_of(panels),
        "optionsJSON": text_of(options),
        "timeRestore": True,
        "timeFrom": "now-1h",
        "timeTo": "now",
        "refreshInterval": {"pause": False, "value": 10000},
        "version": 1,
        "kibanaSavedObjectMeta": {"searchSourceJSON": text_of({"query": lucene(""), "filter": []})},
    }
    return saved("dashboard", f"{PREFIX}{board.name}", attributes, references)


def objects() -> list[Document]:
    """Return every saved object; what is referred to comes first."""
    found = [
        saved("index-pattern", view.identifier, {"title": view.pattern, "name": view.title, "timeFieldName": TIME}, [])
        for view in VIEWS
    ]
    for board in BOARDS:
        for panel in board.panels:
            made = search(panel, board.view) if isinstance(panel, LiveView) else lens(panel, board.view)
            found.append(made)
        found.append(dashboard(board))
    return found


def rules() -> list[Document]:
    """Return every rule as Kibana's API takes it."""
    found = []
    for rule in RULES:
        query = {"query_string": {"query": rule.query, "analyze_wildcard": True}}
        params = {
            "searchType": "esQuery",
            "esQuery": text_of({"query": {"bool": {"filter": [query]}}}),
            "index": [rule.view.pattern],
            "timeField": TIME,
            "size": 10,
            "aggType": "count",
            "groupBy": "all",
            "threshold": [rule.more_than],
            "thresholdComparator": ">",
            "timeWindowSize": rule.minutes,
            "timeWindowUnit": "m",
            "excludeHitsFromPreviousRun": False,
        }
        found.append(
            {
                "id": rule.identifier,
                "name": rule.name,
                "consumer": "stackAlerts",
                "rule_type_id": ".es-query",
                "enabled": True,
                "schedule": {"interval": "1m"},
                "tags": [TAG, rule.priority],
                "actions": [],
                "params": params,
            }
        )
    return found


def files() -> dict[str, str]:
    """Return the files that the role reads, by their names."""
    lines = [json.dumps(entry, ensure_ascii=False, sort_keys=True) for entry in objects()]
    return {
        "objects.ndjson": "\n".join(lines) + "\n",
        "rules.json": json.dumps(rules(), ensure_ascii=False, indent=2, sort_keys=True) + "\n",
    }


# --- what there is ----------------------------------------------------------------------------------------------------

LOGS = DataView("app-logs", "app-logs-*", "Logs")
METRICS = DataView("metricbeat", "metricbeat-*", "Metrics of hosts and services")
PACKETS = DataView("packetbeat", "packetbeat-*", "Network traffic")
VIEWS = (LOGS, METRICS, PACKETS)

SERVER_ERRORS = 'event.dataset:"haproxy.access" AND http.response.status_code:>=500'
ORDERS = 'event.dataset:"bank.transaction"'
REFUSED_ORDERS = f'{ORDERS} AND event.outcome:"failure"'
SECURITY = 'event.dataset:"bank.user_behavior"'
REFUSED_LOG_INS = f'{SECURITY} AND event.action:"log-in" AND event.outcome:"failure"'
FORGED = 'event.action:"csrf-check" AND event.outcome:"failure"'

# fmt: off
BOARDS = (
    Dashboard(
        "logs",
        "Logs",
        "Answers with an error, where lines come from, and the lines themselves as they come in",
        LOGS,
        (
            Panel(
                "logs-server-errors",
                "Answers of 500 and above over time",
                "bars",
                SERVER_ERRORS,
                Terms("haproxy.server", "Instance", 5),
                Metric(label="Answers"),
                "What customers got, from the log of the load balancers",
            ),
            Panel("logs-sources", "Where lines come from", "bars", "", Terms("event.dataset", "Source")),
            Panel("logs-hosts", "Hosts that write most", "table", "", Terms("host.name", "Host"), width=16),
            Panel(
                "logs-files", "Lines of each file", "table", "_exists_:log.file.path",
                Terms("log.file.path", "File"), width=16,
            ),
            Panel(
                "logs-streams",
                "Output of services",
                "donut",
                "_exists_:systemd.transport",
                Filters(
                    {
                        "standard output": "systemd.transport:stdout AND syslog.priority:>=5",
                        "standard error, or marked as a warning": "systemd.transport:stdout AND syslog.priority:<=4",
                        "sent to syslog or the journal": "systemd.transport:(syslog OR journal)",
                        "kernel and audit": "systemd.transport:(kernel OR audit)",
                    },
                    "Stream",
                ),
                description="The journal takes both streams of a service as one; the priority tells them apart where "
                "the service marks its lines",
                width=16,
            ),
            LiveView(
                "logs-live", "Lines as they come in", "", ("host.name", "event.dataset", "log.level", "message"),
                "In Discover: choose a field on the left to narrow it down",
            ),
        ),
    ),
    Dashboard(
        "transactions",
        "Transactions",
        "Orders of customers: how many, how much, which were refused and why",
        LOGS,
        (
            Panel(
                "transactions-outcome", "Orders by outcome", "bars", ORDERS, Terms("event.outcome", "Outcome", 3),
                Metric(label="Orders"),
            ),
            Panel(
                "transactions-kind", "Orders by kind", "bars", ORDERS, Terms("event.action", "Kind"),
                Metric(label="Orders"),
            ),
            Panel(
                "transactions-amount",
                "Amounts carried out, in cents",
                "table",
                f"{ORDERS} AND event.outcome:\"success\"",
                Terms("bank.currency", "Currency"),
                Metric("sum", "bank.amount_minor", "Sum in the smallest unit"),
                width=16,
            ),
            Panel(
                "transactions-refused", "Why orders are refused", "table", REFUSED_ORDERS,
                Terms("event.reason", "Reason"), Metric(label="Orders"), width=16,
            ),
            Panel(
                "transactions-slowest",
                "Slowest twentieth of requests, in nanoseconds",
                "lines",
                'event.dataset:"bank.performance"',
                Terms("service.node.name", "Instance", 5),
                Metric("percentile", "event.duration", "95th percentile"),
                width=16,
            ),
            LiveView(
                "transactions-live", "Orders as they come in", ORDERS,
                ("event.action", "event.outcome", "event.reason", "bank.amount_minor", "bank.currency", "trace.id"),
            ),
        ),
    ),
    Dashboard(
        "security",
        "Security events",
        "Who tried to get in, who was refused, and what changed about people and their rights",
        LOGS,
        (
            Panel(
                "security-log-ins", "Refused log-ins over time", "bars", REFUSED_LOG_INS,
                Terms("event.reason", "Refused at", 5), Metric(label="Log-ins"),
            ),
            Panel(
                "security-actions", "Security events by kind", "bars", SECURITY, Terms("event.action", "Event"),
                Metric(label="Events"),
            ),
            Panel(
                "security-addresses", "Addresses with most refused log-ins", "table", REFUSED_LOG_INS,
                Terms("source.ip", "Address", kind="ip"), Metric(label="Log-ins"), width=16,
            ),
            Panel(
                "security-people", "People with refused log-ins", "number", REFUSED_LOG_INS,
                metric=Metric("unique_count", "user.id", "People"), width=16,
            ),
            Panel(
                "security-forged", "Forms without their token", "number", FORGED,
                metric=Metric(label="Requests"), width=16,
                description="Requests that another site may have made a customer send",
            ),
            LiveView(
                "security-live", "Security events as they come in", f"{SECURITY} OR event.dataset:\"bank.audit\"",
                ("event.action", "event.outcome", "event.reason", "source.ip", "user.id", "message"),
            ),
        ),
    ),
)

RULES = (
    Rule(
        "3f0c5a0e-6f7b-4d52-9c1a-2b8a4d0e9f11",
        "More than ten answers of 500 and above within five minutes",
        SERVER_ERRORS, LOGS, more_than=10, priority="p2",
    ),
    Rule(
        "a7d1f6c2-0c4e-4a3b-8f5d-61e0b7c9d242",
        "More than twenty orders refused within five minutes",
        REFUSED_ORDERS, LOGS, more_than=20,
    ),
    Rule(
        "5b9e2d84-71a6-4c0f-b3d8-94f2a1c6e073",
        "More than thirty refused log-ins within five minutes",
        REFUSED_LOG_INS, LOGS, more_than=30, priority="p2",
    ),
    Rule(
        "c48f03b7-2e95-4b61-a0d4-7d3c8e1f5a96",
        "A form without its token",
        FORGED, LOGS, more_than=0,
    ),
)
# fmt: on


def main() -> None:
    """Write the files."""
    for name, text in files().items():
        (HERE / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
