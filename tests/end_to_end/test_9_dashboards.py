"""No dashboard shows an empty picture for a wrong reason: every question of every panel is asked through Grafana."""

import re
import secrets as random
import threading
from collections.abc import Iterator
from typing import Any

import pytest
import requests

from reports import dashboards
from reports.dashboards import Asker, Board, Choice, Panel
from reports.grafana import Grafana
from tests.content.conftest import PROJECT, read_yaml
from tests.site_client import AUTHORITY_CERTIFICATE, CUSTOMER, Customer

from .conftest import Search, call, prometheus_query, send_cent, wait_until
from .test_8_rules import ask, selectors

GRAFANA = "https://localhost:3030"
BOARDS = dashboards.boards()
# What customers do while the dashboards are asked, and what shows that Prometheus has taken notice of everything.
PAUSE_SECONDS = 2
MEASURED = (
    'sum(rate(bank_logins_total{outcome="failure"}[5m])) > 0',
    "elasticsearch_maintenance_last_run_timestamp_seconds",
    'slo:errors:rate5m{slo="transfers"} / slo:requests:rate5m >= 0',
    "site:bank_request_duration_seconds:p95_5m > 0",
    "site:bank_request_duration_seconds:mean_1m > 0",
    'count(rate(flask_http_request_duration_seconds_count{url_rule="/accounts"}[1m]) > 0) == count(up{job="bank"})',
)
# Lengths of time for what Grafana's server would put in, where Prometheus is asked what it understands.
LENGTHS = {"$__rate_interval": "1m", "$__range": "1h"}
EXPECTED_EMPTY = read_yaml(PROJECT / "files/grafana/expected_empty.yml")


@pytest.fixture(scope="module")
def grafana(secret: dict[str, str]) -> Grafana:
    """Return Grafana as an operator who may look."""
    return Grafana(GRAFANA, "operator", secret["vault_grafana_operator_password"], AUTHORITY_CERTIFICATE)


@pytest.fixture(scope="module", autouse=True)
def _events(
    secret: dict[str, str],
    search: Search,
    token: str,
    accounts: list[dict[str, Any]],
) -> Iterator[None]:
    """Have everything happen that panels tell of, and customers go on while they are asked."""
    password = secret["vault_prometheus_web_password"]
    with Customer() as stranger:
        stranger.log_in(CUSTOMER, "not the password")
    ended = threading.Event()
    with Customer() as session:
        session.log_in(CUSTOMER, secret["vault_bank_demo_password"])
        assert session.page("/staff/audit").status_code == requests.codes.forbidden
        assert call("GET", "/api/v1/accounts").status_code == requests.codes.unauthorized

        def go_on() -> None:
            while not ended.wait(PAUSE_SECONDS):
                session.page("/accounts")
                send_cent(token, accounts, random.token_hex(16))
                search("/app-logs-*/_search", {"size": 0})

        customers = threading.Thread(target=go_on)
        customers.start()
        try:
            for expression in MEASURED:
                wait_until(lambda expression=expression: bool(prometheus_query(expression, password)), expression)
            yield
        finally:
            ended.set()
            customers.join()


def choices(asker: Asker, panel: Panel) -> Iterator[Choice]:
    """Yield everything at "All", then each value of each variable of a panel, the others being at "All"."""
    yield {}
    for name in sorted(dashboards.names_in(panel.targets)):
        for value in asker.values(name):
            yield {name: [value]}


def expected_empty(panel: Panel, letter: str, chosen: Choice) -> dict[str, Any] | None:
    """Return the entry of the list that says why a question may have no answer, if there is one."""
    for entry in EXPECTED_EMPTY:
        is_named = panel.board in entry["dashboards"] and entry["panel"] == panel.title
        is_chosen = bool(chosen) or not entry.get("for_one_value", False)
        if is_named and is_chosen and entry.get("query", letter) == letter:
            return entry
    return None


def selected(panel: Panel, letter: str, chosen: Choice) -> str:
    """Return where a question is and what was chosen."""
    (target,) = [target for target in panel.targets if target["refId"] == letter]
    return f"{panel}, query {letter}, {dict(chosen) or 'all'}: {asked(target)}"


def asked(target: dict[str, Any]) -> str:
    """Return the text of a question."""
    return next(target[key] for key in ("expr", "query", "rawSql") if key in target)


def test_grafana_is_well(grafana: Grafana) -> None:
    assert grafana.health()["database"] == "ok"


@pytest.mark.parametrize("board", BOARDS, ids=lambda board: board.uid)
def test_grafana_has_the_dashboard_of_the_repository(board: Board, grafana: Grafana) -> None:
    found = grafana.document("GET", f"/api/dashboards/uid/{board.uid}")["dashboard"]
    assert found["title"] == board.title
    assert [panel.get("targets") for panel in found["panels"]] == [
        panel.get("targets") for panel in board.source["panels"]
    ]


@pytest.mark.parametrize("board", BOARDS, ids=lambda board: board.uid)
def test_variables_have_values(board: Board, grafana: Grafana) -> None:
    asker = Asker(grafana, board)
    empty = [name for name in board.variables if not asker.values(name)]
    assert not empty


@pytest.mark.parametrize("board", BOARDS, ids=lambda board: board.uid)
def test_every_question_has_an_answer(board: Board, grafana: Grafana) -> None:
    asker = Asker(grafana, board)
    wrong = []
    for panel in board.panels():
        answered = set()
        for chosen in choices(asker, panel):
            for letter, answer in asker.answers(panel, chosen).items():
                where = selected(panel, letter, chosen)
                if answer.error:
                    wrong.append(f"{where}: {answer.error}")
                elif answer.has_data:
                    answered.add(letter)
                elif not expected_empty(panel, letter, chosen):
                    wrong.append(f"{where}: no data")
        stale = [letter for letter in answered if is_stale(expected_empty(panel, letter, {}))]
        wrong += [f"{panel}, query {letter}: has data, so take it off expected_empty.yml" for letter in stale]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("board", BOARDS, ids=lambda board: board.uid)
def test_every_metric_exists(board: Board, secret: dict[str, str]) -> None:
    # A question that says "or 0" has an answer also when nobody has its metric.
    password = secret["vault_prometheus_web_password"]
    unknown = set()
    (annotation,) = board.source["annotations"]["list"]
    marked = dashboards.resolved(annotation["expr"], board, {}, "prometheus")
    assert list(selectors(ask("parse_query", password, query=marked)))
    for panel in board.panels():
        for target in panel.targets:
            if "expr" not in target or expected_empty(panel, target["refId"], {}):
                continue
            expression = dashboards.resolved(target["expr"], board, {}, "prometheus")
            for macro, length in LENGTHS.items():
                expression = expression.replace(macro, length)
            for selector in selectors(ask("parse_query", password, query=expression)):
                (name,) = re.findall(r'__name__="([^"]+)"', selector)
                if not prometheus_query(f'count(last_over_time({{__name__="{name}"}}[1h]))', password):
                    unknown.add(f"{panel}: nobody has {name}")
    assert not unknown, "\n".join(sorted(unknown))


def test_alerts_of_alertmanager_are_there(grafana: Grafana) -> None:
    # Grafana's server answers no question of a panel to it; its pages of alerts read it through the proxy.
    found = grafana.document("GET", "/api/datasources/proxy/uid/alertmanager/api/v2/alerts")
    assert "Watchdog" in {alert["labels"]["alertname"] for alert in found}


def test_database_shows_statistics_and_no_table_of_the_bank(grafana: Grafana) -> None:
    (board,) = [board for board in BOARDS if board.uid == "postgresql"]
    panel = next(panel for panel in board.panels() if "rawSql" in panel.targets[0])
    asker = Asker(grafana, board)
    for statement, is_refused in (("select 1 as one", False), ("select email as name from users", True)):
        target = panel.targets[0] | {"rawSql": statement}
        answer = asker.answers(Panel(board.uid, panel.source | {"targets": [target]}, ""))["A"]
        assert bool(answer.error) == is_refused
        assert answer.has_data != is_refused


def is_stale(entry: dict[str, Any] | None) -> bool:
    """Return whether an entry says of what has data that it has none."""
    return entry is not None and not entry.get("may_have_data", False)


def test_a_wrong_question_would_be_found(grafana: Grafana) -> None:
    (board,) = [board for board in BOARDS if board.uid == "hosts"]
    panel = next(board.panels())
    asker = Asker(grafana, board)
    for expression, is_error in (("a_metric_that_nobody_has", False), ("sum(", True)):
        target = panel.targets[0] | {"expr": expression}
        answer = asker.answers(Panel(board.uid, panel.source | {"targets": [target]}, ""))["A"]
        assert bool(answer.error) == is_error
        assert not answer.has_data
