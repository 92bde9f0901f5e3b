"""What Prometheus gets from node_exporter about the shippers of a host."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest
import testinfra
from testinfra.host import Host

if TYPE_CHECKING:
    from molecule.conftest import Apply

HOST = "shipper-metrics-app1"
FILE = "/var/lib/node_exporter/textfile/shippers.prom"


@pytest.fixture(scope="session")
def server() -> Host:
    """Connect to the host of the shippers."""
    return testinfra.get_host(f"docker://{HOST}")


def wait_until(is_so: Callable[[], bool], what: str, seconds: float = 50) -> None:
    """Wait for something that the timer brings about."""
    deadline = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        time.sleep(1)


def exported(server: Host) -> str:
    """Return what node_exporter exports."""
    certificate = "--cert /etc/pki/bank/node_exporter/tls.crt --key /etc/pki/bank/node_exporter/tls.key"
    authority = "--cacert /etc/pki/bank/node_exporter/ca.crt"
    url = f"https://{HOST}.bank.internal:9100/metrics?collect[]=textfile"
    return server.check_output(f"curl --silent --fail --globoff {authority} {certificate} '{url}'")


def test_figures_are_exported(server: Host) -> None:
    text = exported(server)
    for shipper in ("filebeat", "metricbeat"):
        assert f'shipper_up{{shipper="{shipper}"}} 1' in text
        assert f'shipper_events_waiting{{pipeline="",shipper="{shipper}"}} 10' in text
        assert f'shipper_queue_filled_ratio{{pipeline="",shipper="{shipper}"}} 0.25' in text
    assert 'shipper_up{shipper="logstash"} 1' in text
    assert 'logstash_queue_max_bytes{pipeline="main",shipper="logstash"} 10' in text
    assert "node_textfile_scrape_error 0" in text


def test_age_grows_while_nothing_leaves(server: Host) -> None:
    begun = time.monotonic()

    def age() -> float:
        # The shipper goes on running: one whose uptime stands still would be taken for a new one at each look.
        uptime = 600_000 + int(1000 * (time.monotonic() - begun))
        server.run_expect([0], f'sed --in-place \'s/"ms": [0-9]*/"ms": {uptime}/\' /srv/filebeat/stats')
        (line,) = [
            line
            for line in exported(server).splitlines()
            if line.startswith("shipper_oldest_event_age_seconds{") and '"filebeat"' in line
        ]
        return float(line.split()[-1])

    wait_until(lambda: age() >= 25, "the timer looks twice, and the same events wait", seconds=100)


def test_shipper_that_stops_is_told_and_the_others_are_not_touched(server: Host) -> None:
    server.run_expect([0], "systemctl stop answers@metricbeat")
    try:
        wait_until(lambda: 'shipper_up{shipper="metricbeat"} 0' in exported(server), "the timer looks again")
        assert 'shipper_up{shipper="filebeat"} 1' in exported(server)
        assert server.run("systemctl is-failed shipper-metrics.service").rc != 0
        said = server.check_output("journalctl --unit=shipper-metrics.service --output=cat --no-pager")
        assert "metricbeat: no figures at http://127.0.0.1:5067/stats" in said
    finally:
        server.run_expect([0], "systemctl start answers@metricbeat")
    wait_until(lambda: 'shipper_up{shipper="metricbeat"} 1' in exported(server), "it is told that it is back")


def test_journal_holds_only_what_goes_wrong(server: Host) -> None:
    server.run_expect([0], "systemctl start shipper-metrics.service")
    said = server.check_output("journalctl --unit=shipper-metrics.service --output=cat --no-pager").splitlines()
    assert [line for line in said if "no figures" not in line] == []


def test_folder_that_cannot_be_written_fails_the_unit(server: Host) -> None:
    server.run_expect([0], "chown root: /var/lib/node_exporter/textfile")
    try:
        assert server.run("systemctl start shipper-metrics.service").rc != 0
        assert server.run("systemctl is-failed shipper-metrics.service").rc == 0
        said = server.check_output("journalctl --unit=shipper-metrics.service --output=cat --no-pager --lines=5")
        assert "cannot write" in said
    finally:
        server.run_expect([0], "chown node_exporter: /var/lib/node_exporter/textfile")
    server.run_expect([0], "systemctl start shipper-metrics.service")


def test_sandbox_is_effective(server: Host) -> None:
    shown = server.check_output(
        "systemctl show shipper-metrics.service --property=ProtectSystem,User,NoNewPrivileges,MemoryDenyWriteExecute"
    )
    assert set(shown.splitlines()) == {
        "ProtectSystem=strict",
        "User=node_exporter",
        "NoNewPrivileges=yes",
        "MemoryDenyWriteExecute=yes",
    }
    assert server.run("systemd-analyze security --threshold=20 shipper-metrics.service").rc == 0
    assert server.check_output(f"stat --format='%a %U' {FILE}") == "644 node_exporter"


def test_timer_starts_with_the_host(server: Host) -> None:
    assert server.service("shipper-metrics.timer").is_enabled
    assert server.service("shipper-metrics.timer").is_running


@pytest.mark.parametrize(
    "variables, reason",
    [
        ({"shipper_metrics_beats": {"File Beat": 5066}}, "unlike File Beat"),
        ({"shipper_metrics_beats": {"filebeat": 0}}, "a port that does not exist"),
        ({"shipper_metrics_beats": {"logstash": 5066}}, "hold the same name"),
        ({"shipper_metrics_beats": {}, "shipper_metrics_logstash": {}}, "name a shipper"),
        ({"shipper_metrics_seconds": 1}, "set it to 10 or more"),
    ],
)
def test_wrong_values_are_refused(server: Host, apply: Apply, variables: dict[str, object], reason: str) -> None:
    before = server.check_output("sha256sum /etc/systemd/system/shipper-metrics.*")
    run = apply(**variables)
    assert run.failed
    assert reason in run.words
    assert server.check_output("sha256sum /etc/systemd/system/shipper-metrics.*") == before


def test_shipper_that_leaves_is_no_longer_told(server: Host, apply: Apply) -> None:
    assert not apply(shipper_metrics_logstash={}).failed
    assert "logstash" not in server.check_output(f"cat {FILE}")
    assert not apply().failed
    assert 'shipper_up{shipper="logstash"} 1' in server.check_output(f"cat {FILE}")
