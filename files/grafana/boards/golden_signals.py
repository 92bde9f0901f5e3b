"""The bank's golden signals: traffic, errors, latency and saturation, by site, route and instance."""

from files.grafana import limits
from files.grafana.board import SITE, Board, Row, Variable, instance
from files.grafana.panels import PER_SECOND, REQUESTS_PER_SECOND, SECONDS, SHARE, Column, listing, now, over_time
from files.grafana.queries import Prom

CHOSEN = 'site=~"$site", instance=~"$instance", url_rule=~"$route"'
COUNTED = f"flask_http_request_duration_seconds_count{{{CHOSEN}}}"
FAILED = f'flask_http_request_duration_seconds_count{{{CHOSEN}, status=~"5.."}}'
BUCKETS = f"flask_http_request_duration_seconds_bucket{{{CHOSEN}}}"
ROUTE = Variable("route", "Route", 'label_values(flask_http_request_duration_seconds_count{site=~"$site"}, url_rule)')

BOARD = Board(
    "golden-signals",
    "Golden signals",
    "Traffic, errors, latency and saturation of the bank: of the whole site, of each route and of each instance.",
    (
        Row(
            "Now, for the whole site",
            (
                now(
                    "Requests",
                    "Requests each second at the load balancers, over 5 minutes.",
                    Prom('sum(site:bank_requests:rate5m{site=~"$site"})'),
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
                    "Mean",
                    "Mean duration over 1 minute: above 500 ms is a P4.",
                    Prom('max(site:bank_request_duration_seconds:mean_1m{site=~"$site"})'),
                    unit=SECONDS,
                    steps=limits.MEAN,
                ),
                now(
                    "Slowest twentieth",
                    "95th percentile over 5 minutes: 800 ms is a P3, 1 s a P2.",
                    Prom('max(site:bank_request_duration_seconds:p95_5m{site=~"$site"})'),
                    unit=SECONDS,
                    steps=limits.P95,
                ),
                now(
                    "Answered within 200 ms",
                    "Share of requests over 5 minutes; the objective is 95 %.",
                    Prom('1 - max(slo:errors:rate5m{slo="latency", site=~"$site"} / slo:requests:rate5m)'),
                    unit=SHARE,
                    decimals=1,
                    steps=limits.below(0.95, limits.WARNING),
                    link="slo",
                ),
                now(
                    "Busiest instance",
                    "Share of the threads in use of the busiest instance. Above 80 % is a P3.",
                    Prom('max(instance:bank_threads:ratio{site=~"$site"})'),
                    unit=SHARE,
                    steps=limits.SATURATION,
                    link="services",
                ),
            ),
        ),
        Row(
            "Traffic",
            (
                over_time(
                    "Requests over half an hour",
                    "Requests each second over 30 minutes. Half of a week ago is a P3, one and a half times a P4.",
                    Prom('sum(avg_over_time(site:bank_requests:rate5m{site=~"$site"}[30m]))', "now"),
                    unit=REQUESTS_PER_SECOND,
                    width=8,
                ),
                over_time(
                    "A week ago",
                    "Requests each second over 30 minutes, a week before.",
                    Prom('sum(avg_over_time(site:bank_requests:rate5m{site=~"$site"}[30m] offset 1w))', "a week ago"),
                    unit=REQUESTS_PER_SECOND,
                    width=8,
                    empty="The platform is younger than a week.",
                ),
                over_time(
                    "Requests of each route",
                    "Requests each second, the ten busiest of the chosen routes.",
                    Prom(f"topk(10, sum by (url_rule) (rate({COUNTED}[$__rate_interval])))", "{{url_rule}}"),
                    unit=REQUESTS_PER_SECOND,
                    width=8,
                ),
                over_time(
                    "Requests of each instance",
                    "Requests each second for the chosen routes: instances should get alike.",
                    Prom(f"sum by (instance) (rate({COUNTED}[$__rate_interval]))", "{{instance}}"),
                    unit=REQUESTS_PER_SECOND,
                    width=12,
                ),
                over_time(
                    "Answers by class of status",
                    "Answers of the load balancers each second, by class of status.",
                    Prom(
                        "sum by (code) (rate(haproxy_frontend_http_responses_total"
                        '{proxy="bank_https", site=~"$site"}[$__rate_interval]))',
                        "{{code}}",
                    ),
                    unit=REQUESTS_PER_SECOND,
                    stacked=True,
                    colours={"5xx": limits.BAD, "4xx": limits.WARNING, "2xx": limits.GOOD, "3xx": limits.NEUTRAL},
                ),
            ),
        ),
        Row(
            "Errors",
            (
                over_time(
                    "Failed requests of the site",
                    "Share answered with 5xx over 5 minutes: 2 % is a P3, 5 % a P2.",
                    Prom('site:bank_errors:ratio_rate5m{site=~"$site"}', "{{site}}"),
                    unit=SHARE,
                    steps=limits.ERRORS,
                    width=8,
                ),
                over_time(
                    "Failed requests of each instance",
                    "Requests of the chosen routes answered with 5xx each second.",
                    Prom(
                        f"sum by (instance) (rate({FAILED}[$__rate_interval])) "
                        f"or 0 * sum by (instance) (rate({COUNTED}[$__rate_interval]))",
                        "{{instance}}",
                    ),
                    unit=PER_SECOND,
                    width=8,
                ),
                over_time(
                    "Answers by status",
                    "Answers of the chosen routes each second, by exact status.",
                    Prom(f"sum by (status) (rate({COUNTED}[$__rate_interval]))", "{{status}}"),
                    unit=REQUESTS_PER_SECOND,
                    width=8,
                ),
            ),
        ),
        Row(
            "Latency",
            (
                over_time(
                    "Percentiles of the site",
                    "Half, nineteen of twenty, and ninety-nine of a hundred requests took no longer.",
                    Prom('site:bank_request_duration_seconds:p50_5m{site=~"$site"}', "p50"),
                    Prom('site:bank_request_duration_seconds:p95_5m{site=~"$site"}', "p95"),
                    Prom('site:bank_request_duration_seconds:p99_5m{site=~"$site"}', "p99"),
                    unit=SECONDS,
                    steps=limits.P95,
                    width=8,
                ),
                over_time(
                    "Slowest twentieth of each route",
                    "95th percentile, the ten slowest of the chosen routes.",
                    Prom(
                        f"topk(10, histogram_quantile(0.95, sum by (url_rule, le) "
                        f"(rate({BUCKETS}[$__rate_interval]))))",
                        "{{url_rule}}",
                    ),
                    unit=SECONDS,
                    steps=limits.P95,
                    width=8,
                ),
                over_time(
                    "Slowest twentieth of each instance",
                    "95th percentile for the chosen routes.",
                    Prom(
                        f"histogram_quantile(0.95, sum by (instance, le) (rate({BUCKETS}[$__rate_interval])))",
                        "{{instance}}",
                    ),
                    unit=SECONDS,
                    steps=limits.P95,
                    width=8,
                ),
            ),
        ),
        Row(
            "Routes",
            (
                listing(
                    "Routes",
                    "Rate, errors and duration of each chosen route over the last hour.",
                    {"url_rule": "Route"},
                    Column("Requests", Prom(f"sum by (url_rule) (increase({COUNTED}[1h]))")),
                    Column(
                        "Failed",
                        Prom(
                            f"(sum by (url_rule) (increase({FAILED}[1h])) or 0 * sum by (url_rule) "
                            f"(increase({COUNTED}[1h]))) "
                            f"/ sum by (url_rule) (increase({COUNTED}[1h]))"
                        ),
                        SHARE,
                        limits.ERRORS,
                    ),
                    Column(
                        "Slowest twentieth",
                        Prom(f"histogram_quantile(0.95, sum by (url_rule, le) (increase({BUCKETS}[1h])))"),
                        SECONDS,
                        limits.P95,
                    ),
                    height=10,
                    sort="Requests",
                ),
            ),
        ),
    ),
    variables=(SITE, instance("bank", "Instance"), ROUTE),
    runbooks=("golden_signals.md",),
)
