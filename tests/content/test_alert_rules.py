"""Every alert tells how urgent it is, what happened and what to do, and is shown both firing and silent."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from tests.content.conftest import PROJECT, ROLES, read_yaml

RULES = PROJECT / "files/prometheus/rules"
TESTS = PROJECT / "files/prometheus/tests"
RUNBOOKS = PROJECT / "docs/runbooks"
SEVERITIES = {"p1", "p2", "p3", "p4"}
# Names of Grafana's dashboards, as their addresses hold them.
DASHBOARDS = {path.stem for path in (PROJECT / "files/grafana/dashboards").glob("*.json")}
# It exists to fire always.
NEVER_SILENT = {"Watchdog"}
# Beside the alerts, every runbook of a family has these parts, and every alert those.
FAMILY_PARTS = ["Impact", "Escalation", "Afterwards"]
ALERT_PARTS = ["Symptom", "Checks", "Actions", "Verification"]
# Runbooks that are not of a family of alerts.
GUIDES = {"README.md", "post-mortem-template.md"}


@dataclass(frozen=True)
class Alert:
    """One alerting rule; several rules may share a name and differ in severity."""

    family: str
    rule: dict[str, Any]

    @property
    def name(self) -> str:
        """Return the alert's name."""
        return self.rule["alert"]

    @property
    def severity(self) -> str:
        """Return how urgent it is, or nothing."""
        return self.rule.get("labels", {}).get("severity", "")

    def __str__(self) -> str:
        """Return what a test's name says of it."""
        return f"{self.family}-{self.name}-{self.severity}"


def alerts() -> list[Alert]:
    """Return the alerts of all rule files."""
    return [
        Alert(path.stem, rule)
        for path in sorted(RULES.glob("*.yml"))
        for group in read_yaml(path)["groups"]
        for rule in group["rules"]
        if "alert" in rule
    ]


def unit_tests() -> list[dict[str, Any]]:
    """Return every question of the unit tests: what of this name fires at this time."""
    return [
        question
        for path in sorted(TESTS.glob("*.yml"))
        for case in read_yaml(path)["tests"]
        for question in case.get("alert_rule_test", [])
    ]


def headings(family: str) -> list[str]:
    """Return the second-level headings of a family's runbook."""
    path = RUNBOOKS / f"{family}.md"
    return re.findall(r"^## (.+)$", path.read_text(encoding="utf-8"), re.MULTILINE) if path.is_file() else []


def section(family: str, heading: str) -> str:
    """Return the text below a second-level heading."""
    text = (RUNBOOKS / f"{family}.md").read_text(encoding="utf-8")
    return text.split(f"\n## {heading}\n", 1)[1].split("\n## ", 1)[0]


ALERTS = alerts()
UNIT_TESTS = unit_tests()
FAMILIES = sorted({alert.family for alert in ALERTS})


def test_there_are_alerts() -> None:
    assert len(ALERTS) >= 60
    # What the platform was asked to have, by these names.
    asked = {
        "AllApiDown",
        "ApiErrorRateHigh",
        "ApiCapacityReduced",
        "ApiInstanceDown",
        "HaproxyExporterDown",
        "HighErrorRate",
    }
    assert asked <= {alert.name for alert in ALERTS}


@pytest.mark.parametrize("alert", ALERTS, ids=str)
def test_alert_is_complete(alert: Alert) -> None:
    assert alert.severity in SEVERITIES, f"{alert.name} has no severity of {sorted(SEVERITIES)}"
    annotations = alert.rule.get("annotations", {})
    assert set(annotations) == {"summary", "description", "runbook_url", "dashboard_url"}, alert.name
    assert annotations["summary"].strip(), alert.name
    assert "$value" in annotations["description"], f"the description of {alert.name} does not tell the value"
    expected = f"docs/runbooks/{alert.family}.md#{alert.name.lower()}"
    assert annotations["runbook_url"] == expected, f"{alert.name} should link {expected}"
    assert annotations["dashboard_url"].removeprefix("/d/") in DASHBOARDS, (
        f"{alert.name} links a dashboard that does not exist"
    )


@pytest.mark.parametrize("alert", ALERTS, ids=str)
def test_alert_is_shown_firing_and_silent(alert: Alert) -> None:
    asked = [question["exp_alerts"] for question in UNIT_TESTS if question["alertname"] == alert.name]
    fired = [alert.severity in {found["exp_labels"]["severity"] for found in expected} for expected in asked]
    assert any(fired), f"no unit test in {TESTS.relative_to(PROJECT)} shows {alert.name} ({alert.severity}) firing"
    if alert.name not in NEVER_SILENT:
        assert not all(fired), (
            f"no unit test in {TESTS.relative_to(PROJECT)} shows {alert.name} ({alert.severity}) silent"
        )


@pytest.mark.parametrize("alert", ALERTS, ids=str)
def test_runbook_tells_what_to_do(alert: Alert) -> None:
    assert alert.name in headings(alert.family), f"docs/runbooks/{alert.family}.md has no heading ## {alert.name}"
    found = re.findall(r"^\*\*(\w+)\*\*", section(alert.family, alert.name), re.MULTILINE)
    assert found == ALERT_PARTS, f"{alert.name}: a runbook has the parts {ALERT_PARTS}, this one {found}"


@pytest.mark.parametrize("family", FAMILIES)
def test_runbook_names_no_other_alert(family: str) -> None:
    names = list(dict.fromkeys(alert.name for alert in ALERTS if alert.family == family))
    assert headings(family) == [FAMILY_PARTS[0], *names, *FAMILY_PARTS[1:]], f"docs/runbooks/{family}.md"
    for part in FAMILY_PARTS:
        assert section(family, part).strip(), f"docs/runbooks/{family}.md says nothing under {part}"


def test_every_runbook_belongs_to_a_family() -> None:
    assert {path.name for path in RUNBOOKS.glob("*.md")} == GUIDES | {f"{family}.md" for family in FAMILIES}
    guide = (RUNBOOKS / "README.md").read_text(encoding="utf-8")
    missing = [family for family in FAMILIES if f"({family}.md)" not in guide]
    assert not missing, f"docs/runbooks/README.md does not link {missing}"


def test_every_rule_file_has_unit_tests_that_are_run() -> None:
    tested = {name.removeprefix("../rules/") for path in TESTS.glob("*.yml") for name in read_yaml(path)["rule_files"]}
    assert tested == {path.name for path in RULES.glob("*.yml")}


def test_alertmanager_silences_alerts_that_exist() -> None:
    text = (PROJECT / "roles/alertmanager/templates/alertmanager.yml.j2").read_text(encoding="utf-8")
    named = {name for names in re.findall(r'alertname=~?"([\w|]+)"', text) for name in names.split("|")}
    assert len(named) >= 10
    assert named <= {alert.name for alert in ALERTS}


@cache
def recorded_series() -> set[str]:
    """Return the names that recording rules give."""
    groups = [group for path in RULES.glob("*.yml") for group in read_yaml(path)["groups"]]
    return {rule["record"] for group in groups for rule in group["rules"] if "record" in rule}


@cache
def settings() -> set[str]:
    """Return the variables of all roles."""
    specifications = [read_yaml(PROJECT / "roles" / role / "meta/argument_specs.yml") for role in ROLES]
    entries = [entry for specification in specifications for entry in specification["argument_specs"].values()]
    return {name for entry in entries for name in entry.get("options") or {}}


@pytest.mark.parametrize("path", sorted(RUNBOOKS.glob("*.md")), ids=lambda path: path.stem)
def test_what_a_runbook_names_exists(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    playbooks = set(re.findall(r"\b(?:playbooks/\w+\.yml|site\.yml)\b", text))
    assert not [name for name in playbooks if not (PROJECT / name).is_file()]
    assert set(re.findall(r"\b(?:site|instance|slo):[\w:]+", text)) <= recorded_series()
    # Metrics may begin like a role, too; those that the alerts read are known.
    metrics = set(re.findall(r"\w+", " ".join(str(alert.rule["expr"]) for alert in ALERTS)))
    unknown = set(re.findall(rf"`((?:{'|'.join(ROLES)})_[a-z_]+)`", text)) - settings() - metrics
    assert not unknown, f"{path.name} names what no role and no alert has: {unknown}"


@pytest.mark.parametrize("path", sorted(RUNBOOKS.glob("*.md")), ids=lambda path: path.stem)
def test_links_of_runbooks_lead_somewhere(path: Path) -> None:
    for link in re.findall(r"\]\(([^)]+)\)", path.read_text(encoding="utf-8")):
        target, _, anchor = link.partition("#")
        found = (path.parent / target).resolve() if target else path
        assert found.is_file(), f"{path.name} links {link}"
        titles = re.findall(r"^#+ (.+)$", found.read_text(encoding="utf-8"), re.MULTILINE)
        assert not anchor or anchor in {title.lower() for title in titles}, f"{path.name} links {link}"
