"""The bank's business: money that moves, orders that are refused, books that add up, and people who log in."""

from files.grafana import limits
from files.grafana.board import Board, Row
from files.grafana.panels import COUNT, PER_SECOND, SECONDS, SHARE, WHOLE_BROKEN, now, over_time
from files.grafana.queries import Prom

BOARD = Board(
    "business",
    "Business",
    "Transfers and payments by outcome, money moved, what waits for a second person, and whether the books add up.",
    (
        Row(
            "Books",
            (
                now(
                    "Out of balance",
                    "By how many minor units the ledger is off. Anything but 0 is a P1.",
                    Prom('max(bank_ledger_imbalance_minor_units{site=~"$site"})'),
                    steps=limits.above(1, limits.WORST),
                ),
                now(
                    "Findings",
                    "Rows that the last reconciliation found wrong. Anything but 0 is a P1.",
                    Prom('max(bank_reconcile_findings{site=~"$site"})'),
                    steps=limits.above(1, limits.WORST),
                ),
                now(
                    "Last reconciliation",
                    "How long ago the books were checked. Above an hour is a P2.",
                    Prom('time() - max(bank_reconcile_last_timestamp_seconds{site=~"$site"})'),
                    unit=SECONDS,
                    steps=limits.of_alert("ReconciliationStale"),
                ),
                now(
                    "Audit trail",
                    "Whether the last check found the audit trail whole. Broken is a P1.",
                    Prom('min(bank_audit_chain_valid{site=~"$site"})'),
                    steps=limits.below(1, limits.WORST),
                    meanings=WHOLE_BROKEN,
                ),
                now(
                    "Last check of the audit trail",
                    "How long ago. Above three hours is a P2.",
                    Prom('time() - max(bank_audit_last_check_timestamp_seconds{site=~"$site"})'),
                    unit=SECONDS,
                    steps=limits.of_alert("AuditTrailUnchecked"),
                ),
                now(
                    "Standing orders overdue",
                    "Standing orders that nobody carried out. Above 0 for 10 minutes is a P2.",
                    Prom('max(bank_standing_orders_overdue{site=~"$site"})'),
                    steps=limits.ANY,
                ),
            ),
        ),
        Row(
            "Money that moves",
            (
                over_time(
                    "Transfers and payments by outcome",
                    "Orders each second by how they ended.",
                    Prom(
                        'sum by (outcome) (rate(bank_transfers_total{site=~"$site"}[$__rate_interval]))', "{{outcome}}"
                    ),
                    unit=PER_SECOND,
                    stacked=True,
                    colours={"error": limits.BAD, "completed": limits.GOOD},
                ),
                over_time(
                    "Orders that end in an error of the bank",
                    "Share of all orders over 5 minutes. Above 5 % is a P2.",
                    Prom('slo:errors:rate5m{slo="transfers", site=~"$site"} / slo:requests:rate5m', "{{site}}"),
                    unit=SHARE,
                    steps=limits.of_alert("TransfersFailing"),
                ),
                over_time(
                    "Transfers and payments",
                    "Orders within an hour, by kind.",
                    Prom('sum by (type) (increase(bank_transfers_total{site=~"$site"}[1h]))', "{{type}}"),
                    width=8,
                ),
                over_time(
                    "Money moved",
                    "Minor units of each currency (cents for the euro) moved within an hour.",
                    Prom(
                        'sum by (currency) (increase(bank_transfer_amount_minor_units_total{site=~"$site"}[1h]))',
                        "{{currency}}",
                    ),
                    width=8,
                ),
                over_time(
                    "Time to carry out an order",
                    "95th percentile and mean. Its share of a request's time is in the traces.",
                    Prom(
                        "histogram_quantile(0.95, sum by (le) (rate(bank_transfer_duration_seconds_bucket"
                        '{site=~"$site"}[$__rate_interval])))',
                        "p95",
                    ),
                    Prom(
                        'sum(rate(bank_transfer_duration_seconds_sum{site=~"$site"}[$__rate_interval])) '
                        '/ sum(rate(bank_transfer_duration_seconds_count{site=~"$site"}[$__rate_interval]))',
                        "mean",
                    ),
                    unit=SECONDS,
                    steps=limits.P95,
                    width=8,
                ),
                over_time(
                    "Refused orders",
                    "Orders within an hour that the bank refused for a reason of the customer's.",
                    Prom(
                        'sum by (outcome) (increase(bank_transfers_total{outcome!~"completed|waiting|error", '
                        'site=~"$site"}[1h]))',
                        "{{outcome}}",
                    ),
                    width=12,
                ),
                over_time(
                    "Forms sent again",
                    "Orders within an hour that came a second time; a conflict had other contents.",
                    Prom('sum by (result) (increase(bank_idempotent_replays_total{site=~"$site"}[1h]))', "{{result}}"),
                    width=12,
                ),
            ),
        ),
        Row(
            "Fraud",
            (
                over_time(
                    "Judged orders by decision",
                    "Orders within an hour. Flagged ones are carried out and shown to staff, held ones wait.",
                    Prom('sum by (decision) (increase(bank_fraud_decisions_total{site=~"$site"}[1h]))', "{{decision}}"),
                    width=8,
                    colours={"allowed": limits.GOOD, "flagged": limits.WARNING, "held": limits.BAD},
                ),
                over_time(
                    "How suspicious orders are",
                    "Score that half of an hour's orders do not exceed, and 95 of 100. Flagged from 60, held from 80.",
                    Prom(
                        'histogram_quantile(0.5, sum by (le) (increase(bank_fraud_score_bucket{site=~"$site"}[1h])))',
                        "half",
                    ),
                    Prom(
                        'histogram_quantile(0.95, sum by (le) (increase(bank_fraud_score_bucket{site=~"$site"}[1h])))',
                        "95 of 100",
                    ),
                    width=8,
                ),
                over_time(
                    "What made orders suspicious",
                    "Orders within an hour that an indicator gave points.",
                    Prom(
                        'sum by (indicator) (increase(bank_fraud_indicator_hits_total{site=~"$site"}[1h]))',
                        "{{indicator}}",
                    ),
                    width=8,
                ),
            ),
        ),
        Row(
            "What waits",
            (
                now(
                    "Orders that wait for a second person",
                    "Movements that somebody else must approve.",
                    Prom('max(bank_pending_approvals{site=~"$site"})'),
                    unit=COUNT,
                    width=6,
                ),
                now(
                    "Oldest of them",
                    "How long it has waited. Above 4 hours is a P3; after 24 hours it ends by itself.",
                    Prom('max(bank_pending_approvals_oldest_seconds{site=~"$site"})'),
                    unit=SECONDS,
                    steps=limits.of_alert("ApprovalsWait"),
                    width=6,
                ),
                now(
                    "Log-ins of the last hour",
                    "Log-ins that succeeded.",
                    Prom('sum(increase(bank_logins_total{outcome="success", site=~"$site"}[1h]))'),
                    decimals=0,
                    width=6,
                    link="security",
                ),
                now(
                    "Orders of the last hour",
                    "Transfers and payments, whatever their outcome.",
                    Prom('sum(increase(bank_transfers_total{site=~"$site"}[1h]))'),
                    decimals=0,
                    width=6,
                ),
            ),
        ),
    ),
    runbooks=("bank.md",),
)
