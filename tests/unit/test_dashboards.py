"""Dashboards are asked as Grafana's pages ask them, and drawn with units, limits and words for what is missing."""

from __future__ import annotations

import json
import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from reports import preview
from reports.dashboards import Asker, Board, Panel, boards, names_in, resolved
from reports.drawing import drawn
from reports.grafana import Answer, Field, Grafana, GrafanaError
from reports.units import shown

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)


def variable(name: str, query: object, kind: str = "prometheus") -> dict[str, Any]:
    """Return a variable as a dashboard's file has it."""
    everything = ".*" if kind == "prometheus" else "*"
    return {"name": name, "query": query, "allValue": everything, "datasource": {"type": kind, "uid": kind}}


BOARD = Board(
    {
        "uid": "hosts",
        "title": "Hosts",
        "description": "All of them.",
        "time": {"from": "now-3h", "to": "now"},
        "templating": {
            "list": [
                variable("site", {"query": "label_values(up, site)"}),
                variable("instance", {"query": 'label_values(up{site=~"$site"}, instance)'}),
                variable("host", '{"find": "terms", "field": "host.name"}', "elasticsearch"),
            ]
        },
        "panels": [],
    }
)


def panel(kind: str = "stat", **more: Any) -> Panel:  # noqa: ANN401 - parts of a JSON document
    """Return a panel with limits at 0.8 and 0.9."""
    steps = [{"value": None, "color": "green"}, {"value": 0.8, "color": "orange"}, {"value": 0.9, "color": "red"}]
    defaults = {"unit": "percentunit", "noValue": "Nothing yet.", "thresholds": {"steps": steps}}
    source = {
        "type": kind,
        "title": "Use <b>",
        "fieldConfig": {"defaults": defaults, "overrides": []},
        "options": {"colorMode": "background_solid", "reduceOptions": {"calcs": ["lastNotNull"]}},
        "gridPos": {"x": 0, "y": 0, "w": 8, "h": 8},
        "targets": [{"refId": "A", "expr": 'up{site=~"$site"}', "datasource": {"type": "prometheus", "uid": "p"}}],
    }
    return Panel("hosts", source | more, "")


def frame(*values: float | None, **labels: str) -> list[Field]:
    """Return a series with a value for each minute."""
    times = [(NOW + timedelta(minutes=number)).timestamp() * 1000 for number in range(len(values))]
    return [Field("Time", "time", {}, times), Field("Value", "number", labels, list(values))]


class Recorded(Grafana):
    """A server that notes what it is asked, and gives the same answer to everything."""

    def __init__(self, answer: Answer) -> None:
        super().__init__("https://mon1.example.com:3030", "operator", "secret", Path("ca.crt"))
        self.answer = answer
        self.asked: list[dict[str, Any]] = []

    def ask(self, targets: list[dict[str, Any]], start: datetime, end: datetime) -> dict[str, Answer]:
        """Return the answer for every question."""
        assert end - start == timedelta(hours=3)
        self.asked += targets
        return {target["refId"]: self.answer for target in targets}


@pytest.mark.parametrize(
    ("text", "chosen", "expected"),
    [
        ('up{site=~"$site"}', {}, 'up{site=~".*"}'),
        ('up{site=~"$site"}', {"site": ["lab"]}, 'up{site=~"lab"}'),
        ('up{site=~"${site}"}', {"site": ["a", "b"]}, 'up{site=~"(a|b)"}'),
        ('up{site=~"$site"}', {"site": ["a.b"]}, 'up{site=~"a\\\\.b"}'),
        ('up{site=~"${site:pipe}"}', {"site": ["a", "b"]}, 'up{site=~"a|b"}'),
        ("rate(x[$__rate_interval]) / ${__range}", {}, "rate(x[$__rate_interval]) / ${__range}"),
        ('label_replace(x, "a", "$1", "b", "c")', {}, 'label_replace(x, "a", "$1", "b", "c")'),
    ],
)
def test_choices_stand_in_a_question_as_grafana_writes_them(text: str, chosen: dict, expected: str) -> None:
    assert resolved(text, BOARD, chosen, "prometheus") == expected


def test_choices_stand_in_a_query_of_lines() -> None:
    query = "host.name:$host"
    assert resolved(query, BOARD, {}, "elasticsearch") == "host.name:*"
    assert resolved(query, BOARD, {"host": ["db1"]}, "elasticsearch") == 'host.name:"db1"'
    assert resolved(query, BOARD, {"host": ['a"b', "c"]}, "elasticsearch") == 'host.name:("a\\"b" OR "c")'


def test_an_unknown_variable_is_named() -> None:
    assert names_in({"expr": '$site ${instance:regex} $__range "$1"'}) == {"site", "instance"}
    with pytest.raises(ValueError, match="hosts has no variable stie"):
        resolved("$stie", BOARD, {}, "prometheus")
    with pytest.raises(ValueError, match="unknown format json"):
        resolved("${site:json}", BOARD, {"site": ["a"]}, "prometheus")


def test_values_of_a_variable_are_asked_for() -> None:
    grafana = Recorded(Answer([frame(1, instance="db1"), frame(1, instance="app1"), frame(1)]))
    assert Asker(grafana, BOARD, NOW).values("instance") == ["app1", "db1"]
    assert grafana.asked[0]["expr"] == 'group by (instance) (up{site=~".*"})'
    terms = [[Field("host.name", "string", {}, ["lb1"]), Field("Count", "number", {}, [7])]]
    grafana = Recorded(Answer(terms))
    assert Asker(grafana, BOARD, NOW).values("host") == ["lb1"]
    assert grafana.asked[0]["bucketAggs"][0]["field"] == "host.name"
    with pytest.raises(GrafanaError, match="hosts, variable site: broken"):
        Asker(Recorded(Answer([], "broken")), BOARD, NOW).values("site")


@pytest.mark.parametrize(
    ("answer", "has_data"),
    [
        (Answer([]), False),
        (Answer([frame()]), False),
        (Answer([frame(None, float("nan"))]), False),
        (Answer([frame(None, 0)]), True),
        (Answer([[Field("@timestamp", "time", {}, []), Field("line", "string", {}, [])]]), False),
        (Answer([[Field("@timestamp", "time", {}, [1]), Field("line", "string", {}, ["text"])]]), True),
    ],
)
def test_no_number_is_no_data(answer: Answer, has_data: bool) -> None:
    assert answer.has_data == has_data


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (0.1234, "percentunit", "12.3 %"), (1, "percentunit", "100 %"), (0.6 + 1e-16, "percentunit", "60 %"),
        (0.00012, "percentunit", "0.01 %"),
        (90, "s", "1.50 min"), (0.0042, "s", "4.20 ms"), (0, "s", "0 s"), (-7200, "s", "-2 h"),
        (3 * 2**30, "bytes", "3 GiB"), (512, "bytes", "512 B"), (2048, "binBps", "2 KiB/s"),
        (1234567, "short", "1.23 M"), (12.345, "reqps", "12.3 req/s"), (float("inf"), "short", "–"),
    ],
)  # fmt: skip
def test_numbers_are_shown_with_their_unit(value: float, unit: str, text: str) -> None:
    assert shown(value, unit) == text


def test_a_unit_that_nobody_knows_is_named() -> None:
    with pytest.raises(ValueError, match="unknown unit furlong"):
        shown(1, "furlong")


def test_figures_have_the_colour_of_their_step_and_names_are_escaped() -> None:
    answers = {"A": Answer([frame(0.5, 0.95, instance="<i>"), frame(0.1, 0.85, instance="db1")])}
    text = drawn(panel(), answers)
    assert "95 %" in text
    assert "85 %" in text
    assert text.index("#c4162a") < text.index("#fa6400")
    assert "&lt;i&gt;" in text
    assert "<i>" not in text


def test_a_meaning_stands_for_its_value() -> None:
    source = panel().source
    options = {"1": {"text": "up", "color": "green"}}
    source["fieldConfig"]["defaults"]["mappings"] = [{"type": "value", "options": options}]
    assert ">up</div>" in drawn(Panel("hosts", source, ""), {"A": Answer([frame(1)])})


def test_lines_have_limits_and_a_legend() -> None:
    custom = {"thresholdsStyle": {"mode": "dashed"}, "stacking": {"mode": "none"}}
    source = panel("timeseries").source
    source["fieldConfig"]["defaults"]["custom"] = custom
    text = drawn(Panel("hosts", source, ""), {"A": Answer([frame(0.1, 0.95, 0.4, instance="db1")])})
    assert text.count("<svg") == 1
    assert "stroke: #fa6400" in text
    assert "<b>40 %</b><em>95 %</em>" in text


def test_tables_join_their_questions_and_put_the_worst_first() -> None:
    options = {"renameByName": {"instance": "Host", "Value #A": "Disk", "Value #B": "Memory"}}
    options["indexByName"] = {"instance": 0, "Value #A": 1, "Value #B": 2}
    organised = [{"id": "merge"}, {"id": "organize", "options": options}]
    source = panel(
        "table", transformations=organised, options={"sortBy": [{"displayName": "Disk", "desc": True}]}
    ).source
    override = {"matcher": {"options": "Disk"}, "properties": [{"id": "unit", "value": "percentunit"}]}
    source["fieldConfig"]["overrides"] = [override]
    answers = {
        "A": Answer([frame(0.2, instance="db1"), frame(0.7, instance="app1")]),
        "B": Answer([frame(3, instance="db1")]),
    }
    text = drawn(Panel("hosts", source, ""), answers)
    assert text.startswith('<table><tr><th>Host</th><th class="number">Disk</th><th class="number">Memory</th></tr>')
    assert text.index("app1") < text.index("70 %") < text.index("db1") < text.index("20 %") < text.index(">3<")


def test_the_most_urgent_alert_stands_first() -> None:
    options = {"renameByName": {"severity": "Severity", "Value": "For"}, "indexByName": {"severity": 0, "Value": 1}}
    organised = [{"id": "organize", "options": options}]
    sort = {"displayName": "Severity", "desc": False}
    source = panel("table", transformations=organised, options={"sortBy": [sort]}).source
    source["fieldConfig"]["overrides"] = []
    answers = {"A": Answer([frame(9, severity="p4"), frame(1, severity="p1"), frame(5, severity="p2")])}
    text = drawn(Panel("overview", source, ""), answers)
    assert text.index("p1") < text.index("p2") < text.index("p4")


def test_nothing_and_errors_are_said_in_words() -> None:
    assert ">Nothing yet.<" in drawn(panel(), {"A": Answer([])})
    assert ">parse error<" in drawn(panel(), {"A": Answer([], "parse error")})


def test_pages_are_written_for_every_dashboard(tmp_path: Path) -> None:
    class Anything(Recorded):
        def ask(self, targets: list[dict[str, Any]], start: datetime, end: datetime) -> dict[str, Answer]:
            """Return a number for everything that asks for numbers."""
            lines = [[Field("@timestamp", "time", {}, [0]), Field("line", "string", {}, ["text"])]]
            is_logs = any(metric["type"] == "logs" for target in targets for metric in target.get("metrics", []))
            return {target["refId"]: Answer(lines if is_logs else [frame(0, 1)]) for target in targets}

    line = preview.write(Anything(Answer([])), tmp_path / "pages")
    assert line.endswith("0 without data, 0 with an error")
    written = {path.stem for path in (tmp_path / "pages").glob("*.html")}
    assert written == {board.uid for board in boards()} | {"index"}
    assert "<h2>Saturation: what waits</h2>" in (tmp_path / "pages/hosts.html").read_text(encoding="utf-8")


def test_an_answer_that_is_an_error_leaves_no_file(tmp_path: Path) -> None:
    with pytest.raises(GrafanaError, match=r"does not answer .*grafana-server\.service"):
        preview.write(Grafana("http://127.0.0.1:1", "operator", "secret", Path("ca.crt")), tmp_path / "pages")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("code", "body", "sentence"),
    [
        (401, {}, "refuses the user or the password"),
        (403, {"message": "Permission denied"}, "refuses the question: Permission denied"),
    ],
)
def test_a_refusal_is_named(server: tuple[str, dict], code: int, body: dict, sentence: str) -> None:
    url, given = server
    given["answer"] = (code, json.dumps(body))
    authority = Path(ssl.get_default_verify_paths().cafile or "")
    with pytest.raises(GrafanaError, match=sentence):
        Grafana(url, "operator", "secret", authority).ask([], NOW, NOW)
