"""Services: who answers, and rate, errors, duration and saturation of each instance of the bank."""

from files.grafana import limits
from files.grafana.board import SITE, Board, Row, Variable, instance
from files.grafana.panels import (
    REQUESTS_PER_SECOND,
    SECONDS,
    SHARE,
    UP_DOWN,
    Column,
    listing,
    now,
    over_time,
)
from files.grafana.queries import Prom

REQUESTS = 'flask_http_request_duration_seconds_count{url_rule!~"/health|/health/ready|/metrics", '

BOARD = Board(
    "services",
    "Services (RED)",
    "Which targets answer, and rate, errors and duration of each instance of the bank, with what each has left.",
    (
        Row(
            "Who answers",
            (
                now(
                    "Instances of the bank",
                    "Instances that answer. None is a P1.",
                    Prom('sum(up{job="bank", site=~"$site"})'),
                    steps=limits.below(1, limits.WORST),
                ),
                now(
                    "In rotation",
                    "Instances to which a load balancer sends customers.",
                    Prom('max(haproxy_backend_active_servers{proxy="bank", site=~"$site"})'),
                    steps=limits.below(1, limits.WORST),
                    link="haproxy",
                ),
                now(
                    "Targets down",
                    "Targets of the chosen jobs that do not answer. 0 is good.",
                    Prom('count(up{site=~"$site", job=~"$job"} == 0) or vector(0)'),
                    steps=limits.ANY,
                ),
                now(
                    "Probes that fail",
                    "Services that cannot be reached from outside as their clients reach them. 0 is good.",
                    Prom('count(probe_success{site=~"$site"} == 0) or vector(0)'),
                    steps=limits.ANY,
                ),
                now(
                    "Releases of the bank",
                    "Releases that run side by side. More than one for an hour is a P4.",
                    Prom('count(count by (version) (bank_build_info{site=~"$site"}))'),
                    steps=limits.above(2, limits.NOTICE),
                ),
                now(
                    "Units that failed",
                    "Units of systemd in state failed. 0 is good.",
                    Prom('sum(node_systemd_unit_state{state="failed", site=~"$site"})'),
                    steps=limits.ANY,
                    link="hosts",
                ),
                listing(
                    "Targets",
                    "Every target of Prometheus, those that do not answer first.",
                    {"job": "Job", "instance": "Host"},
                    Column(
                        "Down",
                        Prom('max by (job, instance) (1 - up{site=~"$site", job=~"$job"})'),
                        meanings={"1": ("down", limits.BAD), "0": ("up", limits.GOOD)},
                    ),
                    Column(
                        "Answer takes",
                        Prom('max by (job, instance) (scrape_duration_seconds{site=~"$site", job=~"$job"})'),
                        SECONDS,
                    ),
                    width=12,
                    height=10,
                    sort="Down",
                ),
                listing(
                    "Probes",
                    "What is looked at from outside, as its clients do.",
                    {"probe": "Service", "instance": "Host"},
                    Column(
                        "Reached", Prom('max by (probe, instance) (probe_success{site=~"$site"})'), meanings=UP_DOWN
                    ),
                    Column("Takes", Prom('max by (probe, instance) (probe_duration_seconds{site=~"$site"})'), SECONDS),
                    width=12,
                    height=10,
                ),
            ),
        ),
        Row(
            "Rate, errors, duration",
            (
                over_time(
                    "Requests",
                    "Requests that each instance answered each second, probes left out.",
                    Prom(
                        f'sum by (instance) (rate({REQUESTS}site=~"$site", instance=~"$instance"}}[$__rate_interval]))',
                        "{{instance}}",
                    ),
                    unit=REQUESTS_PER_SECOND,
                    width=8,
                ),
                over_time(
                    "Failed requests",
                    "Share of requests of each instance answered with 5xx: 2 % is a P3, 5 % a P2 for the site.",
                    Prom(
                        f'(sum by (instance) (rate({REQUESTS}site=~"$site", instance=~"$instance", status=~"5.."}}'
                        f'[$__rate_interval])) or 0 * sum by (instance) (up{{job="bank", site=~"$site", '
                        f'instance=~"$instance"}})) / sum by (instance) (rate({REQUESTS}site=~"$site", '
                        f'instance=~"$instance"}}[$__rate_interval]))',
                        "{{instance}}",
                    ),
                    unit=SHARE,
                    steps=limits.ERRORS,
                    width=8,
                ),
                over_time(
                    "Slowest twentieth of requests",
                    "95th percentile of each instance: 800 ms is a P3, 1 s a P2 for the site.",
                    Prom(
                        "histogram_quantile(0.95, sum by (instance, le) "
                        "(rate(flask_http_request_duration_seconds_bucket"
                        '{url_rule!~"/health|/health/ready|/metrics", site=~"$site", instance=~"$instance"}'
                        "[$__rate_interval])))",
                        "{{instance}}",
                    ),
                    unit=SECONDS,
                    steps=limits.P95,
                    width=8,
                ),
            ),
        ),
        Row(
            "Saturation",
            (
                over_time(
                    "Threads in use",
                    "Share of the requests that an instance can answer at a time. Above 80 % is a P3.",
                    Prom('instance:bank_threads:ratio{site=~"$site", instance=~"$instance"}', "{{instance}}"),
                    unit=SHARE,
                    steps=limits.SATURATION,
                    most=1,
                    width=8,
                ),
                over_time(
                    "Database connections in use",
                    "Share of an instance's database connections. Above 80 % is a P3.",
                    Prom('instance:bank_database_pool:ratio{site=~"$site", instance=~"$instance"}', "{{instance}}"),
                    unit=SHARE,
                    steps=limits.of_alert("ApiDatabasePoolSaturated"),
                    most=1,
                    width=8,
                ),
                over_time(
                    "Wait before a request is begun",
                    "95th percentile from the load balancer to the first thread that is free.",
                    Prom(
                        "histogram_quantile(0.95, sum by (instance, le) (rate(bank_http_queue_duration_seconds_bucket"
                        '{site=~"$site", instance=~"$instance"}[$__rate_interval])))',
                        "{{instance}}",
                    ),
                    unit=SECONDS,
                    width=8,
                ),
                over_time(
                    "Wait for a database connection",
                    "95th percentile of the time until a connection was lent out.",
                    Prom(
                        "histogram_quantile(0.95, sum by (instance, le) (rate(bank_db_pool_wait_seconds_bucket"
                        '{site=~"$site", instance=~"$instance"}[$__rate_interval])))',
                        "{{instance}}",
                    ),
                    unit=SECONDS,
                    width=8,
                ),
                over_time(
                    "Time of Redis",
                    "95th percentile of what a command of Redis takes, as the bank sees it.",
                    Prom(
                        "histogram_quantile(0.95, sum by (instance, le) "
                        "(rate(bank_redis_command_duration_seconds_bucket"
                        '{site=~"$site", instance=~"$instance"}[$__rate_interval])))',
                        "{{instance}}",
                    ),
                    unit=SECONDS,
                    width=8,
                ),
                listing(
                    "Releases",
                    "What runs on each instance.",
                    {"instance": "Host", "version": "Release", "python": "Python"},
                    Column(
                        "Instances",
                        Prom(
                            'max by (instance, version, python) (bank_build_info{site=~"$site", instance=~"$instance"})'
                        ),
                    ),
                    width=8,
                ),
            ),
        ),
    ),
    variables=(SITE, Variable("job", "Job", 'label_values(up{site=~"$site"}, job)'), instance("bank", "Instance")),
    runbooks=("availability.md", "golden_signals.md", "blackbox.md"),
)
