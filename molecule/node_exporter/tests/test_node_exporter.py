"""What Prometheus, and everyone else on the network, gets from a host's exporter."""

import time

import pytest
import testinfra
from testinfra.backend.base import CommandResult
from testinfra.host import Host

HOST = "node-exporter-db1"
MONITOR = "node-exporter-monitor1"
OTHER = "node-exporter-app1"
URL = f"https://{HOST}.bank.internal:9100/metrics"
# Up to TLS 1.2 a client learns of the refusal within the handshake; later it may only see a closed connection.
REFUSABLE = "--tls-max 1.2 "
CERTIFICATE = "--cert /etc/pki/bank/client/tls.crt --key /etc/pki/bank/client/tls.key"


@pytest.fixture(scope="session")
def server() -> Host:
    """Connect to the host that is watched."""
    return testinfra.get_host(f"docker://{HOST}")


def fetch(name: str, certificate: str = CERTIFICATE, url: str = URL) -> CommandResult:
    """Ask for the metrics from another host."""
    client = testinfra.get_host(f"docker://{name}")
    return client.run(f"curl --silent --show-error --fail --cacert /etc/pki/bank/client/ca.crt {certificate} {url}")


def test_prometheus_reads_the_metrics() -> None:
    metrics = fetch(MONITOR).stdout
    assert 'node_uname_info{domainname="(none)"' in metrics
    for collector in ("cpu", "meminfo", "filesystem", "systemd", "textfile", "netdev", "loadavg", "timex"):
        assert f'node_scrape_collector_success{{collector="{collector}"}} 1' in metrics, collector


def test_client_without_certificate_is_refused() -> None:
    answer = fetch(MONITOR, certificate=REFUSABLE)
    assert answer.rc != 0
    assert "alert" in answer.stderr
    assert fetch(MONITOR, certificate="").rc != 0


def test_certificate_of_another_host_is_refused() -> None:
    answer = fetch(OTHER, certificate=REFUSABLE + CERTIFICATE)
    assert answer.rc != 0
    assert "alert" in answer.stderr
    assert fetch(OTHER).rc != 0
    # The certificate itself is good: only the name is not allowed.
    client = testinfra.get_host(f"docker://{OTHER}")
    client.run_expect([0], "cd /etc/pki/bank/client && openssl verify -CAfile ca.crt -untrusted tls.crt tls.crt")


def test_certificate_of_another_authority_is_refused() -> None:
    monitor = testinfra.get_host(f"docker://{MONITOR}")
    monitor.run_expect(
        [0],
        "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 1 -subj /CN=forged"
        f" -addext subjectAltName=DNS:{MONITOR}.bank.internal -keyout /root/forged.key -out /root/forged.crt",
    )
    forged = "--cert /root/forged.crt --key /root/forged.key"
    answer = fetch(MONITOR, certificate=REFUSABLE + forged)
    assert answer.rc != 0
    assert "alert" in answer.stderr
    assert fetch(MONITOR, certificate=forged).rc != 0


def test_plain_http_gives_no_metrics() -> None:
    answer = fetch(MONITOR, certificate="", url=URL.replace("https", "http"))
    assert answer.rc != 0
    assert "node_" not in answer.stdout


def test_state_of_the_platforms_services_is_exported() -> None:
    metrics = fetch(MONITOR).stdout
    assert 'node_systemd_unit_state{name="node_exporter.service",state="active",type="exec"} 1' in metrics
    assert 'name="dbus.service"' not in metrics
    assert 'node_systemd_service_restart_total{name="node_exporter.service"}' in metrics


def test_metrics_of_scripts_are_exported(server: Host) -> None:
    folder = "/var/lib/node_exporter/textfile"
    server.run_expect([0], f"umask 022; echo bank_proof 42 > {folder}/proof.prom.tmp")
    server.run_expect([0], f"mv {folder}/proof.prom.tmp {folder}/proof.prom")
    metrics = fetch(MONITOR).stdout
    server.run_expect([0], f"rm {folder}/proof.prom")
    assert "bank_proof 42" in metrics
    assert "node_textfile_scrape_error 0" in metrics


def test_only_the_service_reads_the_key(server: Host) -> None:
    assert server.check_output("stat --format='%a %U %G' /etc/node_exporter.yml") == "640 root node_exporter"
    key = server.check_output("stat --format='%a %U %G' /etc/pki/bank/node_exporter/tls.key")
    assert key == "640 root node_exporter"


def test_sandbox_is_effective(server: Host) -> None:
    shown = server.check_output(
        "systemctl show node_exporter --property=ProtectHome,ProtectSystem,User,NoNewPrivileges"
    )
    assert set(shown.splitlines()) == {
        "ProtectHome=read-only",
        "ProtectSystem=strict",
        "User=node_exporter",
        "NoNewPrivileges=yes",
    }
    assert server.run("systemd-analyze security --threshold=20 node_exporter.service").rc == 0


def test_service_comes_back_after_a_crash_which_is_counted(server: Host) -> None:
    process = "systemctl show --property=MainPID --value node_exporter"
    before = server.check_output(process)
    server.run_expect([0], "systemctl kill --signal=KILL node_exporter")
    deadline = time.monotonic() + 10
    while server.check_output(process) in ("0", before) or fetch(MONITOR).rc != 0:
        assert time.monotonic() < deadline, "node_exporter did not come back"
        time.sleep(0.5)
    assert server.service("node_exporter").is_running
    assert 'node_systemd_service_restart_total{name="node_exporter.service"} 1\n' in fetch(MONITOR).stdout
