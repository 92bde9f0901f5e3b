"""Alerts and the machinery that brings them: what fires, what fired, and whether anybody is told."""

from files.grafana import limits
from files.grafana.board import SEVERITIES, SITE, Board, Row, alert_list, firing
from files.grafana.panels import PER_SECOND, SECONDS, YES_NO, Column, listing, now, over_time, ranking
from files.grafana.queries import Prom

# Prometheus evaluates its rules so often; a sample of ALERTS stands for that long.
EVALUATION_SECONDS = 15
COLOURS = {severity.upper(): colour for severity, (_, colour) in SEVERITIES.items()}
FIRING = 'ALERTS{alertstate="firing", alertname!="Watchdog", site=~"$site"}'


def mean(histogram: str) -> str:
    """Return the mean of a histogram in the time shown, by severity."""
    summed = 'sum by (severity) (increase({}_{}{{site=~"$site"}}[$__range]))'
    return f"{summed.format(histogram, 'sum')} / ({summed.format(histogram, 'count')} > 0)"


BOARD = Board(
    "alerts",
    "Alerts and incidents",
    "What fires, what fired and for how long, and whether alerts reach people.",
    (
        Row(
            "Now",
            (
                *tuple(
                    now(
                        text,
                        f"Alerts of severity {text} that fire.",
                        Prom(f"count({firing(severities=severity)}) or vector(0)"),
                        steps=limits.above(1, colour),
                        width=3,
                    )
                    for severity, (text, colour) in SEVERITIES.items()
                ),
                now(
                    "Alerting works",
                    "Whether the alert that always fires does so. If not, every silence is worthless.",
                    Prom('count(ALERTS{alertname="Watchdog", alertstate="firing"}) or vector(0)'),
                    steps=limits.ALIVE,
                    meanings=YES_NO,
                    width=3,
                ),
                now(
                    "Pending",
                    "Alerts whose condition holds, but not yet for long enough.",
                    Prom('count(ALERTS{alertstate="pending", site=~"$site"}) or vector(0)'),
                    width=3,
                    steps=limits.above(1, limits.NOTICE),
                ),
                now(
                    "Told to Alertmanager",
                    "Alerts that Alertmanager holds as active, silenced ones left out.",
                    Prom('max(alertmanager_alerts{state="active", site=~"$site"})'),
                    width=3,
                ),
                now(
                    "Silenced",
                    "Alerts that Alertmanager holds back for a silence or a graver alert.",
                    Prom('max(alertmanager_alerts{state="suppressed", site=~"$site"})'),
                    width=3,
                    steps=limits.above(1, limits.NOTICE),
                ),
                alert_list(
                    "What is wrong now",
                    "Every alert that fires, and for how long what it looks at has been so. The message of each "
                    "links its runbook.",
                    firing(),
                    empty="No alert fires.",
                    width=24,
                    height=8,
                ),
            ),
        ),
        Row(
            "What was",
            (
                over_time(
                    "Alerts that fired",
                    "How many fired at a time, by severity.",
                    *(
                        Prom(f"count({firing(severities=severity)}) or vector(0)", severity.upper())
                        for severity in SEVERITIES
                    ),
                    bars=True,
                    stacked=True,
                    colours=COLOURS,
                    width=16,
                ),
                ranking(
                    "Time firing",
                    "How long each alert fired in this time, all its places added up, the ten longest.",
                    Prom(
                        f"topk(10, sum by (alertname) (count_over_time({FIRING}[$__range]))) * {EVALUATION_SECONDS}",
                        "{{alertname}}",
                    ),
                    unit=SECONDS,
                    empty="No alert fired in this time.",
                ),
                over_time(
                    "Alerts that the bank was told of",
                    "Alerts within an hour that came to the bank's list of incidents, and their ends.",
                    Prom(
                        'sum by (severity, status) (increase(bank_alert_webhook_received_total{site=~"$site"}[1h]))',
                        "{{severity}} {{status}}",
                    ),
                    width=16,
                ),
                ranking(
                    "Mean time that an alert fired",
                    "Time firing in this time, divided by how often it began, the ten longest.",
                    Prom(
                        f"topk(10, sum by (alertname) (count_over_time({FIRING}[$__range])) * {EVALUATION_SECONDS} "
                        "/ on (alertname) sum by (alertname) (1 + changes("
                        'ALERTS_FOR_STATE{alertname!="Watchdog", site=~"$site"}[$__range])))',
                        "{{alertname}}",
                    ),
                    unit=SECONDS,
                    empty="No alert fired in this time.",
                ),
            ),
        ),
        Row(
            "How long it took",
            (
                ranking(
                    "Until the bank was told",
                    "Mean time in this time from when the rule of an alert began to fire until the bank's list had it. "
                    "What a rule waits before it fires, and what passed before that, is not in it.",
                    Prom(mean("bank_alert_told_seconds"), "{{severity}}"),
                    unit=SECONDS,
                    empty="The bank was told of no alert in this time.",
                ),
                over_time(
                    "Told within",
                    "Nine of ten alerts within an hour were in the bank's list so long after their rule began to fire.",
                    Prom(
                        "histogram_quantile(0.9, sum by (severity, le) "
                        '(increase(bank_alert_told_seconds_bucket{site=~"$site"}[1h])) > 0)',
                        "{{severity}}",
                    ),
                    unit=SECONDS,
                    empty="The bank was told of no alert in this time.",
                ),
                ranking(
                    "Until it was over",
                    "Mean time in this time that alerts fired whose end the bank was told.",
                    Prom(mean("bank_alert_lasted_seconds"), "{{severity}}"),
                    unit=SECONDS,
                    empty="No alert ended in this time.",
                    width=4,
                ),
            ),
        ),
        Row(
            "Whether anybody is told",
            (
                over_time(
                    "Notifications",
                    "Notifications within an hour, by the way they went.",
                    Prom(
                        'sum by (integration) (increase(alertmanager_notifications_total{site=~"$site"}[1h]))',
                        "{{integration}}",
                    ),
                    width=8,
                ),
                over_time(
                    "Notifications that failed",
                    "Notifications within 15 minutes that reached nobody. One is a P2.",
                    Prom(
                        'sum by (integration) (increase(alertmanager_notifications_failed_total{site=~"$site"}[15m]))',
                        "{{integration}}",
                    ),
                    steps=limits.ANY,
                    width=8,
                ),
                over_time(
                    "Alerts lost on the way",
                    "Alerts within 5 minutes that reached no Alertmanager. One is a P2.",
                    Prom(
                        'sum by (instance) (increase(prometheus_notifications_dropped_total{site=~"$site"}[5m]))',
                        "{{instance}}",
                    ),
                    steps=limits.ANY,
                    width=8,
                ),
                listing(
                    "Prometheus and Alertmanager",
                    "Whether each runs on the configuration that it was given last.",
                    {"job": "Service", "instance": "Host"},
                    Column(
                        "Took its configuration",
                        Prom(
                            'max by (job, instance) (prometheus_config_last_reload_successful{site=~"$site"} '
                            'or alertmanager_config_last_reload_successful{site=~"$site"})'
                        ),
                        meanings=YES_NO,
                    ),
                    width=8,
                ),
                over_time(
                    "Rules that failed or came late",
                    "Evaluations within 5 minutes that failed or were left out. Both are a P3 if they go on.",
                    Prom(
                        'sum by (instance) (increase(prometheus_rule_evaluation_failures_total{site=~"$site"}[5m]))',
                        "{{instance}} failed",
                    ),
                    Prom(
                        "sum by (instance) "
                        '(increase(prometheus_rule_group_iterations_missed_total{site=~"$site"}[5m]))',
                        "{{instance}} left out",
                    ),
                    steps=limits.above(1, limits.WARNING),
                    width=8,
                ),
                over_time(
                    "Samples",
                    "Samples that Prometheus takes in each second.",
                    Prom(
                        "sum by (instance) "
                        '(rate(prometheus_tsdb_head_samples_appended_total{site=~"$site"}[$__rate_interval]))',
                        "{{instance}}",
                    ),
                    unit=PER_SECOND,
                    width=8,
                ),
            ),
        ),
    ),
    variables=(SITE,),
    runbooks=("README.md", "alertmanager.md", "prometheus.md"),
    since="now-24h",
    shows_its_alerts=False,
)
