"""What the job is told by its configuration file; every mistake in it is found before anything is asked of a server."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

# An empty or short prefix would reach indices that nobody meant.
PREFIX = re.compile(r"[a-z][a-z0-9_-]{2,}-")
ALIAS = re.compile(r"[a-z][a-z0-9_-]{3,}")
# Ten years; more is a mistyped number.
LONGEST_DAYS = 3660


class ConfigError(Exception):
    """The configuration cannot be used; the text holds one sentence for each mistake."""


@dataclass(frozen=True)
class Snapshots:
    """How snapshots are taken, and how many stay."""

    repository: str
    hour: int
    days: int
    minimum: int
    maximum: int
    seconds: int


@dataclass(frozen=True)
class Config:
    """The whole configuration."""

    nodes: list[str]
    ca_path: str
    user: str
    password: str = field(repr=False)
    retention: dict[str, int]
    rollovers: dict[str, int]
    snapshots: Snapshots | None
    state_directory: Path


def is_number(value: object, lowest: int, highest: int) -> bool:
    """Return whether a value is a whole number between two others."""
    return isinstance(value, int) and not isinstance(value, bool) and lowest <= value <= highest


def snapshot_problems(found: object) -> list[str]:
    """Return what is wrong with the section about snapshots."""
    if not isinstance(found, dict):
        return ["snapshots must be null or a section: leave it out to take none."]
    limits = {"hour": (0, 23), "days": (1, LONGEST_DAYS), "minimum": (1, 1000), "maximum": (1, 1000)}
    limits["seconds"] = (10, 86400)
    problems = [
        f"snapshots.{name} is {found.get(name)!r}: give a whole number from {lowest} to {highest}."
        for name, (lowest, highest) in limits.items()
        if not is_number(found.get(name), lowest, highest)
    ]
    if not isinstance(found.get("repository"), str) or not found["repository"]:
        problems.append("snapshots.repository is empty: name the repository that the snapshots go to.")
    if not problems and found["minimum"] > found["maximum"]:
        problems.append(
            f"snapshots.minimum is {found['minimum']}, which is more than snapshots.maximum "
            f"({found['maximum']}): lower it."
        )
    return problems


def days_problems(section: str, found: object, pattern: re.Pattern[str], form: str) -> list[str]:
    """Return what is wrong with a table of names and days."""
    if not isinstance(found, dict):
        return [f"{section} must be a table of names and days."]
    problems = [
        f"{section} names {name!r}: write {form}."
        for name in found
        if not isinstance(name, str) or not pattern.fullmatch(name)
    ]
    problems += [
        f"{section} keeps {name} for {days!r} days: give a whole number from 1 to {LONGEST_DAYS}."
        for name, days in found.items()
        if not is_number(days, 1, LONGEST_DAYS)
    ]
    return problems


def parse(found: dict[str, Any]) -> Config:
    """Return the configuration.

    Raises:
        ConfigError: some of it cannot be used.
    """
    names = {"nodes", "ca_path", "user", "password", "retention", "rollovers", "snapshots", "state_directory"}
    problems = [f"{name} is not known: remove it." for name in sorted(set(found) - names)]
    problems += [f"{name} is missing." for name in sorted(names - {"snapshots"} - set(found))]
    if problems:
        raise ConfigError(" ".join(problems))
    if not found["nodes"] or not all(str(node).startswith("https://") for node in found["nodes"]):
        problems.append("nodes must hold at least one address, and each must begin with https://.")
    problems += days_problems(
        "retention", found["retention"], PREFIX, "a prefix of small letters that ends with a dash, such as app-logs-"
    )
    problems += days_problems("rollovers", found["rollovers"], ALIAS, "the name of an alias in small letters")
    if found.get("snapshots") is not None:
        problems += snapshot_problems(found["snapshots"])
    if problems:
        raise ConfigError(" ".join(problems))
    return Config(
        nodes=list(found["nodes"]),
        ca_path=found["ca_path"],
        user=found["user"],
        password=found["password"],
        retention=dict(found["retention"]),
        rollovers=dict(found["rollovers"]),
        snapshots=Snapshots(**found["snapshots"]) if found.get("snapshots") else None,
        state_directory=Path(found["state_directory"]),
    )


def load(path: Path) -> Config:
    """Return the configuration in a file.

    Raises:
        ConfigError: it cannot be read or used.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"The configuration {path} cannot be read ({error}).") from error
    if not isinstance(found, dict):
        raise ConfigError(f"The configuration {path} holds no table.")
    try:
        return parse(found)
    except (ConfigError, TypeError) as error:
        raise ConfigError(f"The configuration {path} cannot be used. {error}") from error
