"""The links of alerts get the site's addresses on the way to the host; nothing else changes."""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any

import pytest
import yaml

ROLE = Path(__file__).parents[2] / "roles/prometheus"
join = runpy.run_path(str(ROLE / "filter_plugins/prometheus_rules.py"))["prometheus_rules"]

RULES = """
groups:
  - name: one
    rules:
      - record: job:up:sum
        expr: sum by (job) (up)
      - alert: Down
        expr: up == 0
        annotations:
          summary: "{{ $labels.instance }} is down"
          runbook_url: %s
          dashboard_url: /d/hosts
"""


def annotations(runbook: str, **bases: str) -> dict[str, Any]:
    return yaml.safe_load(join({"/rules/one.yml": RULES % runbook}, **bases))["groups"][0]["rules"][1]["annotations"]


@pytest.mark.parametrize("slash", ["", "/"])
def test_paths_are_completed(slash: str) -> None:
    found = annotations(
        "docs/runbooks/hosts.md#down",
        runbooks=f"https://git.example.com/platform{slash}",
        dashboards=f"https://grafana.example.com:3030{slash}",
    )
    assert found == {
        "summary": "{{ $labels.instance }} is down",
        "runbook_url": "https://git.example.com/platform/docs/runbooks/hosts.md#down",
        "dashboard_url": "https://grafana.example.com:3030/d/hosts",
    }


def test_without_addresses_paths_stay() -> None:
    found = annotations("docs/runbooks/hosts.md#down")
    assert (found["runbook_url"], found["dashboard_url"]) == ("docs/runbooks/hosts.md#down", "/d/hosts")


def test_whole_addresses_of_a_site_stay() -> None:
    found = annotations("https://wiki.example.com/down", runbooks="https://git.example.com")
    assert found["runbook_url"] == "https://wiki.example.com/down"


@pytest.mark.parametrize(
    "rules", ["null", "[text]", "[{alert: A, annotations: text}]", "[{alert: A, annotations: {runbook_url: 3}}]"]
)
def test_what_is_no_rule_is_left_to_the_checker(rules: str) -> None:
    text = f"groups: [{{name: one, rules: {rules}}}]"
    assert yaml.safe_load(join({"/rules/one.yml": text}, runbooks="https://git.example.com")) == yaml.safe_load(text)
