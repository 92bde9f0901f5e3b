"""Questions of panels to the data sources, whose names are agreed with the role grafana."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from grafana_foundation_sdk.builders import elasticsearch, prometheus
from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.cog.variants import Dataquery
from grafana_foundation_sdk.models.dashboard import DataSourceRef
from grafana_foundation_sdk.models.elasticsearch import TermsOrder
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

METRICS = DataSourceRef(type_val="prometheus", uid="prometheus")
LINES = DataSourceRef(type_val="elasticsearch", uid="elasticsearch-logs")
DATABASE = DataSourceRef(type_val="postgres", uid="postgresql")
TIME = "@timestamp"


class SqlQuestion(Dataquery):
    """A statement in SQL as Grafana reads it: the builder knows no such data source."""

    def __init__(self, statement: str) -> None:
        self.statement = statement
        self.ref_id = ""

    def to_json(self) -> dict[str, Any]:
        """Return the JSON of the question."""
        question = {"refId": self.ref_id, "datasource": DATABASE, "format": "table", "rawSql": self.statement}
        return question | {"rawQuery": True, "editorMode": "code"}


class SqlBuilder(Builder[Dataquery]):
    """Builder of a question in SQL."""

    def __init__(self, statement: str) -> None:
        self._internal = SqlQuestion(statement)

    def ref_id(self, letter: str) -> SqlBuilder:
        """Name the question by a letter."""
        self._internal.ref_id = letter
        return self

    def build(self) -> Dataquery:
        """Return the question."""
        return self._internal


Target = prometheus.Dataquery | elasticsearch.Dataquery | SqlBuilder


@dataclass(frozen=True)
class Prom:
    """An expression in PromQL; ``legend`` names its series by their labels."""

    expression: str
    legend: str = "__auto"

    source = METRICS

    def target(self, *, instant: bool, table: bool = False) -> prometheus.Dataquery:
        """Return the builder of the question: about now, or about the whole time."""
        made = prometheus.Dataquery().expr(self.expression).legend_format(self.legend).datasource(METRICS)
        made = made.format(PromQueryFormat.TABLE if table else PromQueryFormat.TIME_SERIES)
        return made.instant() if instant else made.range()


@dataclass(frozen=True)
class Lines:
    """Log lines that fit a query in Lucene's syntax: how many over time, how many of each value, or the lines.

    ``by`` splits them by the values of a field; ``total`` is a field whose values are added up instead of counting.
    """

    query: str
    by: str = ""
    legend: str = ""
    total: str = ""
    size: int = 10

    source = LINES

    def _split(self) -> list[elasticsearch.Terms]:
        if not self.by:
            return []
        settings = elasticsearch.ElasticsearchTermsSettings().order(TermsOrder.DESC).order_by("_count")
        settings = settings.size(str(self.size)).min_doc_count("1")
        return [elasticsearch.Terms().id("2").field(self.by).settings(settings)]

    def _base(self) -> elasticsearch.Dataquery:
        made = elasticsearch.Dataquery().query(self.query).time_field(TIME).datasource(LINES)
        return made.alias(self.legend) if self.legend else made

    def _metric(self) -> elasticsearch.Count | elasticsearch.Sum:
        return elasticsearch.Sum().id("1").field(self.total) if self.total else elasticsearch.Count().id("1")

    def over_time(self) -> elasticsearch.Dataquery:
        """Return the builder of the question how many there were in each stretch of time."""
        settings = (
            elasticsearch.ElasticsearchDateHistogramSettings().interval("auto").min_doc_count("0").trim_edges("0")
        )
        histogram = elasticsearch.DateHistogram().id("3").field(TIME).settings(settings)
        return self._base().metrics([self._metric()]).bucket_aggs([*self._split(), histogram])

    def counted(self) -> elasticsearch.Dataquery:
        """Return the builder of the question how many there are of each value."""
        return self._base().metrics([self._metric()]).bucket_aggs(self._split())

    def lines(self) -> elasticsearch.Dataquery:
        """Return the builder of the question for the lines themselves, the latest first."""
        settings = elasticsearch.ElasticsearchLogsSettings().limit("200")
        return self._base().metrics([elasticsearch.Logs().id("1").settings(settings)]).bucket_aggs([])


@dataclass(frozen=True)
class Sql:
    """A statement in SQL about the bank's database, whose columns carry names (``as``).

    The user of the data source may read statistics only.
    """

    statement: str

    source = DATABASE

    def rows(self) -> SqlBuilder:
        """Return the builder of the question for all rows."""
        return SqlBuilder(" ".join(self.statement.split()))


def either(*words: str) -> str:
    """Return a regular expression for PromQL that fits any of the words."""
    return "|".join(words)
