"""Questions to Prometheus' HTTP API."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import requests

ANSWER_SECONDS = 30


class PrometheusError(Exception):
    """Prometheus gave no answer; the text says why and what to do."""


@dataclass(frozen=True)
class Series:
    """One series over time: its labels, and (Unix seconds, value) in the order of time."""

    labels: dict[str, str]
    points: list[tuple[float, float]]


class Prometheus:
    """One server, asked as its operator."""

    def __init__(self, url: str, user: str, password: str, authority: Path) -> None:
        self.url = url.rstrip("/")
        self.session = requests.Session()
        # The platform's own authority must be enough, whatever this machine's environment trusts.
        self.session.trust_env = False
        self.session.auth = (user, password)
        self.session.verify = str(authority)

    def ask(self, path: str, **parameters: str) -> Any:  # noqa: ANN401 - the API's answers have many shapes
        """Return the data of an answer.

        Raises:
            PrometheusError: no answer, a wrong password, or a question that Prometheus refuses.
        """
        try:
            answer = self.session.get(f"{self.url}/api/v1/{path}", params=parameters, timeout=ANSWER_SECONDS)
        except (requests.RequestException, OSError) as error:
            raise PrometheusError(
                f"Prometheus at {self.url} does not answer ({error}). "
                "See that prometheus.service runs there, and that this machine is one of firewall_operator_sources."
            ) from None
        if answer.status_code == requests.codes.unauthorized:
            raise PrometheusError(f"Prometheus at {self.url} refuses the user or the password.")
        try:
            body = answer.json()
        except requests.JSONDecodeError:
            raise PrometheusError(f"{self.url} answers {answer.status_code}, and not as Prometheus does.") from None
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
