"""Redis: sessions, counters and caches of the bank."""

from files.grafana import limits
from files.grafana.board import SITE, Board, Row, instance
from files.grafana.panels import BYTES, BYTES_PER_SECOND, PER_SECOND, SECONDS, SHARE, UP_DOWN, now, over_time
from files.grafana.queries import Prom

CHOSEN = 'site=~"$site", instance=~"$instance"'

BOARD = Board(
    "redis",
    "Redis",
    "Sessions, counters and caches of the bank: memory, connections, commands, and whether the data can be saved.",
    (
        Row(
            "Now",
            (
                now(
                    "Redis",
                    "Whether it answers its exporter. Down for 30 seconds is a P1: nobody logs in.",
                    Prom(f"min(redis_up{{{CHOSEN}}})"),
                    steps=limits.below(1, limits.WORST),
                    meanings=UP_DOWN,
                ),
                now(
                    "Memory",
                    "Share of the memory that it may use. Above 85 % is a P3, above 90 % a P2.",
                    Prom(f'max(capacity:used:ratio{{resource="memory of Redis", {CHOSEN}}})'),
                    unit=SHARE,
                    decimals=1,
                    steps=limits.of_alert("RedisMemoryHigh", 0.01),
                    empty="Redis has no limit of its own.",
                ),
                now(
                    "Connections",
                    "Share of the connections that it allows. Above 80 % is a P3.",
                    Prom(f"max(redis_connected_clients{{{CHOSEN}}} / redis_max_clients)"),
                    unit=SHARE,
                    decimals=1,
                    steps=limits.of_alert("RedisConnectionsHigh"),
                ),
                now(
                    "Keys",
                    "Sessions, counters and cached answers that it keeps.",
                    Prom(f"sum(redis_db_keys{{{CHOSEN}}})"),
                ),
                now(
                    "Last save",
                    "Whether the last attempt to write the data to disk worked. If not, a P2.",
                    Prom(f"min(redis_aof_last_write_status{{{CHOSEN}}} * redis_rdb_last_bgsave_status)"),
                    steps=limits.ALIVE,
                    meanings={"1": ("worked", limits.GOOD), "0": ("failed", limits.BAD)},
                ),
                now(
                    "Running for",
                    "Time since Redis was started.",
                    Prom(f"min(redis_uptime_in_seconds{{{CHOSEN}}})"),
                    unit=SECONDS,
                ),
            ),
        ),
        Row(
            "Work",
            (
                over_time(
                    "Commands",
                    "Commands each second, the ten most frequent.",
                    Prom(
                        f"topk(10, sum by (cmd) (rate(redis_commands_total{{{CHOSEN}}}[$__rate_interval])))", "{{cmd}}"
                    ),
                    unit=PER_SECOND,
                    width=8,
                ),
                over_time(
                    "Time of a command",
                    "Mean time in Redis, the ten slowest commands.",
                    Prom(
                        f"topk(10, sum by (cmd) "
                        f"(rate(redis_commands_duration_seconds_total{{{CHOSEN}}}[$__rate_interval])) "
                        f"/ (sum by (cmd) (rate(redis_commands_total{{{CHOSEN}}}[$__rate_interval])) > 0))",
                        "{{cmd}}",
                    ),
                    unit=SECONDS,
                    width=8,
                ),
                over_time(
                    "Keys that were found",
                    "Share of the look-ups that found their key. Few is no fault: limits are looked up, too.",
                    Prom(
                        f"rate(redis_keyspace_hits_total{{{CHOSEN}}}[5m]) / "
                        f"(rate(redis_keyspace_hits_total{{{CHOSEN}}}[5m]) "
                        f"+ rate(redis_keyspace_misses_total{{{CHOSEN}}}[5m]))",
                        "{{instance}}",
                    ),
                    unit=SHARE,
                    most=1,
                    width=8,
                ),
            ),
        ),
        Row(
            "Memory and connections",
            (
                over_time(
                    "Memory",
                    "Memory in use, and what it may use.",
                    Prom(f"redis_memory_used_bytes{{{CHOSEN}}}", "{{instance}} used"),
                    Prom(f"redis_memory_max_bytes{{{CHOSEN}}}", "{{instance}} limit"),
                    unit=BYTES,
                    width=8,
                ),
                over_time(
                    "Keys removed",
                    "Keys each second that reached their end, and that were removed for want of memory, which is a P3.",
                    Prom(f"rate(redis_expired_keys_total{{{CHOSEN}}}[$__rate_interval])", "{{instance}} at their end"),
                    Prom(
                        f"rate(redis_evicted_keys_total{{{CHOSEN}}}[$__rate_interval])",
                        "{{instance}} for want of memory",
                    ),
                    unit=PER_SECOND,
                    width=8,
                ),
                over_time(
                    "Connections",
                    "Clients that are connected, and those held up by a command that waits.",
                    Prom(f"redis_connected_clients{{{CHOSEN}}}", "{{instance}} connected"),
                    Prom(f"redis_blocked_clients{{{CHOSEN}}}", "{{instance}} waiting"),
                    width=8,
                ),
                over_time(
                    "Refused connections",
                    "Connections refused within 5 minutes because the limit was reached. One is a P2.",
                    Prom(f"increase(redis_rejected_connections_total{{{CHOSEN}}}[5m])", "{{instance}}"),
                    steps=limits.ANY,
                    width=8,
                ),
                over_time(
                    "Network",
                    "Bytes received and sent each second.",
                    Prom(f"rate(redis_net_input_bytes_total{{{CHOSEN}}}[$__rate_interval])", "{{instance}} received"),
                    Prom(f"rate(redis_net_output_bytes_total{{{CHOSEN}}}[$__rate_interval])", "{{instance}} sent"),
                    unit=BYTES_PER_SECOND,
                    width=8,
                ),
                over_time(
                    "Time of Redis as the bank sees it",
                    "95th percentile by command, with the network between.",
                    Prom(
                        "histogram_quantile(0.95, sum by (command, le) (rate(bank_redis_command_duration_seconds_bucket"
                        '{site=~"$site"}[$__rate_interval])))',
                        "{{command}}",
                    ),
                    unit=SECONDS,
                    width=8,
                ),
            ),
        ),
    ),
    variables=(SITE, instance("redis")),
    runbooks=("redis.md",),
)
