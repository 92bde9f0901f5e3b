"""No alert rule is blind: what it asks for is measured on the running lab."""

from collections.abc import Iterator
from typing import Any

import pytest
import requests

from lab import hosts
from tests.site_client import AUTHORITY_CERTIFICATE

from .conftest import PROMETHEUS, Execute, prometheus_query, wait_until

# Series that a sound lab does not have, by a part of the selector, and why.
NOT_IN_THE_LAB = {
    '__name__="alertmanager_cluster_members"': "one host alone forms no cluster",
    'index=~"app-logs-rejected-.*"': "begins with a line that cannot be read",
    'name="chronyd.service"': "a container has the clock of its machine",
    'wait_event_type="Lock"': "begins with a session that waits for another",
}


@pytest.fixture(scope="module")
def password(secret: dict[str, str]) -> str:
    """Return the operator's password for Prometheus."""
    return secret["vault_prometheus_web_password"]


@pytest.fixture(scope="module")
def maintained(on: Execute, lab_hosts: dict[str, hosts.Host], password: str) -> None:
    """Have the hourly job of Elasticsearch run once, which a young lab has not seen."""
    first = min(name for name, host in lab_hosts.items() if "elasticsearch" in host.groups)
    assert on(first, "systemctl", "start", "elasticsearch-maintenance.service")[0] == 0
    series = "elasticsearch_maintenance_last_run_timestamp_seconds"
    wait_until(lambda: bool(prometheus_query(series, password)), "the job's figures are collected")


def ask(path: str, password: str, **parameters: str) -> Any:  # noqa: ANN401 - the API's answers have many shapes
    """Return the data of an answer of Prometheus."""
    answer = requests.get(
        f"{PROMETHEUS}/api/v1/{path}",
        params=parameters,
        auth=("operator", password),
        verify=AUTHORITY_CERTIFICATE,
        timeout=10,
    )
    answer.raise_for_status()
    return answer.json()["data"]


def selectors(node: Any) -> Iterator[str]:  # noqa: ANN401 - a syntax tree of dictionaries and lists
    """Yield every selector of a parsed expression, as Prometheus writes it."""
    if isinstance(node, list):
        for child in node:
            yield from selectors(child)
    elif isinstance(node, dict):
        if node.get("type") in {"vectorSelector", "matrixSelector"}:
            matchers = [f'{item["name"]}{item["type"]}"{escaped(item["value"])}"' for item in node["matchers"]]
            yield "{" + ",".join(matchers) + "}"
        for child in node.values():
            yield from selectors(child)


def escaped(value: str) -> str:
    """Return a label's value as it stands between quotation marks."""
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


@pytest.mark.usefixtures("maintained")
def test_every_series_that_a_rule_asks_for_is_measured(password: str) -> None:
    rules = [rule for group in ask("rules", password)["groups"] for rule in group["rules"]]
    assert len(rules) > 10
    blind = []
    for rule in rules:
        for selector in set(selectors(ask("parse_query", password, query=rule["query"]))):
            if any(part in selector for part in NOT_IN_THE_LAB):
                continue
            if not prometheus_query(f"count(last_over_time({selector}[1h]))", password):
                blind.append(f"{rule['name']}: no target gives {selector}")
    assert not blind, "\n".join(blind)


def test_every_rule_is_evaluated_without_an_error(password: str) -> None:
    def rules() -> list[dict[str, Any]]:
        return [rule for group in ask("rules", password)["groups"] for rule in group["rules"]]

    # Rules that were just loaded wait for their turn, which comes every two minutes for some.
    wait_until(lambda: all(rule["health"] != "unknown" for rule in rules()), "every rule was evaluated once")
    assert not [f"{rule['name']}: {rule['lastError']}" for rule in rules() if rule.get("lastError")]
    assert {rule["health"] for rule in rules()} == {"ok"}


def test_every_target_answers(password: str) -> None:
    targets = ask("targets", password, state="active")["activeTargets"]
    assert targets
    silent = {target["scrapeUrl"]: target["lastError"] for target in targets if target["health"] != "up"}
    assert not silent
