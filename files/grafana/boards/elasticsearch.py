"""Elasticsearch and the way of log lines into it."""

from files.grafana import limits
from files.grafana.board import SITE, Board, Row, instance
from files.grafana.panels import (
    BYTES,
    PER_SECOND,
    SECONDS,
    SHARE,
    UP_DOWN,
    YES_NO,
    Column,
    listing,
    now,
    over_time,
    ranking,
)
from files.grafana.queries import Prom

SHIPPED = 'site=~"$site"'
CHOSEN = 'site=~"$site", instance=~"$instance"'
STATES = {
    "0": ("green", limits.GOOD),
    "1": ("yellow", limits.WARNING),
    "2": ("red", limits.BAD),
}

BOARD = Board(
    "elasticsearch",
    "Elasticsearch and the log pipeline",
    "The log store: its health, its data, its heap, and the lines on their way into it.",
    (
        Row(
            "Now",
            (
                now(
                    "Cluster",
                    "Red lacks data and is a P2; yellow lacks copies and is a P3 after 30 minutes.",
                    Prom(
                        'max(2 * elasticsearch_cluster_health_status{color="red", site=~"$site"} + ignoring (color) '
                        'elasticsearch_cluster_health_status{color="yellow", site=~"$site"})'
                    ),
                    steps=((None, limits.GOOD), (1, limits.WARNING), (2, limits.BAD)),
                    meanings=STATES,
                ),
                now(
                    "Nodes",
                    "Nodes in the cluster. Fewer than the inventory has is a P3.",
                    Prom('max(elasticsearch_cluster_health_number_of_nodes{site=~"$site"})'),
                    steps=limits.below(1),
                ),
                now(
                    "Shards on no node",
                    "Parts of indices, or copies of them, that are nowhere.",
                    Prom('max(elasticsearch_cluster_health_unassigned_shards{site=~"$site"})'),
                    steps=limits.above(1, limits.WARNING),
                ),
                now(
                    "Fullest heap",
                    "Share of the heap in use of the fullest node. Above 90 % for 15 minutes is a P3.",
                    Prom(
                        f'max(elasticsearch_jvm_memory_used_bytes{{area="heap", {CHOSEN}}} '
                        '/ elasticsearch_jvm_memory_max_bytes{area="heap"})'
                    ),
                    unit=SHARE,
                    decimals=0,
                    steps=limits.of_alert("ElasticsearchHeapHigh", 0.01),
                ),
                now(
                    "Last good snapshot",
                    "How long ago. Above 26 hours is a P2.",
                    Prom(
                        "time() - "
                        'max(last_over_time(elasticsearch_snapshot_last_success_timestamp_seconds{site=~"$site"}[2d]))'
                    ),
                    unit=SECONDS,
                    steps=limits.of_alert("ElasticsearchSnapshotStale"),
                    link="backup",
                    empty="No snapshot was made yet.",
                ),
                now(
                    "Log lines",
                    "Lines that Elasticsearch takes in each second, over 10 minutes. 0 for 10 minutes is a P2.",
                    Prom(
                        'sum(rate(elasticsearch_index_stats_indexing_index_total{index=~"app-logs-[0-9].*", '
                        'site=~"$site"}[10m]))'
                    ),
                    unit=PER_SECOND,
                    decimals=1,
                    steps=limits.below(0.001),
                ),
            ),
        ),
        Row(
            "The log pipeline",
            (
                over_time(
                    "Lines taken in",
                    "Documents each second, by kind of index.",
                    Prom(
                        "sum by (kind) (label_replace(rate(elasticsearch_index_stats_indexing_index_total"
                        '{index=~"(app-logs|metricbeat|packetbeat)-.*", site=~"$site"}[$__rate_interval]), '
                        '"kind", "$1", "index", "(app-logs-rejected|[a-z]+-logs|[a-z]+)-.*"))',
                        "{{kind}}",
                    ),
                    unit=PER_SECOND,
                    stacked=True,
                    width=8,
                ),
                over_time(
                    "Lines put aside",
                    "Lines that could not be read or were refused, in all their indices. Growth within an hour is a "
                    "P4.",
                    Prom(
                        'sum(max by (index) (elasticsearch_indices_docs_primary{index=~"app-logs-rejected-.*", '
                        'site=~"$site"})) '
                        "or vector(0)",
                        "put aside",
                    ),
                    width=8,
                ),
                over_time(
                    "Lines that the bank could not write",
                    "Lines lost within 10 minutes because they could not be written. One is a P3.",
                    Prom(
                        'sum by (instance) (increase(bank_log_lines_dropped_total{site=~"$site"}[10m]))', "{{instance}}"
                    ),
                    steps=limits.above(1, limits.WARNING),
                    width=8,
                ),
                over_time(
                    "Refused writes",
                    "Packets of lines refused within 10 minutes because too much came. One is a P3; they are sent "
                    "again.",
                    Prom(
                        f"sum by (instance) "
                        f'(increase(elasticsearch_thread_pool_rejected_count{{type="write", {CHOSEN}}}[10m]))',
                        "{{instance}}",
                    ),
                    steps=limits.above(1, limits.WARNING),
                    width=8,
                ),
                over_time(
                    "Time to take in a line",
                    "Mean time of Elasticsearch for one document.",
                    Prom(
                        f"rate(elasticsearch_indices_indexing_index_time_seconds_total{{{CHOSEN}}}[5m]) "
                        "/ rate(elasticsearch_indices_indexing_index_total[5m])",
                        "{{instance}}",
                    ),
                    unit=SECONDS,
                    width=8,
                ),
                over_time(
                    "Writes that wait",
                    "Packets of lines in the queue of each node.",
                    Prom(
                        f'max by (instance) (elasticsearch_thread_pool_queue_count{{type="write", {CHOSEN}}})',
                        "{{instance}}",
                    ),
                    width=8,
                ),
            ),
        ),
        Row(
            "Shippers",
            (
                listing(
                    "Shippers",
                    "How long the oldest event of each has waited, and how many wait on its host. More than 2 minutes "
                    "is a P4, 10 minutes a P3.",
                    {"shipper": "Shipper", "instance": "Host"},
                    Column(
                        "Behind",
                        Prom(f"max by (shipper, instance) (shipper_oldest_event_age_seconds{{{SHIPPED}}})"),
                        unit=SECONDS,
                        steps=limits.of_alert("ShipperBehind"),
                    ),
                    Column("Wait", Prom(f"sum by (shipper, instance) (shipper_events_waiting{{{SHIPPED}}})")),
                    Column(
                        "Queue",
                        Prom(f"max by (shipper, instance) (shipper_queue_filled_ratio{{{SHIPPED}}})"),
                        unit=SHARE,
                        steps=limits.of_alert("ShipperQueueFull", 0.01),
                    ),
                    Column("Up", Prom(f"max by (shipper, instance) (shipper_up{{{SHIPPED}}})"), meanings=UP_DOWN),
                    width=8,
                    height=9,
                    sort="Behind",
                ),
                over_time(
                    "How far behind",
                    "Age of the oldest event that was not sent, of the shipper that is furthest behind of each kind.",
                    Prom(f"max by (shipper) (shipper_oldest_event_age_seconds{{{SHIPPED}}})", "{{shipper}}"),
                    unit=SECONDS,
                    steps=limits.of_alert("ShipperBehind"),
                    width=8,
                    height=9,
                ),
                over_time(
                    "Events sent",
                    "Events each second that the outputs accepted, by kind of shipper.",
                    Prom(
                        f"sum by (shipper) (rate(shipper_events_acked_total{{{SHIPPED}}}[$__rate_interval]))",
                        "{{shipper}}",
                    ),
                    unit=PER_SECOND,
                    stacked=True,
                    width=8,
                    height=9,
                ),
                over_time(
                    "Events that failed",
                    "Events within 10 minutes that were given up, which is a P3, or tried again.",
                    Prom(
                        f"sum by (shipper) (increase(shipper_events_dropped_total{{{SHIPPED}}}[10m]))",
                        "{{shipper}} given up",
                    ),
                    Prom(
                        f"sum by (shipper) (increase(shipper_events_retried_total{{{SHIPPED}}}[10m]))",
                        "{{shipper}} tried again",
                    ),
                    steps=limits.above(1, limits.WARNING),
                ),
                over_time(
                    "Queues of Logstash",
                    "Share of each queue that is in use, the fullest host. Above 80 % is a P3.",
                    Prom(
                        f"max by (pipeline) (logstash_queue_bytes{{{SHIPPED}}} / logstash_queue_max_bytes)",
                        "{{pipeline}}",
                    ),
                    unit=SHARE,
                    most=1,
                    steps=limits.of_alert("LogstashQueueFull", 0.01),
                    empty="No Logstash is used, or its queues are in memory.",
                ),
            ),
        ),
        Row(
            "Nodes",
            (
                over_time(
                    "Heap",
                    "Share of the heap in use. A saw is sound; a line that stays high is not.",
                    Prom(
                        f'max by (instance) (elasticsearch_jvm_memory_used_bytes{{area="heap", {CHOSEN}}} '
                        '/ elasticsearch_jvm_memory_max_bytes{area="heap"})',
                        "{{instance}}",
                    ),
                    unit=SHARE,
                    most=1,
                    steps=limits.of_alert("ElasticsearchHeapHigh", 0.01),
                    width=8,
                ),
                over_time(
                    "Cleaning the heap",
                    "Share of the time that a node spends on it.",
                    Prom(
                        f"sum by (instance) (rate(elasticsearch_jvm_gc_collection_seconds_sum{{{CHOSEN}}}[5m]))",
                        "{{instance}}",
                    ),
                    unit=SHARE,
                    steps=limits.above(0.1, limits.WARNING),
                    width=8,
                ),
                over_time(
                    "Disk left",
                    "Share of the disk below the data that is free. Below 10 % is a P2; Elasticsearch stops writing "
                    "at 5 %.",
                    Prom(
                        f"min by (instance) (elasticsearch_filesystem_data_available_bytes{{{CHOSEN}}} "
                        "/ elasticsearch_filesystem_data_size_bytes)",
                        "{{instance}}",
                    ),
                    unit=SHARE,
                    most=1,
                    steps=limits.below(0.1),
                    width=8,
                ),
                over_time(
                    "Searches",
                    "Searches each second.",
                    Prom(
                        f"sum by (instance) "
                        f"(rate(elasticsearch_indices_search_query_total{{{CHOSEN}}}[$__rate_interval]))",
                        "{{instance}}",
                    ),
                    unit=PER_SECOND,
                    width=8,
                ),
                over_time(
                    "Time of a search",
                    "Mean time of a search in one shard.",
                    Prom(
                        f"sum by (instance) (rate(elasticsearch_indices_search_query_time_seconds{{{CHOSEN}}}[5m])) "
                        f"/ (sum by (instance) (rate(elasticsearch_indices_search_query_total{{{CHOSEN}}}[5m])) > 0)",
                        "{{instance}}",
                    ),
                    unit=SECONDS,
                    width=8,
                ),
                over_time(
                    "Requests refused for want of memory",
                    "How often within 10 minutes a circuit breaker refused one.",
                    Prom(
                        f"sum by (breaker) (increase(elasticsearch_breakers_tripped{{{CHOSEN}}}[10m]))", "{{breaker}}"
                    ),
                    steps=limits.above(1, limits.WARNING),
                    width=8,
                ),
            ),
        ),
        Row(
            "Indices and maintenance",
            (
                ranking(
                    "Largest indices",
                    "Size of the ten largest indices, with their copies.",
                    Prom(
                        'topk(10, max by (index) (elasticsearch_indices_store_size_bytes_total{site=~"$site"}))',
                        "{{index}}",
                    ),
                    unit=BYTES,
                    width=8,
                    height=9,
                ),
                over_time(
                    "Documents",
                    "Documents by kind of index: what is taken in, less what has expired.",
                    Prom(
                        "sum by (kind) (label_replace(max by (index) (elasticsearch_indices_docs_primary"
                        '{index=~"(app-logs|metricbeat|packetbeat)-.*", site=~"$site"}), '
                        '"kind", "$1", "index", "(app-logs-rejected|[a-z]+-logs|[a-z]+)-.*"))',
                        "{{kind}}",
                    ),
                    width=8,
                    height=9,
                ),
                listing(
                    "Hourly maintenance",
                    "Whether each step of the hourly job worked at its last run. Failing for 2 hours is a P3.",
                    {"step": "Step", "instance": "Host"},
                    Column(
                        "Worked",
                        Prom('max by (step, instance) (1 - elasticsearch_maintenance_step_failed{site=~"$site"})'),
                        meanings=YES_NO,
                    ),
                    width=8,
                    height=9,
                    empty="The hourly job has not run yet.",
                ),
            ),
        ),
    ),
    variables=(SITE, instance("elasticsearch", "Node")),
    runbooks=("elasticsearch.md", "elasticsearch_cluster.md", "shippers.md"),
)
