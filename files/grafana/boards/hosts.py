"""Hosts by the USE method: utilisation, saturation and errors of processors, memory, disks and network."""

from files.grafana import limits
from files.grafana.board import SITE, Board, Row, instance
from files.grafana.panels import (
    BYTES,
    BYTES_PER_SECOND,
    COUNT,
    PER_SECOND,
    SECONDS,
    SHARE,
    Column,
    listing,
    over_time,
    ranking,
)
from files.grafana.queries import Prom

UNIT_STATES = {
    "2": ("failed", limits.BAD),
    "1": ("active", limits.GOOD),
    "0": ("not running", limits.NEUTRAL),
}

BOARD = Board(
    "hosts",
    "Hosts (USE)",
    "Utilisation, saturation and errors of processors, memory, disks and network of each host, and the state of its "
    "units.",
    (
        Row(
            "Utilisation: how much is used",
            (
                over_time(
                    "Processors",
                    "Share of the processors' time in use. Above 80 % for 5 minutes is a P4, for 10 a P3.",
                    Prom(
                        '1 - avg by (instance) (rate(node_cpu_seconds_total{mode="idle", site=~"$site", '
                        'instance=~"$instance"}[$__rate_interval]))',
                        "{{instance}}",
                    ),
                    unit=SHARE,
                    steps=limits.CPU,
                    most=1,
                ),
                over_time(
                    "Memory",
                    "Share of the memory that programs cannot get any more. Above 85 % is a P3, above 90 % a P2.",
                    Prom(
                        '1 - node_memory_MemAvailable_bytes{site=~"$site", instance=~"$instance"} '
                        "/ node_memory_MemTotal_bytes",
                        "{{instance}}",
                    ),
                    unit=SHARE,
                    steps=limits.MEMORY,
                    most=1,
                ),
                ranking(
                    "Disks",
                    "Share of each file system that is used. Above 90 % is a P2.",
                    Prom(
                        'max by (instance, mountpoint) (capacity:used:ratio{resource="disk", site=~"$site", '
                        'instance=~"$instance"})',
                        "{{instance}} {{mountpoint}}",
                    ),
                    unit=SHARE,
                    steps=limits.DISK,
                    most=1,
                    width=8,
                ),
                over_time(
                    "Disk throughput",
                    "Bytes read and written each second.",
                    Prom(
                        'sum by (instance) (rate(node_disk_read_bytes_total{site=~"$site", instance=~"$instance"}'
                        "[$__rate_interval]))",
                        "{{instance}} read",
                    ),
                    Prom(
                        'sum by (instance) (rate(node_disk_written_bytes_total{site=~"$site", instance=~"$instance"}'
                        "[$__rate_interval]))",
                        "{{instance}} written",
                    ),
                    unit=BYTES_PER_SECOND,
                    width=8,
                ),
                over_time(
                    "Network",
                    "Bytes received and sent each second, the host's talk with itself left out.",
                    Prom(
                        'sum by (instance) (rate(node_network_receive_bytes_total{device!="lo", site=~"$site", '
                        'instance=~"$instance"}[$__rate_interval]))',
                        "{{instance}} received",
                    ),
                    Prom(
                        'sum by (instance) (rate(node_network_transmit_bytes_total{device!="lo", site=~"$site", '
                        'instance=~"$instance"}[$__rate_interval]))',
                        "{{instance}} sent",
                    ),
                    unit=BYTES_PER_SECOND,
                    width=8,
                ),
            ),
        ),
        Row(
            "Saturation: what waits",
            (
                over_time(
                    "Load for each processor",
                    "Programs that run or wait, for each processor, over 5 minutes. Above 2 for 15 minutes is a P4.",
                    Prom(
                        'node_load5{site=~"$site", instance=~"$instance"} / on (instance) '
                        'count by (instance) (node_cpu_seconds_total{mode="idle", site=~"$site"})',
                        "{{instance}}",
                    ),
                    steps=limits.LOAD,
                    width=8,
                ),
                over_time(
                    "Pages moved to and from swap",
                    "Memory pages each second. Anything but short peaks means that memory is short.",
                    Prom(
                        'rate(node_vmstat_pswpin{site=~"$site", instance=~"$instance"}[$__rate_interval]) '
                        "+ rate(node_vmstat_pswpout[$__rate_interval])",
                        "{{instance}}",
                    ),
                    unit=PER_SECOND,
                    width=8,
                ),
                over_time(
                    "Pages that had to be read from disk",
                    "Major page faults each second: programs waited for the disk.",
                    Prom(
                        'rate(node_vmstat_pgmajfault{site=~"$site", instance=~"$instance"}[$__rate_interval])',
                        "{{instance}}",
                    ),
                    unit=PER_SECOND,
                    width=8,
                ),
                over_time(
                    "Disk queue",
                    "Operations that wait for a disk, on average.",
                    Prom(
                        "sum by (instance) (rate(node_disk_io_time_weighted_seconds_total"
                        '{site=~"$site", instance=~"$instance"}[$__rate_interval]))',
                        "{{instance}}",
                    ),
                    width=8,
                ),
                over_time(
                    "Disk busy",
                    "Share of the time in which the busiest disk had something to do.",
                    Prom(
                        'max by (instance) (rate(node_disk_io_time_seconds_total{site=~"$site", instance=~"$instance"}'
                        "[$__rate_interval]))",
                        "{{instance}}",
                    ),
                    unit=SHARE,
                    steps=limits.above(0.8, limits.WARNING),
                    width=8,
                ),
                over_time(
                    "Segments sent again",
                    "Share of TCP segments that had to be sent again: the network or the other side is full.",
                    Prom(
                        'rate(node_netstat_Tcp_RetransSegs{site=~"$site", instance=~"$instance"}[$__rate_interval]) '
                        "/ rate(node_netstat_Tcp_OutSegs[$__rate_interval])",
                        "{{instance}}",
                    ),
                    unit=SHARE,
                    width=8,
                ),
            ),
        ),
        Row(
            "Errors",
            (
                over_time(
                    "Damaged packets",
                    "Packets with errors each second, received and sent. Above 1 is a P4.",
                    Prom(
                        "sum by (instance) (rate(node_network_receive_errs_total"
                        '{site=~"$site", instance=~"$instance"}[$__rate_interval]) '
                        "+ rate(node_network_transmit_errs_total[$__rate_interval]))",
                        "{{instance}}",
                    ),
                    unit=PER_SECOND,
                    steps=limits.of_alert("HostNetworkErrors"),
                    width=8,
                ),
                over_time(
                    "Dropped packets",
                    "Packets each second that the host threw away because nobody took them in time.",
                    Prom(
                        "sum by (instance) (rate(node_network_receive_drop_total"
                        '{site=~"$site", instance=~"$instance"}[$__rate_interval]) '
                        "+ rate(node_network_transmit_drop_total[$__rate_interval]))",
                        "{{instance}}",
                    ),
                    unit=PER_SECOND,
                    width=8,
                ),
                over_time(
                    "Programs stopped for want of memory",
                    "Programs that the kernel stopped within 10 minutes. One is a P2.",
                    Prom('increase(node_vmstat_oom_kill{site=~"$site", instance=~"$instance"}[10m])', "{{instance}}"),
                    steps=limits.ANY,
                    width=8,
                ),
                over_time(
                    "Clock",
                    "Difference to the clock of Prometheus. More than 5 s is a P2: codes for log-in fail.",
                    Prom(
                        'abs(node_time_seconds{site=~"$site", instance=~"$instance"} - timestamp(node_time_seconds))',
                        "{{instance}}",
                    ),
                    unit=SECONDS,
                    steps=limits.of_alert("HostClockSkew"),
                    width=8,
                ),
                ranking(
                    "File entries",
                    "Share of the entries of each file system that is used. Above 90 % is a P2.",
                    Prom(
                        'max by (instance, mountpoint) (capacity:used:ratio{resource="file entries", site=~"$site", '
                        'instance=~"$instance"})',
                        "{{instance}} {{mountpoint}}",
                    ),
                    unit=SHARE,
                    steps=limits.INODES,
                    most=1,
                    width=8,
                ),
                ranking(
                    "Open files",
                    "Share of the files that the kernel allows to be open at a time.",
                    Prom(
                        'node_filefd_allocated{site=~"$site", instance=~"$instance"} / node_filefd_maximum',
                        "{{instance}}",
                    ),
                    unit=SHARE,
                    steps=limits.SATURATION,
                    most=1,
                    width=8,
                ),
            ),
        ),
        Row(
            "Units and programs",
            (
                listing(
                    "Units of systemd",
                    "State of every unit of the platform, those that failed first.",
                    {"instance": "Host", "name": "Unit"},
                    Column(
                        "State",
                        Prom(
                            "max by (instance, name) (2 * node_systemd_unit_state"
                            '{state="failed", site=~"$site", instance=~"$instance"}) + max by (instance, name) '
                            '(node_systemd_unit_state{state="active", site=~"$site", instance=~"$instance"})'
                        ),
                        COUNT,
                        limits.NONE,
                        UNIT_STATES,
                    ),
                    width=12,
                    height=10,
                    sort="State",
                ),
                ranking(
                    "Who takes processors",
                    "Processor cores that each service takes which tells it, the ten largest.",
                    Prom(
                        'topk(10, sum by (instance, job) (rate(process_cpu_seconds_total{site=~"$site", '
                        'instance=~"$instance"}[5m])))',
                        "{{job}} {{instance}}",
                    ),
                    width=6,
                    height=10,
                ),
                ranking(
                    "Who takes memory",
                    "Memory that each service takes which tells it, the ten largest.",
                    Prom(
                        'topk(10, sum by (instance, job) (process_resident_memory_bytes{site=~"$site", '
                        'instance=~"$instance"}))',
                        "{{job}} {{instance}}",
                    ),
                    unit=BYTES,
                    width=6,
                    height=10,
                ),
            ),
        ),
    ),
    variables=(SITE, instance("node")),
    runbooks=("hosts.md",),
)
