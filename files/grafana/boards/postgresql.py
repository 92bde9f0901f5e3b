"""PostgreSQL: whether it answers, what it does, what waits, and what will run out."""

from files.grafana import limits
from files.grafana.board import SITE, Board, Row, Variable, instance
from files.grafana.panels import BYTES, PER_SECOND, SECONDS, SHARE, UP_DOWN, now, over_time, rows
from files.grafana.queries import Prom, Sql

CHOSEN = 'site=~"$site", instance=~"$instance"'
OF_DATABASE = f'{CHOSEN}, datname=~"$database"'

# The data source's user may read statistics, and no table of the bank.
LARGEST = """
select relname::text as name, pg_total_relation_size(relid) as size, pg_indexes_size(relid) as index_size,
  n_live_tup as lines, extract(epoch from now() - greatest(last_vacuum, last_autovacuum))::float8 as cleaned
from pg_stat_user_tables order by size desc limit 10
"""
OPEN = """
select usename::text as name, coalesce(host(client_addr), 'this host') as client, state as state,
  coalesce(wait_event_type, 'nothing') as waits, extract(epoch from now() - xact_start)::float8 as age
from pg_stat_activity where xact_start is not null and pid <> pg_backend_pid() and backend_type = 'client backend'
order by xact_start limit 10
"""
UNUSED = """
select s.indexrelname::text as name, s.relname::text as of_table, pg_relation_size(s.indexrelid) as size
from pg_stat_user_indexes s join pg_index i on i.indexrelid = s.indexrelid
where s.idx_scan = 0 and not i.indisunique order by size desc limit 10
"""

BOARD = Board(
    "postgresql",
    "PostgreSQL",
    "The database of the bank: connections, transactions, locks, reads from disk, and what its housekeeping is behind.",
    (
        Row(
            "Now",
            (
                now(
                    "PostgreSQL",
                    "Whether it answers its exporter. Down for 30 seconds is a P1.",
                    Prom(f"min(pg_up{{{CHOSEN}}})"),
                    steps=limits.below(1, limits.WORST),
                    meanings=UP_DOWN,
                ),
                now(
                    "Connections",
                    "Share of the connections that it allows. Above 80 % is a P3, above 95 % a P2.",
                    Prom(f'max(capacity:used:ratio{{resource="connections to PostgreSQL", {CHOSEN}}})'),
                    unit=SHARE,
                    steps=limits.of_alert("PostgresqlConnectionsHigh"),
                    decimals=1,
                ),
                now(
                    "Longest transaction",
                    "How long the oldest transaction has been open. Above 10 minutes is a P3.",
                    Prom(f"max(pg_stat_activity_max_tx_duration{{{OF_DATABASE}}})"),
                    unit=SECONDS,
                    steps=limits.of_alert("PostgresqlTransactionOpen"),
                ),
                now(
                    "Sessions that wait for locks",
                    "Sessions held up by another one. Above 5 is a P2.",
                    Prom(f'sum(pg_stat_activity_count{{wait_event_type="Lock", {OF_DATABASE}}}) or vector(0)'),
                    steps=limits.of_alert("PostgresqlLockWaits"),
                ),
                now(
                    "Oldest row",
                    "Age of the oldest row in transactions. Cleaning begins at 200 million; 500 million is a P3.",
                    Prom(f"max(pg_database_wraparound_age_datfrozenxid_seconds{{{OF_DATABASE}}})"),
                    steps=limits.of_alert("PostgresqlWraparoundNear"),
                ),
                now(
                    "Running for",
                    "Time since PostgreSQL was started.",
                    Prom(f"time() - min(pg_postmaster_start_time_seconds{{{CHOSEN}}})"),
                    unit=SECONDS,
                ),
            ),
        ),
        Row(
            "Sessions",
            (
                over_time(
                    "Sessions by state",
                    "Connections by what they do. Many that are idle in transaction hold locks for nothing.",
                    Prom(f"sum by (state) (pg_stat_activity_count{{{OF_DATABASE}}})", "{{state}}"),
                    stacked=True,
                    width=8,
                ),
                over_time(
                    "Connections",
                    "Share of the connections that PostgreSQL allows, the highest of 5 minutes.",
                    Prom(f'capacity:used:ratio{{resource="connections to PostgreSQL", {CHOSEN}}}', "{{instance}}"),
                    unit=SHARE,
                    steps=limits.of_alert("PostgresqlConnectionsHigh"),
                    most=1,
                    width=8,
                ),
                over_time(
                    "Locks",
                    "Locks that are held, by kind.",
                    Prom(f"sum by (mode) (pg_locks_count{{{OF_DATABASE}}}) > 0", "{{mode}}"),
                    width=8,
                ),
            ),
        ),
        Row(
            "Work",
            (
                over_time(
                    "Transactions",
                    "Transactions each second that were committed and rolled back.",
                    Prom(
                        f"sum by (datname) (rate(pg_stat_database_xact_commit{{{OF_DATABASE}}}[$__rate_interval]))",
                        "{{datname}} committed",
                    ),
                    Prom(
                        f"sum by (datname) (rate(pg_stat_database_xact_rollback{{{OF_DATABASE}}}[$__rate_interval]))",
                        "{{datname}} rolled back",
                    ),
                    unit=PER_SECOND,
                    width=8,
                ),
                over_time(
                    "Rows",
                    "Rows each second that were inserted, changed and deleted.",
                    Prom(f"sum(rate(pg_stat_database_tup_inserted{{{OF_DATABASE}}}[$__rate_interval]))", "inserted"),
                    Prom(f"sum(rate(pg_stat_database_tup_updated{{{OF_DATABASE}}}[$__rate_interval]))", "changed"),
                    Prom(f"sum(rate(pg_stat_database_tup_deleted{{{OF_DATABASE}}}[$__rate_interval]))", "deleted"),
                    unit=PER_SECOND,
                    width=8,
                ),
                over_time(
                    "Blocks found in memory",
                    "Share of the blocks that did not have to be read. Below 99 % the memory is small.",
                    Prom(
                        f"sum by (datname) (rate(pg_stat_database_blks_hit{{{OF_DATABASE}}}[5m])) / (sum by (datname) "
                        f"(rate(pg_stat_database_blks_hit{{{OF_DATABASE}}}[5m])) + sum by (datname) "
                        f"(rate(pg_stat_database_blks_read{{{OF_DATABASE}}}[5m])))",
                        "{{datname}}",
                    ),
                    unit=SHARE,
                    steps=limits.below(0.99, limits.NOTICE),
                    most=1,
                    width=8,
                ),
                over_time(
                    "Deadlocks",
                    "Transactions ended within 10 minutes because they waited for one another. One is a P4.",
                    Prom(
                        f"sum by (datname) (increase(pg_stat_database_deadlocks{{{OF_DATABASE}}}[10m]))", "{{datname}}"
                    ),
                    steps=limits.above(1, limits.NOTICE),
                    width=8,
                ),
                over_time(
                    "Work on disk",
                    "Bytes each second written to temporary files: sorting that did not fit into memory.",
                    Prom(
                        f"sum by (datname) (rate(pg_stat_database_temp_bytes{{{OF_DATABASE}}}[$__rate_interval]))",
                        "{{datname}}",
                    ),
                    unit="binBps",
                    width=8,
                ),
                over_time(
                    "Transactions run again",
                    "By the bank, within an hour, by the state that PostgreSQL gave.",
                    Prom('sum by (sqlstate) (increase(bank_db_retries_total{site=~"$site"}[1h]))', "{{sqlstate}}"),
                    empty="The bank ran no transaction again.",
                    width=8,
                ),
            ),
        ),
        Row(
            "Size and housekeeping",
            (
                over_time(
                    "Size",
                    "Size of each database.",
                    Prom(f"max by (datname) (pg_database_size_bytes{{{OF_DATABASE}}})", "{{datname}}"),
                    unit=BYTES,
                    width=8,
                ),
                over_time(
                    "Dead rows",
                    "Rows that were replaced or deleted and still take space, the ten tables with most.",
                    Prom(
                        f"topk(10, sum by (relname) (pg_stat_user_tables_n_dead_tup{{{OF_DATABASE}}}))", "{{relname}}"
                    ),
                    width=8,
                ),
                over_time(
                    "Write-ahead log",
                    "Bytes that the write-ahead log takes on disk.",
                    Prom(f"pg_wal_size_bytes{{{CHOSEN}}}", "{{instance}}"),
                    unit=BYTES,
                    width=8,
                ),
            ),
        ),
        Row(
            "Asked of the bank's database itself",
            (
                rows(
                    "Largest tables",
                    "The ten largest tables of the bank with their indexes, about how many rows they have, and when "
                    "they were last cleaned.",
                    Sql(LARGEST),
                    {
                        "name": "Table",
                        "size": "Size",
                        "index_size": "Of it indexes",
                        "lines": "Rows",
                        "cleaned": "Cleaned",
                    },
                    units={"Size": BYTES, "Of it indexes": BYTES, "Cleaned": SECONDS},
                    empty="The bank has no table yet.",
                    width=10,
                ),
                rows(
                    "Oldest transactions",
                    "Transactions that are open now, the oldest first, without the dashboard's own. What they do is "
                    "not shown, because it may be about customers.",
                    Sql(OPEN),
                    {"name": "User", "client": "From", "state": "State", "waits": "Waits for", "age": "Open for"},
                    units={"Open for": SECONDS},
                    empty="No transaction is open.",
                    width=7,
                ),
                rows(
                    "Indexes that nobody used",
                    "The ten largest indexes of the bank that no query has used since the statistics began; those that "
                    "keep rows apart are left out. They cost time at every change.",
                    Sql(UNUSED),
                    {"name": "Index", "of_table": "Table", "size": "Size"},
                    units={"Size": BYTES},
                    empty="Every index was used.",
                    width=7,
                ),
            ),
        ),
    ),
    variables=(
        SITE,
        instance("postgresql"),
        Variable(
            "database",
            "Database",
            'label_values(pg_database_size_bytes{datname!~"template.*", site=~"$site"}, datname)',
        ),
    ),
    runbooks=("postgresql.md",),
)
