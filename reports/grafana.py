"""Questions of dashboards, asked through Grafana as its pages ask them."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from math import isfinite
from typing import Any

from reports.service import Service, ServiceError

# As many points as a panel of usual width asks for.
POINTS = 1000
# Prometheus collects no faster than that.
SHORTEST_STEP = timedelta(seconds=15)


class GrafanaError(ServiceError):
    """Grafana gave no answer; the text says why and what to do."""


@dataclass(frozen=True)
class Field:
    """One column of an answer: its name, the name that is shown, labels and values."""

    name: str
    kind: str
    labels: dict[str, str]
    values: list[Any]
    shown: str = ""

    @property
    def numbers(self) -> list[float]:
        """Return the values that are numbers."""
        return [value for value in self.values if isinstance(value, int | float) and isfinite(value)]


Frame = list[Field]


@dataclass(frozen=True)
class Answer:
    """What a data source gave for one question, or the error that it gave instead."""

    frames: list[Frame]
    error: str = ""

    @property
    def has_data(self) -> bool:
        """Return whether there is a number, or a line of text."""
        fields = [field for frame in self.frames for field in frame]
        numbers = [field for field in fields if field.kind == "number"]
        if numbers:
            return any(field.numbers for field in numbers)
        return any(field.values for field in fields if field.kind not in ("time", "number"))


def frames_of(result: dict[str, Any]) -> list[Frame]:
    """Return the frames of one question's result."""
    found = []
    for frame in result.get("frames") or []:
        columns = (frame.get("data") or {}).get("values") or []
        fields = frame["schema"].get("fields") or []
        found.append(
            [
                Field(
                    field["name"],
                    field.get("type", "other"),
                    field.get("labels") or {},
                    columns[number] if number < len(columns) else [],
                    (field.get("config") or {}).get("displayNameFromDS") or "",
                )
                for number, field in enumerate(fields)
            ]
        )
    return found


class Grafana(Service):
    """One server, asked as a person who may look."""

    name = "Grafana"
    unit = "grafana-server.service"
    error = GrafanaError

    def ask(self, targets: list[dict[str, Any]], start: datetime, end: datetime) -> dict[str, Answer]:
        """Return the answer to each of a panel's questions by its letter.

        Raises:
            GrafanaError: no answer, a wrong password, or a request that Grafana refuses as a whole.
        """
        step = max((end - start) / POINTS, SHORTEST_STEP)
        queries = [
            target | {"intervalMs": round(step.total_seconds() * 1000), "maxDataPoints": POINTS} for target in targets
        ]
        body = {
            "queries": queries,
            "from": str(round(start.timestamp() * 1000)),
            "to": str(round(end.timestamp() * 1000)),
        }
        document = self.document("POST", "/api/ds/query", json=body)
        if "results" not in document:
            raise GrafanaError(f"Grafana at {self.url} refuses the question: {document.get('message', document)}")
        return {
            letter: Answer(frames_of(result), result.get("error") or "")
            for letter, result in document["results"].items()
        }

    def health(self) -> dict[str, Any]:
        """Return what Grafana says of itself.

        Raises:
            GrafanaError: no answer.
        """
        return self.document("GET", "/api/health")
