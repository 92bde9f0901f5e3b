"""The wall: what is wrong, whether customers are served, and how the platform stands."""

from files.grafana import limits
from files.grafana.board import SITE, Board, Row, alert_list, firing
from files.grafana.panels import (
    REQUESTS_PER_SECOND,
    SECONDS,
    SHARE,
    UP_DOWN,
    WHOLE_BROKEN,
    Column,
    listing,
    now,
    over_time,
    ranking,
)
from files.grafana.queries import Prom

BOARD = Board(
    "overview",
    "Overview",
    "For the wall and for the first look at night: what is wrong, whether customers are served, and how much is left.",
    (
        Row(
            "",
            (
                now(
                    "P1 and P2",
                    "Alerts that need somebody now. 0 is good.",
                    Prom(f"count({firing(severities='p[12]')}) or vector(0)"),
                    steps=limits.above(1, limits.WORST),
                    width=3,
                    link="alerts",
                ),
                now(
                    "P3 and P4",
                    "Alerts that can wait for office hours. 0 is good.",
                    Prom(f"count({firing(severities='p[34]')}) or vector(0)"),
                    steps=limits.above(1, limits.WARNING),
                    width=3,
                    link="alerts",
                ),
                now(
                    "Bank reachable",
                    "Whether a load balancer gave the bank's page over HTTPS at the last probe.",
                    Prom('min(probe_success{probe="bank", site=~"$site"})'),
                    steps=limits.below(1, limits.WORST),
                    meanings={"1": ("yes", limits.GOOD), "0": ("no", limits.WORST)},
                    width=3,
                    link="services",
                ),
                now(
                    "Bank instances up",
                    "Share of the bank's instances that answer; half of them or fewer is a P2.",
                    Prom('avg(up{job="bank", site=~"$site"})'),
                    unit=SHARE,
                    steps=((None, limits.BAD), (0.51, limits.WARNING), (1, limits.GOOD)),
                    width=3,
                    link="services",
                ),
                now(
                    "Targets down",
                    "Targets of Prometheus that do not answer. 0 is good.",
                    Prom('count(up{site=~"$site"} == 0) or vector(0)'),
                    steps=limits.ANY,
                    width=3,
                    link="services",
                ),
                now(
                    "Books",
                    "Whether the last reconciliation found that every account adds up.",
                    Prom('max(bank_ledger_imbalance_minor_units{site=~"$site"}) == bool 0'),
                    steps=limits.below(1, limits.WORST),
                    meanings=WHOLE_BROKEN,
                    width=3,
                    link="business",
                ),
                now(
                    "Error budget left",
                    "Of the objectives over 30 days, the one with least budget left.",
                    Prom('min(slo:error_budget_left:ratio{site=~"$site"})'),
                    unit=SHARE,
                    decimals=1,
                    steps=limits.BUDGET,
                    width=3,
                    link="slo",
                ),
                now(
                    "Fullest resource",
                    "The disk, pool, memory or connection limit that is used most; processors left out.",
                    Prom('max(capacity:used:ratio{resource!="processors", site=~"$site"})'),
                    unit=SHARE,
                    decimals=1,
                    steps=(*limits.SATURATION, *limits.DISK[1:]),
                    width=3,
                    link="capacity",
                ),
                alert_list(
                    "What is wrong now",
                    "Every alert that fires, and for how long what it looks at has been so. The message of each "
                    "links its runbook.",
                    firing(),
                    empty="No alert fires.",
                    width=24,
                    height=7,
                ),
            ),
        ),
        Row(
            "What customers get",
            (
                over_time(
                    "Requests",
                    "Requests that load balancers answered each second, over 5 minutes.",
                    Prom('sum(site:bank_requests:rate5m{site=~"$site"})', "requests"),
                    unit=REQUESTS_PER_SECOND,
                    width=8,
                ),
                over_time(
                    "Failed requests",
                    "Share of requests answered with 5xx over 5 minutes: 2 % is a P3, 5 % a P2.",
                    Prom('site:bank_errors:ratio_rate5m{site=~"$site"}', "{{site}}"),
                    unit=SHARE,
                    steps=limits.ERRORS,
                    width=8,
                ),
                over_time(
                    "Slowest twentieth of requests",
                    "95th percentile over 5 minutes: 800 ms is a P3, 1 s a P2.",
                    Prom('site:bank_request_duration_seconds:p95_5m{site=~"$site"}', "{{site}}"),
                    unit=SECONDS,
                    steps=limits.P95,
                    width=8,
                ),
            ),
        ),
        Row(
            "Hosts",
            (
                listing(
                    "Hosts",
                    "How busy each host is. Colours change where the alerts begin.",
                    {"instance": "Host"},
                    Column("Answers", Prom('max by (instance) (up{job="node", site=~"$site"})'), meanings=UP_DOWN),
                    Column(
                        "Processors",
                        Prom('max by (instance) (capacity:used:ratio{resource="processors", site=~"$site"})'),
                        SHARE,
                        limits.CPU,
                    ),
                    Column(
                        "Memory",
                        Prom('max by (instance) (capacity:used:ratio{resource="memory", site=~"$site"})'),
                        SHARE,
                        limits.MEMORY,
                    ),
                    Column(
                        "Fullest disk",
                        Prom('max by (instance) (capacity:used:ratio{resource="disk", site=~"$site"})'),
                        SHARE,
                        limits.DISK,
                    ),
                    Column(
                        "Load for each processor",
                        Prom(
                            'max by (instance) (node_load5{site=~"$site"}) / count by (instance) '
                            '(node_cpu_seconds_total{mode="idle", site=~"$site"})'
                        ),
                        steps=limits.LOAD,
                    ),
                    width=14,
                    height=9,
                    sort="Fullest disk",
                ),
                ranking(
                    "Most used limits",
                    "The ten resources of which the largest share is used; processors left out.",
                    Prom(
                        'topk(10, capacity:used:ratio{resource!="processors", site=~"$site"})',
                        "{{resource}} {{instance}} {{mountpoint}}{{datname}}",
                    ),
                    unit=SHARE,
                    steps=(*limits.SATURATION, *limits.DISK[1:]),
                    most=1,
                    width=10,
                    height=9,
                ),
            ),
        ),
    ),
    variables=(SITE,),
    runbooks=("README.md", "availability.md"),
    since="now-6h",
    shows_its_alerts=False,
)
