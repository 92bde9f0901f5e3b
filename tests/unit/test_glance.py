"""What an operator sees first, for figures that are good, bad and missing."""

import io
from pathlib import Path

import pytest
from rich.console import Console

from lab import glance
from reports.prometheus import Prometheus, Series


class Answers(Prometheus):
    """A server that answers from a table."""

    def __init__(self, answers: dict[str, list[Series]]) -> None:
        super().__init__("https://mon1.example.com:9090", "operator", "secret", Path("ca.crt"))
        self.answers = answers

    def query(self, expression: str) -> list[Series]:
        """Return what the table has."""
        return self.answers.get(expression, [])


def value(number: float, **labels: str) -> list[Series]:
    """Return an answer of one sample."""
    return [Series(labels, [(0, number)])]


def shown(prometheus: Prometheus) -> str:
    """Return the table as it stands in a terminal."""
    console = Console(width=120, record=True, file=io.StringIO())
    console.print(glance.table(prometheus))
    return console.export_text()


BY_TITLE = {figure.title: figure for figure in glance.FIGURES}


def test_figures_are_shown_with_their_units() -> None:
    text = shown(
        Answers(
            {
                BY_TITLE["last snapshot of Elasticsearch"].expression: value(7200),
                BY_TITLE["fullest disk, memory or pool"].expression: value(0.4567),
                BY_TITLE["bank instances that answer"].expression: value(3),
            }
        )
    )
    assert "2 h ago" in text
    assert "45.7 %" in text
    assert "not measured yet" in text
    assert "none fires" in text


@pytest.mark.parametrize(
    ("title", "good", "bad"),
    [
        ("hosts that do not answer", 0, 1),
        ("bank instances that answer", 1, 0),
        ("other targets that do not answer", 0, 2),
        ("books out of balance, in minor units", 0, 1),
        ("least error budget left of 30 days", 0.25, 0.2),
        ("last backup of PostgreSQL", 30 * 60, 31 * 60),
        ("last snapshot of Elasticsearch", 25 * 3600, 27 * 3600),
        ("fullest disk, memory or pool", 0.9, 0.91),
    ],
)
def test_a_bad_figure_is_red(title: str, good: float, bad: float) -> None:
    expression = BY_TITLE[title].expression
    assert "red" not in dict(glance.figures(Answers({expression: value(good)})))[title]
    assert dict(glance.figures(Answers({expression: value(bad)})))[title].startswith("[red]")


def test_the_most_urgent_alert_comes_first_with_its_place() -> None:
    alerts = [
        *value(1, alertname="HostCpuHigh", severity="p4", instance="app1"),
        *value(1, alertname="AllApiDown", severity="p1", site="main"),
        *value(1, alertname="HostDiskAlmostFull", severity="p2", instance="db1", mountpoint="/var"),
        *value(1, alertname="SiteAlert"),
    ]
    prometheus = Answers({glance.FIRING: alerts})
    assert glance.firing(prometheus) == [
        ("none", "SiteAlert", ""),
        ("p1", "AllApiDown", ""),
        ("p2", "HostDiskAlmostFull", "db1 /var"),
        ("p4", "HostCpuHigh", "app1"),
    ]
    assert "P2 HostDiskAlmostFull" in shown(prometheus)


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0 s ago"), (119, "119 s ago"), (120, "2 min ago"), (172800, "2 d ago")]
)
def test_age_is_said_in_its_largest_unit(seconds: float, text: str) -> None:
    assert glance.age(seconds) == text
