"""Objectives, what is left of their error budgets, and how fast it is spent."""

from files.grafana import limits
from files.grafana.board import SITE, Board, Row, Variable
from files.grafana.panels import PER_SECOND, SECONDS, SHARE, Column, listing, now, over_time, ranking
from files.grafana.queries import Prom

CHOSEN = 'slo=~"$slo", site=~"$site"'
WINDOWS = ("5m", "30m", "1h", "2h", "6h", "1d", "3d", "30d")
# The long window in which each severity looks for its factor, the most urgent first.
PAGES = dict(zip(("1h", "6h", "1d", "3d"), reversed(limits.BURN[1:]), strict=True))
FASTEST = ((None, limits.GOOD), PAGES["1h"])
MONTH = 30 * 86400

BOARD = Board(
    "slo",
    "Objectives and error budgets",
    "What was promised over 30 days, what is left of the failures that it allows, and how fast they are spent. A "
    "budget "
    "that is spent means: stability before new releases.",
    (
        Row(
            "Over 30 days",
            (
                listing(
                    "Objectives",
                    "The objective, the share that was good over 30 days, and the budget that is left: 0 is spent, "
                    "less is overdrawn.",
                    {"slo": "Objective", "site": "Site"},
                    Column(
                        "Promised",
                        Prom(
                            'sum by (slo, site) (0 * slo:error_budget_left:ratio{slo=~"$slo", site=~"$site"} '
                            "+ on (slo) group_left () slo:objective:ratio)"
                        ),
                        SHARE,
                    ),
                    Column(
                        "Reached",
                        Prom(
                            'sum by (slo, site) (1 - slo:burn_rate:30d{slo=~"$slo", site=~"$site"} '
                            "* on (slo) group_left () (1 - slo:objective:ratio))"
                        ),
                        SHARE,
                    ),
                    Column(
                        "Budget left",
                        Prom(f"sum by (slo, site) (slo:error_budget_left:ratio{{{CHOSEN}}})"),
                        SHARE,
                        limits.BUDGET,
                    ),
                    Column(
                        "Spent in",
                        Prom(
                            f"sum by (slo, site) (clamp_min(clamp_max(slo:error_budget_left:ratio{{{CHOSEN}}} "
                            f"/ slo:burn_rate:6h, 1), 0) * {MONTH})"
                        ),
                        SECONDS,
                        limits.below(3 * 86400, limits.WARNING),
                    ),
                    width=14,
                    height=7,
                    sort="Objective",
                ),
                ranking(
                    "Error budget left",
                    "Share of the failures that 30 days allow which are still allowed. 25 % left is little.",
                    Prom(f"slo:error_budget_left:ratio{{{CHOSEN}}}", "{{slo}} {{site}}"),
                    unit=SHARE,
                    steps=limits.BUDGET,
                    least=0,
                    most=1,
                    width=10,
                    height=7,
                ),
                over_time(
                    "Error budget over time",
                    "How the budget went down and came back as old failures leave the 30 days.",
                    Prom(f"slo:error_budget_left:ratio{{{CHOSEN}}}", "{{slo}} {{site}}"),
                    unit=SHARE,
                    steps=limits.BUDGET,
                    least=None,
                    width=24,
                ),
            ),
        ),
        Row(
            "How fast it is spent: 1 spends the budget in exactly 30 days",
            (
                *tuple(
                    now(
                        f"Over {window}",
                        f"Burn rate over {window}. From {factor:g} on, an alert fires if it still goes on.",
                        Prom(f"max(slo:burn_rate:{window}{{{CHOSEN}}})"),
                        decimals=2,
                        steps=limits.above(factor, colour),
                        width=6,
                    )
                    for window, (factor, colour) in PAGES.items()
                ),
                over_time(
                    "Short windows",
                    "Burn rates over 5 minutes and 1 hour: both above 14.4 is a P1.",
                    Prom(f"slo:burn_rate:5m{{{CHOSEN}}}", "{{slo}} 5 min"),
                    Prom(f"slo:burn_rate:1h{{{CHOSEN}}}", "{{slo}} 1 h"),
                    steps=FASTEST,
                ),
                over_time(
                    "Long windows",
                    "Burn rates over 6 hours (from 6 on P2), 1 day (3, P3) and 3 days (1, P4).",
                    Prom(f"slo:burn_rate:6h{{{CHOSEN}}}", "{{slo}} 6 h"),
                    Prom(f"slo:burn_rate:1d{{{CHOSEN}}}", "{{slo}} 1 d"),
                    Prom(f"slo:burn_rate:3d{{{CHOSEN}}}", "{{slo}} 3 d"),
                    steps=limits.BURN[:-1],
                ),
                listing(
                    "Burn rate in every window",
                    "Each objective in all windows that the alerts look at.",
                    {"slo": "Objective", "site": "Site"},
                    *(
                        Column(
                            window, Prom(f"sum by (slo, site) (slo:burn_rate:{window}{{{CHOSEN}}})"), steps=limits.BURN
                        )
                        for window in WINDOWS
                    ),
                    height=6,
                ),
            ),
        ),
        Row(
            "What spends it",
            (
                over_time(
                    "Events that missed their objective",
                    "Requests or orders each second over 5 minutes that count against it.",
                    Prom(f"slo:errors:rate5m{{{CHOSEN}}}", "{{slo}} {{site}}"),
                    unit=PER_SECOND,
                ),
                over_time(
                    "Events that count",
                    "All requests or orders each second over 5 minutes.",
                    Prom(f"slo:requests:rate5m{{{CHOSEN}}}", "{{slo}} {{site}}"),
                    unit=PER_SECOND,
                ),
            ),
        ),
    ),
    variables=(SITE, Variable("slo", "Objective", "label_values(slo:objective:ratio, slo)")),
    runbooks=("slo.md",),
    since="now-24h",
    refresh="1m",
)
