"""From where on a figure is bad, read from the alert rules, so that no dashboard contradicts an alert."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from grafana_foundation_sdk.builders import dashboard as builders
from grafana_foundation_sdk.models.dashboard import Threshold, ThresholdsMode

RULES = Path(__file__).parents[1] / "prometheus/rules"
GOOD, NOTICE, WARNING, BAD, WORST = "green", "yellow", "orange", "red", "dark-red"
COLOURS = {"p4": NOTICE, "p3": WARNING, "p2": BAD, "p1": WORST}
NEUTRAL = "blue"
# A comparison with a number that is not 0, which may be a product.
COMPARED = re.compile(r"([<>])=?\s*((?:\d[\d.e]*)(?:\s*\*\s*\d[\d.e]*)*)(?![\w.:])")

# Where a step begins, and its colour; the first begins nowhere.
Steps = tuple[tuple[float | None, str], ...]


@cache
def alerts() -> list[dict[str, Any]]:
    """Return every alert rule of the platform."""
    found = []
    for path in sorted(RULES.glob("*.yml")):
        for group in yaml.safe_load(path.read_text(encoding="utf-8"))["groups"]:
            found += [rule for rule in group["rules"] if "alert" in rule]
    return found


def names_of(uid: str) -> list[str]:
    """Return the names of the alerts that link a dashboard."""
    return sorted({rule["alert"] for rule in alerts() if rule["annotations"]["dashboard_url"] == f"/d/{uid}"})


def comparison(expression: str) -> tuple[str, float]:
    """Return the first number other than 0 that a rule compares with, and whether more (>) or less (<) is bad.

    Raises:
        ValueError: there is none.
    """
    for sign, product in COMPARED.findall(expression):
        value = 1.0
        for factor in product.split("*"):
            value *= float(factor)
        if value:
            return sign, value
    raise ValueError(f"no number to compare with in: {expression}")


def of_alert(name: str, scale: float = 1) -> Steps:
    """Return the steps at which the alerts of a name fire, coloured by severity, times ``scale`` for the panel's unit.

    Raises:
        ValueError: there is no such alert, or it compares with no number.
    """
    rules = [rule for rule in alerts() if rule["alert"] == name]
    if not rules:
        raise ValueError(f"no rule of name {name}")
    severities: dict[float, str] = {}
    signs = set()
    for rule in rules:
        sign, value = comparison(str(rule["expr"]))
        signs.add(sign)
        value = round(value * scale, 6)
        severities[value] = min(severities.get(value, "p9"), rule["labels"]["severity"])
    colours = [(value, COLOURS[severity]) for value, severity in sorted(severities.items())]
    if signs == {">"}:
        return ((None, GOOD), *colours)
    # Less is bad: below the first value it is worst, from the last one on it is good.
    values = [value for value, _ in colours]
    return ((None, colours[0][1]), *zip(values, [colour for _, colour in colours[1:]] + [GOOD], strict=True))


def above(value: float, colour: str = BAD) -> Steps:
    """Return steps that are good below a value."""
    return ((None, GOOD), (value, colour))


def below(value: float, colour: str = BAD) -> Steps:
    """Return steps that are bad below a value."""
    return ((None, colour), (value, GOOD))


# A figure that is neither good nor bad.
NONE: Steps = ((None, NEUTRAL),)
# What counts failures: one is bad.
ANY = above(1)
# What says 1 when all is well.
ALIVE = below(1)

CPU = of_alert("HostCpuHigh", 0.01)
MEMORY = of_alert("HostMemoryHigh", 0.01)
DISK = of_alert("HostDiskAlmostFull", 0.01)
INODES = of_alert("HostInodesAlmostUsedUp", 0.01)
LOAD = of_alert("HostLoadHigh")
SATURATION = of_alert("ApiSaturated")
ERRORS = (*of_alert("HighErrorRate"), *of_alert("ApiErrorRateHigh")[1:])
# The mean is a notice from 500 ms on, the slowest twentieth a warning from 800 ms on: ApiLatencyHigh is about both.
P95 = tuple(step for step in of_alert("ApiLatencyHigh") if step[0] != 0.5)
MEAN = tuple(step for step in of_alert("ApiLatencyHigh") if step[0] in (None, 0.5))
CERTIFICATE = of_alert("CertificateExpires", 86400)
BURN = of_alert("ErrorBudgetBurn")
BUDGET: Steps = ((None, BAD), (0, WARNING), (0.25, GOOD))


def config(steps: Steps) -> builders.ThresholdsConfig:
    """Return steps as Grafana's builder takes them."""
    made = [Threshold(value=value, color=colour) for value, colour in steps]
    return builders.ThresholdsConfig().mode(ThresholdsMode.ABSOLUTE).steps(made)
