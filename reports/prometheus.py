"""Questions to Prometheus' HTTP API."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from reports.service import Service, ServiceError


class PrometheusError(ServiceError):
    """Prometheus gave no answer; the text says why and what to do."""


@dataclass(frozen=True)
class Series:
    """One series over time: its labels, and (Unix seconds, value) in the order of time."""

    labels: dict[str, str]
    points: list[tuple[float, float]]


class Prometheus(Service):
    """One server, asked as its operator."""

    name = "Prometheus"
    unit = "prometheus.service"
    error = PrometheusError

    def ask(self, path: str, **parameters: str) -> Any:  # noqa: ANN401 - the API's answers have many shapes
        """Return the data of an answer.

        Raises:
            PrometheusError: no answer, a wrong password, or a question that Prometheus refuses.
        """
        body = self.document("GET", f"/api/v1/{path}", params=parameters)
        if body.get("status") != "success":
            raise PrometheusError(f"Prometheus at {self.url} refuses the question: {body.get('error', body)}")
        return body["data"]

    def query(self, expression: str) -> list[Series]:
        """Return what an expression gives now."""
        result = self.ask("query", query=expression)["result"]
        return [Series(item["metric"], [(float(item["value"][0]), float(item["value"][1]))]) for item in result]

    def query_range(self, expression: str, start: datetime, end: datetime, step: timedelta) -> list[Series]:
        """Return what an expression gave between two moments, a point for each step."""
        result = self.ask(
            "query_range",
            query=expression,
            start=str(start.timestamp()),
            end=str(end.timestamp()),
            step=str(step.total_seconds()),
        )["result"]
        return [
            Series(item["metric"], [(float(moment), float(value)) for moment, value in item["values"]])
            for item in result
        ]
