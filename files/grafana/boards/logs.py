"""Log lines of every host, from Elasticsearch."""

from files.grafana import limits
from files.grafana.board import HOST, SITE, Board, Row, Variable
from files.grafana.panels import COUNT, Column, lines, listing, now, over_time
from files.grafana.queries import LINES, Lines

CHOSEN = "host.name:$host AND event.dataset:$dataset"
SERVER_ERRORS = 'event.dataset:"haproxy.access" AND http.response.status_code:[500 TO *] AND host.name:$host'
SERIOUS = "log.level:(error OR critical OR fatal OR panic OR ERROR OR FATAL OR PANIC)"
EMPTY = "No line fits in this time."

BOARD = Board(
    "logs",
    "Logs",
    "Answers with an error, where lines come from, and the lines themselves. Search for more in Kibana, space bank.",
    (
        Row(
            "Now",
            (
                now(
                    "Lines", "Lines of the chosen hosts and sources in this time.", Lines(CHOSEN), width=6, empty=EMPTY
                ),
                now(
                    "Lines of an error",
                    "Lines that their program marked as an error or worse.",
                    Lines(f"{CHOSEN} AND {SERIOUS}"),
                    width=6,
                    steps=limits.above(1, limits.NOTICE),
                    empty=EMPTY,
                ),
                now(
                    "Answers of 500 and above",
                    "What customers got in this time, from the log of the load balancers.",
                    Lines(SERVER_ERRORS),
                    width=6,
                    steps=limits.above(1, limits.WARNING),
                    empty=EMPTY,
                ),
                now(
                    "Refused orders",
                    "Transfers and payments that the bank refused in this time.",
                    Lines('event.dataset:"bank.transaction" AND event.outcome:failure AND host.name:$host'),
                    width=6,
                    empty=EMPTY,
                    link="business",
                ),
            ),
        ),
        Row(
            "Where lines come from",
            (
                over_time(
                    "Lines by source",
                    "Lines of the ten largest sources.",
                    Lines(CHOSEN, by="event.dataset"),
                    stacked=True,
                    bars=True,
                    empty=EMPTY,
                ),
                over_time(
                    "Lines by level",
                    "Lines by how serious their program took them to be.",
                    Lines(f"{CHOSEN} AND _exists_:log.level", by="log.level"),
                    stacked=True,
                    bars=True,
                    empty=EMPTY,
                ),
                over_time(
                    "Answers of 500 and above by instance",
                    "What customers got, by the instance of the bank that gave it.",
                    Lines(SERVER_ERRORS, by="haproxy.server"),
                    stacked=True,
                    bars=True,
                    width=12,
                    empty="No customer got an error.",
                ),
                over_time(
                    "Requests by status",
                    "Answers of the load balancers by status.",
                    Lines('event.dataset:"haproxy.access" AND host.name:$host', by="http.response.status_code"),
                    stacked=True,
                    bars=True,
                    width=12,
                    empty=EMPTY,
                ),
                listing(
                    "Hosts that write most",
                    "Lines of each host.",
                    {"host.name": "Host"},
                    Column("Lines", Lines(CHOSEN, by="host.name"), COUNT),
                    width=8,
                    sort="Lines",
                    empty=EMPTY,
                ),
                listing(
                    "Files",
                    "Lines of each file.",
                    {"log.file.path": "File"},
                    Column("Lines", Lines(f"{CHOSEN} AND _exists_:log.file.path", by="log.file.path"), COUNT),
                    width=8,
                    sort="Lines",
                    empty="None of these lines came from a file.",
                ),
                listing(
                    "Units",
                    "Lines of each unit of systemd.",
                    {"systemd.unit": "Unit"},
                    Column("Lines", Lines(f"{CHOSEN} AND _exists_:systemd.unit", by="systemd.unit"), COUNT),
                    width=8,
                    sort="Lines",
                    empty="None of these lines came from the journal.",
                ),
            ),
        ),
        Row(
            "Lines",
            (
                lines(
                    "Errors",
                    "Lines that their program marked as an error or worse, the latest first.",
                    Lines(f"{CHOSEN} AND {SERIOUS}"),
                    empty="No program wrote of an error.",
                    height=9,
                ),
                lines(
                    "Latest lines",
                    "The chosen lines, the latest first. Choose hosts and sources at the top.",
                    Lines(CHOSEN),
                    empty=EMPTY,
                    height=14,
                ),
            ),
        ),
    ),
    variables=(
        SITE,
        HOST,
        Variable("dataset", "Source", '{"find": "terms", "field": "event.dataset", "size": 100}', LINES),
    ),
    runbooks=("elasticsearch_cluster.md", "bank.md"),
    since="now-1h",
    refresh="1m",
)
