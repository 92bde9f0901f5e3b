"""The load balancers: what customers send, and which instances they are sent to."""

from files.grafana import limits
from files.grafana.board import SITE, Board, Row, instance
from files.grafana.panels import (
    BYTES_PER_SECOND,
    PER_SECOND,
    REQUESTS_PER_SECOND,
    SECONDS,
    SHARE,
    Column,
    listing,
    now,
    over_time,
)
from files.grafana.queries import Prom

CHOSEN = 'site=~"$site", instance=~"$instance"'
BANK = f'proxy="bank", {CHOSEN}'
PUBLIC = f'proxy="bank_https", {CHOSEN}'

BOARD = Board(
    "haproxy",
    "Load balancers",
    "What customers send, how it is answered, and which instances of the bank are in rotation.",
    (
        Row(
            "Now",
            (
                now(
                    "Load balancers up",
                    "Load balancers that give their figures. None is a P1.",
                    Prom(f'sum(up{{job="haproxy", {CHOSEN}}})'),
                    steps=limits.below(1, limits.WORST),
                ),
                now(
                    "Instances in rotation",
                    "Instances that the load balancer with fewest of them may choose from. None is a P1.",
                    Prom(f"min(haproxy_backend_active_servers{{{BANK}}})"),
                    steps=limits.below(1, limits.WORST),
                ),
                now(
                    "Requests",
                    "Requests each second over 5 minutes.",
                    Prom(f"sum(rate(haproxy_frontend_http_requests_total{{{PUBLIC}}}[5m]))"),
                    unit=REQUESTS_PER_SECOND,
                    decimals=1,
                ),
                now(
                    "Failed",
                    "Share answered with 5xx over 5 minutes: 2 % is a P3, 5 % a P2.",
                    Prom('max(site:bank_errors:ratio_rate5m{site=~"$site"})'),
                    unit=SHARE,
                    decimals=2,
                    steps=limits.ERRORS,
                ),
                now(
                    "Requests that wait",
                    "Requests for which no instance was free. Above 0 for a minute is a P3.",
                    Prom(f"sum(haproxy_backend_current_queue{{{BANK}}})"),
                    steps=limits.above(1, limits.WARNING),
                ),
                now(
                    "Connections",
                    "Share of the connections that a load balancer may have. Above 80 % is a P3.",
                    Prom(f"max(haproxy_process_current_connections{{{CHOSEN}}} / haproxy_process_max_connections)"),
                    unit=SHARE,
                    decimals=1,
                    steps=limits.of_alert("HaproxyConnectionsHigh"),
                ),
            ),
        ),
        Row(
            "Instances",
            (
                listing(
                    "State of each instance",
                    "As each load balancer sees it. MAINT and DRAIN are the work of an operator.",
                    {"server": "Instance", "instance": "Load balancer", "state": "State"},
                    Column("Is so", Prom(f"max by (server, instance, state) (haproxy_server_status{{{BANK}}} == 1)")),
                    width=12,
                    meanings={
                        "State": {
                            "UP": ("up", limits.GOOD),
                            "DOWN": ("down", limits.BAD),
                            "NOLB": ("no new ones", limits.WARNING),
                            "MAINT": ("maintenance", limits.NEUTRAL),
                            "DRAIN": ("draining", limits.NEUTRAL),
                        }
                    },
                ),
                over_time(
                    "Requests of each instance",
                    "Answers each second: instances in rotation should give alike.",
                    Prom(
                        f"sum by (server) (rate(haproxy_server_http_responses_total{{{BANK}}}[$__rate_interval]))",
                        "{{server}}",
                    ),
                    unit=REQUESTS_PER_SECOND,
                    width=12,
                ),
                over_time(
                    "Time to answer",
                    "Mean of the last 1024 requests of each instance, as the load balancer sees it.",
                    Prom(f"max by (server) (haproxy_server_response_time_average_seconds{{{BANK}}})", "{{server}}"),
                    unit=SECONDS,
                    steps=limits.MEAN,
                    width=8,
                ),
                over_time(
                    "Failed answers of each instance",
                    "Answers with 5xx each second.",
                    Prom(
                        f"sum by (server) "
                        f'(rate(haproxy_server_http_responses_total{{code="5xx", {BANK}}}[$__rate_interval]))',
                        "{{server}}",
                    ),
                    unit=PER_SECOND,
                    width=8,
                ),
                over_time(
                    "Failed health checks",
                    "Checks within 5 minutes that an instance did not pass.",
                    Prom(
                        f"sum by (server) (increase(haproxy_server_check_failures_total{{{BANK}}}[5m]))", "{{server}}"
                    ),
                    steps=limits.above(1, limits.NOTICE),
                    width=8,
                ),
            ),
        ),
        Row(
            "What customers send and get",
            (
                over_time(
                    "Answers by class of status",
                    "Answers each second.",
                    Prom(
                        f"sum by (code) (rate(haproxy_frontend_http_responses_total{{{PUBLIC}}}[$__rate_interval]))",
                        "{{code}}",
                    ),
                    unit=REQUESTS_PER_SECOND,
                    stacked=True,
                    width=8,
                    colours={"5xx": limits.BAD, "4xx": limits.WARNING, "2xx": limits.GOOD, "3xx": limits.NEUTRAL},
                ),
                over_time(
                    "Connections",
                    "Connections that are open.",
                    Prom(f"sum by (instance) (haproxy_process_current_connections{{{CHOSEN}}})", "{{instance}}"),
                    width=8,
                ),
                over_time(
                    "Network",
                    "Bytes from and to customers each second.",
                    Prom(f"sum(rate(haproxy_frontend_bytes_in_total{{{PUBLIC}}}[$__rate_interval]))", "received"),
                    Prom(f"sum(rate(haproxy_frontend_bytes_out_total{{{PUBLIC}}}[$__rate_interval]))", "sent"),
                    unit=BYTES_PER_SECOND,
                    width=8,
                ),
                over_time(
                    "Connections that failed",
                    "Each second: instances that could not be connected, and attempts that were repeated.",
                    Prom(
                        f"sum(rate(haproxy_backend_connection_errors_total{{{BANK}}}[$__rate_interval]))",
                        "not connected",
                    ),
                    Prom(f"sum(rate(haproxy_backend_retry_warnings_total{{{BANK}}}[$__rate_interval]))", "repeated"),
                    unit=PER_SECOND,
                    width=8,
                ),
                over_time(
                    "Requests that were not understood",
                    "Broken requests each second, and those that a rule denied.",
                    Prom(f"sum(rate(haproxy_frontend_request_errors_total{{{PUBLIC}}}[$__rate_interval]))", "broken"),
                    Prom(f"sum(rate(haproxy_frontend_requests_denied_total{{{PUBLIC}}}[$__rate_interval]))", "denied"),
                    unit=PER_SECOND,
                    width=8,
                ),
                over_time(
                    "Idle",
                    "Share of the time in which HAProxy had nothing to do. Little is left when it nears 0.",
                    Prom(f"min by (instance) (haproxy_process_idle_time_percent{{{CHOSEN}}}) / 100", "{{instance}}"),
                    unit=SHARE,
                    steps=limits.below(0.2, limits.WARNING),
                    most=1,
                    width=8,
                ),
            ),
        ),
    ),
    variables=(SITE, instance("haproxy", "Load balancer")),
    runbooks=("haproxy.md", "availability.md"),
)
