"""Capacity: how much of each limit is used, and when it will be reached at the pace of now."""

from files.grafana import limits
from files.grafana.board import SITE, Board, Row, Variable
from files.grafana.panels import SHARE, Column, listing, now, over_time, ranking
from files.grafana.queries import Prom

CHOSEN = 'site=~"$site", instance=~"$instance"'
USED = f"capacity:used:ratio{{{CHOSEN}}}"
STEPS = (*limits.SATURATION, *limits.DISK[1:])
PLACE = "resource, instance, mountpoint, datname"
LEGEND = "{{resource}} {{instance}} {{mountpoint}}{{datname}}"

BOARD = Board(
    "capacity",
    "Capacity",
    "How much of each limit is used, and how it goes on. The capacity report (docs/operations.md) draws the line for "
    "longer.",
    (
        Row(
            "Now",
            (
                now(
                    "Above 80 %",
                    "Resources of which more than four fifths are used.",
                    Prom(f"count({USED} > 0.8) or vector(0)"),
                    steps=limits.above(1, limits.WARNING),
                ),
                now(
                    "Above 90 %",
                    "Resources that are nearly used up.",
                    Prom(f"count({USED} > 0.9) or vector(0)"),
                    steps=limits.ANY,
                ),
                now(
                    "Full within a day",
                    "Resources that reach their limit within 24 hours at the pace of the last 6 hours.",
                    Prom(f"count(predict_linear({USED}[6h], 86400) > 1 and {USED} > 0.5) or vector(0)"),
                    steps=limits.above(1, limits.WARNING),
                ),
                ranking(
                    "Most used",
                    "The fifteen resources of which the largest share is used.",
                    Prom(f"topk(15, {USED})", LEGEND),
                    unit=SHARE,
                    steps=STEPS,
                    most=1,
                    width=12,
                    height=12,
                ),
            ),
        ),
        Row(
            "Over time: the highest of each quarter of an hour",
            (
                over_time(
                    "Disks and their entries",
                    "Share that is used. Above 90 % is a P2.",
                    Prom(f'max_over_time(capacity:used:ratio{{resource=~"disk|file entries", {CHOSEN}}}[15m])', LEGEND),
                    unit=SHARE,
                    steps=limits.DISK,
                    most=1,
                ),
                over_time(
                    "Processors and memory",
                    "Share that is used. Above 80 % of the processors is a P4, above 90 % of the memory a P2.",
                    Prom(
                        f'max_over_time(capacity:used:ratio{{resource=~"processors|memory.*", {CHOSEN}}}[15m])', LEGEND
                    ),
                    unit=SHARE,
                    steps=STEPS,
                    most=1,
                ),
                over_time(
                    "Connections and requests at a time",
                    "Share that is used. Above 80 % is a P3.",
                    Prom(
                        f'max_over_time(capacity:used:ratio{{resource=~".*connections.*|requests.*", {CHOSEN}}}[15m])',
                        LEGEND,
                    ),
                    unit=SHARE,
                    steps=limits.SATURATION,
                    most=1,
                    width=24,
                ),
            ),
        ),
        Row(
            "Forecast",
            (
                listing(
                    "At the pace of the last 6 hours",
                    "Share that is used now, in a day and in a week if it goes on so. A line is no prophet.",
                    {"resource": "Resource", "instance": "Host", "mountpoint": "Disk", "datname": "Database"},
                    Column("Now", Prom(f"max by ({PLACE}) ({USED})"), SHARE, STEPS),
                    Column("In a day", Prom(f"max by ({PLACE}) (predict_linear({USED}[6h], 86400))"), SHARE, STEPS),
                    Column("In a week", Prom(f"max by ({PLACE}) (predict_linear({USED}[6h], 604800))"), SHARE, STEPS),
                    height=14,
                    sort="Now",
                ),
            ),
        ),
    ),
    variables=(
        SITE,
        Variable("instance", "Host", 'label_values(capacity:used:ratio{site=~"$site"}, instance)'),
    ),
    runbooks=("hosts.md", "golden_signals.md"),
    since="now-24h",
    refresh="1m",
    alerts=(
        "HostDiskAlmostFull",
        "HostDiskFullIn24Hours",
        "HostMemoryHigh",
        "HostCpuHigh",
        "HostInodesAlmostUsedUp",
        "HostInodesUsedUpIn24Hours",
        "PostgresqlConnectionsHigh",
        "RedisMemoryHigh",
        "RedisConnectionsHigh",
        "HaproxyConnectionsHigh",
        "ApiSaturated",
        "ApiDatabasePoolSaturated",
    ),
)
