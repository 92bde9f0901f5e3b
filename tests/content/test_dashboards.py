"""Dashboards are what their generator writes, and say what they show, in which unit, and what an empty panel means."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from files.grafana import generate, limits
from reports import dashboards
from reports.dashboards import Board, Panel
from reports.drawing import COLOURS, DRAWN
from reports.units import shown
from tests.content.conftest import PROJECT, read_yaml
from tests.content.test_alert_rules import recorded_series
from tests.content.test_kibana import ALLOWED, asked, types_of

FOLDER = PROJECT / "files/grafana/dashboards"
EXPECTED_EMPTY = PROJECT / "files/grafana/expected_empty.yml"
# What the role gives the data sources: their kinds by their names.
SOURCES = {"prometheus": "prometheus", "elasticsearch-logs": "elasticsearch", "postgresql": "postgres"}
# What statements in SQL may be about.
STATISTICS = {"pg_index", "pg_stat_activity", "pg_stat_user_indexes", "pg_stat_user_tables"}
INDICES = "app-logs-*"
BOARDS = dashboards.boards(FOLDER)
PANELS = [panel for board in BOARDS for panel in board.panels()]
QUESTIONS = [(panel, target) for panel in PANELS for target in panel.targets]
# Names of metrics and functions; what is between quotation marks or in the brackets of a time is neither.
NAME = re.compile(r"(?<![\w:$])[a-zA-Z_:][\w:]*")
OWN_METRICS = (PROJECT / "app/src/bank/metrics.py").read_text(encoding="utf-8")
SUFFIX = re.compile(r"_(bucket|count|sum)$")


def names(expression: str) -> set[str]:
    """Return the names in an expression, the texts between quotation marks left out."""
    return set(NAME.findall(re.sub(r'"(?:[^"\\]|\\.)*"', '""', expression)))


def of_prometheus() -> list[tuple[Panel, str]]:
    """Return every expression in PromQL."""
    return [(panel, target["expr"]) for panel, target in QUESTIONS if "expr" in target]


def of_elasticsearch() -> list[tuple[Panel, dict[str, Any]]]:
    """Return every question about log lines."""
    return [(panel, target) for panel, target in QUESTIONS if "bucketAggs" in target]


def test_files_are_what_the_generator_writes() -> None:
    written = {path.name: path.read_text(encoding="utf-8") for path in FOLDER.iterdir()}
    assert set(written) == set(generate.files()), "python -m files.grafana.generate"
    changed = [name for name, text in generate.files().items() if written[name] != text]
    assert not changed, "python -m files.grafana.generate"


def test_alerts_link_the_dashboards_that_there_are() -> None:
    linked = {rule["annotations"]["dashboard_url"].removeprefix("/d/") for rule in limits.alerts()}
    uids = [board.uid for board in BOARDS]
    assert len(uids) == len(set(uids)) == len({board.title for board in BOARDS})
    assert linked <= set(uids)
    # It shows what no alert is about: how it goes on.
    assert set(uids) - linked == {"capacity"}
    assert {board.source["uid"] for board in BOARDS} == {path.stem for path in FOLDER.iterdir()}


def test_panels_do_not_overlap() -> None:
    for board in BOARDS:
        taken: set[tuple[int, int]] = set()
        numbers = [entry["id"] for entry in board.source["panels"]]
        assert len(numbers) == len(set(numbers)), board.uid
        for entry in board.source["panels"]:
            grid = entry["gridPos"]
            across = range(grid["x"], grid["x"] + grid["w"])
            cells = {(x, y) for x in across for y in range(grid["y"], grid["y"] + grid["h"])}
            assert cells, (board.uid, entry["title"])
            assert not cells & taken, (board.uid, entry["title"])
            assert across.stop <= 24, (board.uid, entry["title"])
            taken |= cells


@pytest.mark.parametrize("panel", PANELS, ids=str)
def test_panel_says_what_it_shows(panel: Panel) -> None:
    defaults = panel.source["fieldConfig"]["defaults"]
    assert panel.title.strip()
    assert panel.source["description"].strip().endswith((".", "?", ")")), "a description is a sentence"
    assert defaults["noValue"].strip()
    assert panel.source["type"] in DRAWN
    assert panel.targets
    assert [target["refId"] for target in panel.targets] == [chr(65 + number) for number in range(len(panel.targets))]
    for properties in (defaults, *column_properties(panel)):
        # Raises where a unit is unknown.
        assert shown(1, properties.get("unit", "short"))
        steps = (properties.get("thresholds") or {"steps": []})["steps"]
        values = [step["value"] for step in steps]
        assert values[:1] in ([None], [])
        assert values[1:] == sorted(set(values[1:]))
        assert {step["color"] for step in steps} <= COLOURS.keys()


def column_properties(panel: Panel) -> list[dict[str, Any]]:
    """Return what is set for single columns."""
    overrides = panel.source["fieldConfig"]["overrides"]
    return [{entry["id"]: entry.get("value") for entry in override["properties"]} for override in overrides]


@pytest.mark.parametrize("panel", PANELS, ids=str)
def test_panel_asks_one_known_source(panel: Panel) -> None:
    sources = {(target["datasource"]["uid"], target["datasource"]["type"]) for target in panel.targets}
    assert sources == {(panel.source["datasource"]["uid"], panel.source["datasource"]["type"])}
    assert sources <= set(SOURCES.items())


@pytest.mark.parametrize("board", BOARDS, ids=lambda board: board.uid)
def test_variables_are_used_and_used_ones_exist(board: Board) -> None:
    used = dashboards.names_in(board.source["panels"]) | dashboards.names_in(board.source["annotations"])
    used |= {name for variable in board.variables.values() for name in dashboards.names_in(variable["query"])}
    assert used == board.variables.keys()
    for name, variable in board.variables.items():
        assert variable["includeAll"], name
        assert variable["allValue"], name
        assert variable["datasource"]["uid"] in SOURCES, name


def test_panels_of_one_title_are_in_different_places() -> None:
    # The list of panels that may be empty names them by dashboard and title.
    for board in BOARDS:
        titles = [(panel.title, panel.source["type"]) for panel in board.panels()]
        assert len(titles) == len(set(titles)), board.uid


@pytest.mark.parametrize(("panel", "expression"), of_prometheus(), ids=str)
def test_expression_is_whole_and_names_what_the_project_records(panel: Panel, expression: str) -> None:
    for opened, closed in ("()", "{}", "[]"):
        bare = re.sub(r'"(?:[^"\\]|\\.)*"', "", expression)
        assert bare.count(opened) == bare.count(closed), expression
    assert expression.count('"') % 2 == 0, expression
    found = names(expression)
    assert {name for name in found if ":" in name} <= recorded_series(), expression
    for name in found:
        if name.startswith(("bank_", "flask_")) and name not in dashboards_labels(expression):
            assert f'"{name}"' in OWN_METRICS or f'"{SUFFIX.sub("", name)}"' in OWN_METRICS, name


def dashboards_labels(expression: str) -> set[str]:
    """Return the words of an expression that are labels of matchers."""
    return set(re.findall(r"(\w+)\s*(?:=~|!~|!=|=)\s*\"", expression))


def test_windows_of_rates_follow_the_time_shown() -> None:
    # A rate over a fixed length is a figure that an alert or a title names; the others follow the zoom.
    for panel, expression in of_prometheus():
        windows = set(re.findall(r"\[([^\]]+)\]", re.sub(r'"[^"]*"', "", expression)))
        assert windows <= {"$__rate_interval", "$__range", "5m", "10m", "15m", "30m", "1h", "6h", "2d"}, str(panel)


@pytest.mark.parametrize(("panel", "target"), of_elasticsearch(), ids=str)
def test_fields_of_log_lines_exist(panel: Panel, target: dict[str, Any]) -> None:
    types = types_of(INDICES)
    assert asked(target["query"]) <= types.keys(), target["query"]
    assert asked(target["query"])
    assert target["timeField"] == "@timestamp"
    for aggregation in target["bucketAggs"]:
        assert types.get(aggregation["field"]) in ALLOWED[aggregation["type"]], aggregation["field"]
    for metric in target["metrics"]:
        assert "field" not in metric or types.get(metric["field"]) in ALLOWED["sum"], metric
    for variable in ("host", "dataset"):
        query = generate_variable(panel.board, variable)
        assert not query or types.get(json.loads(query)["field"]) in ALLOWED["terms"]


def generate_variable(uid: str, name: str) -> str:
    """Return the question of a variable, or nothing where the dashboard has none of that name."""
    (board,) = [board for board in BOARDS if board.uid == uid]
    return board.variables[name]["query"] if name in board.variables else ""


def test_columns_of_tables_are_labels_or_figures_of_their_questions() -> None:
    for panel in PANELS:
        if panel.source["type"] != "table":
            continue
        (organised,) = [entry for entry in panel.source["transformations"] if entry["id"] == "organize"]
        known = set()
        for target in panel.targets:
            known |= {"Value", f"Value #{target['refId']}", "Count", "Sum"}
            if "expr" in target:
                grouped = re.findall(r"\bby \(([^)]*)\)", target["expr"])
                known |= {label.strip() for labels in grouped for label in labels.split(",")}
            elif "rawSql" in target:
                named = re.findall(r"\bas (\w+)", target["rawSql"])
                assert set(organised["options"]["renameByName"]) == set(named), str(panel)
                known |= set(named)
            else:
                known |= {aggregation["field"] for aggregation in target["bucketAggs"]}
        assert set(organised["options"]["renameByName"]) <= known, str(panel)


def test_statements_read_statistics_only() -> None:
    # The user of the data source may read nothing else, and texts of statements may be about customers.
    statements = [target["rawSql"] for _, target in QUESTIONS if "rawSql" in target]
    assert statements
    for statement in statements:
        assert statement.startswith("select "), statement
        assert set(re.findall(r"\b(?:from|join) (?!now\b)(\w+)", statement)) <= STATISTICS, statement
        assert not re.search(r"\bquery\b|;|\$", statement), statement


@pytest.mark.parametrize("board", BOARDS, ids=lambda board: board.uid)
def test_links_lead_somewhere(board: Board) -> None:
    links = board.source["links"]
    assert any(link["type"] == "dashboards" and link["tags"] == board.source["tags"] for link in links)
    runbooks = [link["url"] for link in links if link["type"] == "link"]
    assert runbooks
    for url in runbooks:
        assert (PROJECT / url).is_file(), url
    for panel in board.panels():
        for link in panel.source["fieldConfig"]["defaults"].get("links", []):
            uid = link["url"].removeprefix("/d/").partition("?")[0]
            assert uid in {other.uid for other in BOARDS}, str(panel)


@pytest.mark.parametrize("board", BOARDS, ids=lambda board: board.uid)
def test_what_is_wrong_is_at_the_top(board: Board) -> None:
    (wrong,) = [panel for panel in board.panels() if panel.title == "What is wrong now"]
    assert wrong.source["gridPos"]["y"] <= 5
    (annotation,) = board.source["annotations"]["list"]
    for expression in (annotation["expr"], wrong.targets[0]["expr"]):
        named = re.findall(r'alertname=~"([^"]*)"', expression)
        alerts = {name for group in named for name in group.split("|")}
        assert alerts <= {rule["alert"] for rule in limits.alerts()}
        assert alerts or 'alertname!="Watchdog"' in expression


def test_limits_are_those_of_the_rules() -> None:
    assert limits.CPU == ((None, "green"), (0.8, "orange"))
    assert limits.MEMORY == ((None, "green"), (0.85, "orange"), (0.9, "red"))
    assert limits.DISK == ((None, "green"), (0.9, "red"))
    assert limits.ERRORS == ((None, "green"), (0.02, "orange"), (0.05, "red"))
    assert limits.P95 == ((None, "green"), (0.8, "orange"), (1, "red"))
    assert limits.MEAN == ((None, "green"), (0.5, "yellow"))
    assert limits.CERTIFICATE == ((None, "red"), (7 * 86400, "orange"), (20 * 86400, "green"))
    assert [value for value, _ in limits.BURN] == [None, 1, 3, 6, 14.4]
    with pytest.raises(ValueError, match="no rule of name HostCpuHihg"):
        limits.of_alert("HostCpuHihg")
    with pytest.raises(ValueError, match="no number to compare with"):
        limits.comparison("up == 0")


def test_panels_that_may_be_empty_exist() -> None:
    known = {(panel.board, panel.title, target["refId"]) for panel, target in QUESTIONS}
    for entry in read_yaml(EXPECTED_EMPTY):
        assert set(entry) - {"query", "may_have_data", "for_one_value"} == {"dashboards", "panel", "reason"}, entry
        assert entry["reason"].strip().endswith("."), entry
        for uid in entry["dashboards"]:
            named = {place for place in known if place[:2] == (uid, entry["panel"])}
            assert any(entry.get("query", letter) == letter for _, _, letter in named), (uid, entry["panel"])


def test_lists_of_alerts_begin_with_the_most_urgent() -> None:
    lists = [panel for panel in PANELS if panel.source["title"].startswith("What is wrong")]
    assert lists
    for panel in lists:
        assert panel.source["options"]["sortBy"] == [{"desc": False, "displayName": "Severity"}], panel.board
