"""Backups: how old the last good copy is, and how long a return from it takes."""

from files.grafana import limits
from files.grafana.board import Board, Row
from files.grafana.panels import BYTES, SECONDS, Column, listing, now, over_time
from files.grafana.queries import Prom

SNAPSHOT = 'last_over_time(elasticsearch_snapshot_last_success_timestamp_seconds{site=~"$site"}[2d])'
WAITING = "No backup of PostgreSQL tells its figures yet."

BOARD = Board(
    "backup",
    "Backup and recovery",
    "How much would be lost (RPO, 30 minutes) and how long a return takes (RTO, 60 minutes), for each store of data.",
    (
        Row(
            "PostgreSQL: the money",
            (
                now(
                    "Last backup",
                    "Whether the last backup worked. If not, a P1.",
                    Prom('max(pg_backup_status{site=~"$site"})'),
                    meanings={"0": ("worked", limits.GOOD), "1": ("failed", limits.WORST)},
                    steps=limits.above(1, limits.WORST),
                    empty=WAITING,
                ),
                now(
                    "Would be lost",
                    "Age of the last good backup: above 30 minutes is a P2, above an hour, the hard limit, a P1.",
                    Prom('time() - max(pg_backup_last_success_timestamp_seconds{site=~"$site"})'),
                    unit=SECONDS,
                    steps=limits.of_alert("PgBackupTooOld"),
                    empty=WAITING,
                ),
                now(
                    "Age of the archived log",
                    "Age of the oldest change that may not be in the archive yet: above 30 minutes is a P1.",
                    Prom('max(pg_wal_archive_age_seconds{site=~"$site"})'),
                    unit=SECONDS,
                    steps=limits.of_alert("PgWalArchiveLate"),
                    empty=WAITING,
                ),
                now(
                    "A return takes",
                    "Time of the last trial that worked, until PostgreSQL answered: 60 minutes are allowed.",
                    Prom('max(pg_restore_duration_seconds{site=~"$site"})'),
                    unit=SECONDS,
                    steps=limits.of_alert("PgRestoreTooSlow"),
                    empty=WAITING,
                ),
                now(
                    "Last restore that was tried",
                    "How long ago a backup was last proven by restoring it. Above 7 days is a P3.",
                    Prom('time() - max(pg_restore_test_last_success_timestamp_seconds{site=~"$site"})'),
                    unit=SECONDS,
                    steps=limits.of_alert("PgRestoreNotTested"),
                    empty=WAITING,
                ),
                now(
                    "Size",
                    "Size of the last backup.",
                    Prom('max(pg_backup_size_bytes{site=~"$site"})'),
                    unit=BYTES,
                    empty=WAITING,
                ),
                over_time(
                    "Age of the last good backup",
                    "A saw with a tooth every half hour is sound.",
                    Prom(
                        'time() - max by (instance) (pg_backup_last_success_timestamp_seconds{site=~"$site"})',
                        "{{instance}}",
                    ),
                    unit=SECONDS,
                    steps=limits.of_alert("PgBackupTooOld"),
                    empty=WAITING,
                    width=8,
                ),
                over_time(
                    "Time of a backup",
                    "How long each backup took.",
                    Prom('max by (instance) (pg_backup_duration_seconds{site=~"$site"})', "{{instance}}"),
                    unit=SECONDS,
                    empty=WAITING,
                    width=8,
                ),
                over_time(
                    "Size of a backup",
                    "A sudden drop is as bad as a failure.",
                    Prom('max by (instance) (pg_backup_size_bytes{site=~"$site"})', "{{instance}}"),
                    unit=BYTES,
                    empty=WAITING,
                    width=8,
                ),
            ),
        ),
        Row(
            "Elasticsearch: the logs",
            (
                now(
                    "Last good snapshot",
                    "How long ago it was complete. Above 26 hours is a P2.",
                    Prom(f"time() - max({SNAPSHOT})"),
                    unit=SECONDS,
                    steps=limits.of_alert("ElasticsearchSnapshotStale"),
                    empty="No snapshot was made yet.",
                    width=6,
                ),
                now(
                    "Steps that failed",
                    "Steps of the hourly maintenance that failed at its last run. For 2 hours is a P3.",
                    Prom('sum(elasticsearch_maintenance_step_failed{site=~"$site"})'),
                    steps=limits.above(1, limits.WARNING),
                    empty="The hourly job has not run yet.",
                    width=6,
                ),
                now(
                    "Last run of the maintenance",
                    "How long ago. Above 4 hours is a P3.",
                    Prom('time() - max(elasticsearch_maintenance_last_run_timestamp_seconds{site=~"$site"})'),
                    unit=SECONDS,
                    steps=limits.of_alert("ElasticsearchMaintenanceSilent"),
                    empty="The hourly job has not run yet.",
                    width=6,
                ),
                now(
                    "Indices in the future",
                    "Daily indices of days that have not come: they never expire.",
                    Prom('max(elasticsearch_maintenance_future_indices{site=~"$site"})'),
                    steps=limits.above(1, limits.NOTICE),
                    empty="The hourly job has not run yet.",
                    width=6,
                ),
                over_time(
                    "Age of the last good snapshot",
                    "A saw with one tooth a day is sound.",
                    Prom(f"time() - max by (site) ({SNAPSHOT})", "{{site}}"),
                    unit=SECONDS,
                    steps=limits.of_alert("ElasticsearchSnapshotStale"),
                    empty="No snapshot was made yet.",
                ),
                listing(
                    "Steps of the maintenance",
                    "Snapshot, expiry and the rest at the last run of the hourly job.",
                    {"step": "Step", "instance": "Host"},
                    Column(
                        "Result",
                        Prom('max by (step, instance) (elasticsearch_maintenance_step_failed{site=~"$site"})'),
                        meanings={"0": ("worked", limits.GOOD), "1": ("failed", limits.BAD)},
                    ),
                    width=12,
                    empty="The hourly job has not run yet.",
                ),
            ),
        ),
        Row(
            "Redis: sessions and counters",
            (
                now(
                    "Last save",
                    "Whether the last attempt to write the data to disk worked. If not, a P2.",
                    Prom('min(redis_aof_last_write_status{site=~"$site"} * redis_rdb_last_bgsave_status)'),
                    steps=limits.ALIVE,
                    meanings={"1": ("worked", limits.GOOD), "0": ("failed", limits.BAD)},
                    width=6,
                    link="redis",
                ),
                now(
                    "Changes not yet in a snapshot",
                    "Changes since the last whole copy; the log of changes has them, too.",
                    Prom('sum(redis_rdb_changes_since_last_save{site=~"$site"})'),
                    width=6,
                ),
            ),
        ),
    ),
    runbooks=("pgbackrest.md", "elasticsearch.md", "redis.md", "postgresql.md"),
    since="now-24h",
    refresh="1m",
    alerts=(
        "PgBackupFailed",
        "PgBackupFiguresMissing",
        "PgBackupSizeSuspicious",
        "PgBackupTooOld",
        "PgRestoreNotTested",
        "PgRestoreTestFailed",
        "PgRestoreTooSlow",
        "PgWalArchiveFailing",
        "PgWalArchiveFiguresOld",
        "PgWalArchiveLate",
        "ElasticsearchSnapshotStale",
        "ElasticsearchMaintenanceFailing",
        "ElasticsearchMaintenanceSilent",
        "RedisCannotSave",
    ),
)
