"""The dashboards of the platform as things that can be asked: panels, questions, and the choices at the top."""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from reports.grafana import Answer, Grafana

FOLDER = Path(__file__).parents[1] / "files/grafana/dashboards"
# A choice of variables: the values by name; a variable that is not in it is at "All".
Choice = Mapping[str, list[str]]
REFERENCE = re.compile(r"\$([A-Za-z_]\w*)|\$\{(\w+)(?::(\w+))?\}")
LABEL_VALUES = re.compile(r"label_values\((?:(?P<series>.+),\s*)?(?P<label>\w+)\)")
MISSING = Answer([], "Grafana gave no result for this question")
UNITS = {"m": "minutes", "h": "hours", "d": "days"}


@dataclass(frozen=True)
class Panel:
    """One panel of a dashboard, as its file has it."""

    board: str
    source: dict[str, Any]
    section: str

    @property
    def title(self) -> str:
        """Return its title."""
        return self.source["title"]

    @property
    def targets(self) -> list[dict[str, Any]]:
        """Return its questions."""
        return self.source.get("targets") or []

    @property
    def empty(self) -> str:
        """Return what it says when there is nothing to show."""
        return self.source["fieldConfig"]["defaults"].get("noValue", "No data")

    def __str__(self) -> str:
        """Return where it is."""
        return f"{self.board}, {self.title}"


@dataclass(frozen=True)
class Board:
    """One dashboard, as its file has it."""

    source: dict[str, Any]

    @property
    def uid(self) -> str:
        """Return its name in addresses."""
        return self.source["uid"]

    @property
    def title(self) -> str:
        """Return its title."""
        return self.source["title"]

    @property
    def variables(self) -> dict[str, dict[str, Any]]:
        """Return its choices by name."""
        return {variable["name"]: variable for variable in self.source["templating"]["list"]}

    @property
    def span(self) -> timedelta:
        """Return the length of time that it shows at first."""
        found = re.fullmatch(r"now-(\d+)([mhd])", self.source["time"]["from"])
        if not found:
            raise ValueError(f"{self.uid}: not a time from now: {self.source['time']['from']}")
        return timedelta(**{UNITS[found[2]]: int(found[1])})

    def panels(self) -> Iterator[Panel]:
        """Yield its panels, with the title of the row above each."""
        section = ""
        for entry in self.source["panels"]:
            if entry["type"] == "row":
                section = entry["title"]
                for inner in entry.get("panels") or []:
                    yield Panel(self.uid, inner, section)
            else:
                yield Panel(self.uid, entry, section)


def boards(folder: Path = FOLDER) -> list[Board]:
    """Return every dashboard, the overview first.

    Raises:
        OSError: the folder cannot be read.
        ValueError: a file is no JSON.
    """
    found = [Board(json.loads(path.read_text(encoding="utf-8"))) for path in sorted(folder.glob("*.json"))]
    return sorted(found, key=lambda board: (board.uid != "overview", board.title))


def names_in(target: object) -> set[str]:
    """Return the names that a question refers to by a dollar sign, Grafana's own left out."""
    found = {one or other for one, other, _ in REFERENCE.findall(json.dumps(target))}
    return {name for name in found if not name.startswith("__")}


def formatted(values: list[str], how: str) -> str:
    """Return several values as one text, in one of Grafana's formats.

    Raises:
        ValueError: the format is unknown.
    """
    match how:
        case "regex":
            escaped = [re.sub(r"[\\^$.*+?()\[\]{}|/]", r"\\\g<0>", value) for value in values]
            return escaped[0] if len(escaped) == 1 else f"({'|'.join(escaped)})"
        case "lucene":
            quoted = ['"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"' for value in values]
            return quoted[0] if len(quoted) == 1 else f"({' OR '.join(quoted)})"
        case "pipe":
            return "|".join(values)
        case "csv" | "raw":
            return ",".join(values)
    raise ValueError(f"unknown format {how}")


def resolved(text: str, board: Board, chosen: Choice, kind: str) -> str:
    """Return a question's text with the chosen values in the place of its variables.

    Grafana's own names (``$__rate_interval`` and the like) stay: its server knows them. ``kind`` is the data source's.

    Raises:
        ValueError: the text refers to a variable that the dashboard does not have.
    """
    in_quotes = {"prometheus": "regex", "elasticsearch": "lucene"}

    def value(found: re.Match[str]) -> str:
        name = found[1] or found[2]
        if name.startswith("__"):
            return found[0]
        if name not in board.variables:
            raise ValueError(f"{board.uid} has no variable {name}")
        if name not in chosen:
            return board.variables[name]["allValue"]
        made = formatted(chosen[name], found[3] or in_quotes[kind])
        # The text stands in a string of PromQL, in which a backslash is written twice.
        return made.replace("\\", "\\\\") if kind == "prometheus" else made

    return REFERENCE.sub(value, text)


def asked(target: dict[str, Any], board: Board, chosen: Choice) -> dict[str, Any]:
    """Return a question as Grafana's server takes it."""
    made = dict(target)
    for key in ("expr", "query"):
        if key in made:
            made[key] = resolved(made[key], board, chosen, made["datasource"]["type"])
    return made


class Asker:
    """Asks what a dashboard asks, about the time up to a moment."""

    def __init__(self, grafana: Grafana, board: Board, now: datetime | None = None) -> None:
        self.grafana = grafana
        self.board = board
        self.end = now or datetime.now(UTC)
        self.start = self.end - board.span

    def answers(self, panel: Panel, chosen: Choice | None = None) -> dict[str, Answer]:
        """Return the answer to each question of a panel.

        Raises:
            GrafanaError: no answer, a wrong password, or a request that Grafana refuses as a whole.
        """
        targets = [asked(target, self.board, chosen or {}) for target in panel.targets]
        found = self.grafana.ask(targets, self.start, self.end)
        return {target["refId"]: found.get(target["refId"], MISSING) for target in targets}

    def values(self, name: str) -> list[str]:
        """Return the values among which a variable lets choose, the other variables being at "All".

        Raises:
            GrafanaError: no answer, or one that is an error.
            ValueError: the variable asks in a way that is not known here.
        """
        variable = self.board.variables[name]
        source, query = variable["datasource"], variable["query"]
        if source["type"] == "prometheus":
            found = LABEL_VALUES.fullmatch(query["query"])
            if not found:
                raise ValueError(f"{self.board.uid}, variable {name}: not label_values(series, label)")
            label = found["label"]
            target = {"expr": f"group by ({label}) ({found['series'] or label})", "instant": True, "range": False}
        else:
            label = json.loads(query)["field"]
            settings = {"size": "100", "min_doc_count": "1", "order": "desc", "orderBy": "_count"}
            terms = {"id": "2", "type": "terms", "field": label, "settings": settings}
            target = {"query": "*", "timeField": "@timestamp", "metrics": [{"id": "1", "type": "count"}]}
            target["bucketAggs"] = [terms]
        target = asked(target | {"refId": "A", "datasource": source}, self.board, {})
        answer = self.grafana.ask([target], self.start, self.end).get("A", MISSING)
        if answer.error:
            raise self.grafana.error(f"{self.board.uid}, variable {name}: {answer.error}")
        fields = [field for frame in answer.frames for field in frame]
        labels = {field.labels[label] for field in fields if label in field.labels}
        labels |= {value for field in fields if field.name == label for value in field.values}
        return sorted(labels - {""})
