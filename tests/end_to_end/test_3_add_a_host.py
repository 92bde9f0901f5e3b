"""One inventory line adds a host everywhere; the decommission playbook and its removal take it out again."""

import re
from collections.abc import Iterator
from pathlib import Path

import docker
import pytest

from lab import hosts
from lab.settings import INVENTORY
from tests.site_client import PlaybookRun, run_playbook

from .conftest import Execute, Search, prometheus_query, wait_until

NEW = "app4"
ONE_LINE = "bank_app: {hosts: {app4: {}}}\n"
# Places that name the peers of a bank instance.
PLACES = {
    "lb1": "/etc/haproxy/haproxy.cfg",
    "db1": "/var/lib/pgsql/data/pg_hba.conf",
    "monitoring1": "/etc/prometheus/prometheus.yml",
    "app1": "/etc/hosts",
}


def api_keys(search: Search) -> set[str]:
    """Return the names of the new host's keys that Elasticsearch takes."""
    counting = {"bool": {"filter": [{"term": {"invalidated": False}}, {"wildcard": {"name": f"* on {NEW}"}}]}}
    return {key["name"] for key in search("/_security/_query/api_key", {"query": counting})["api_keys"]}


@pytest.fixture(scope="module")
def grown(client: docker.DockerClient, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, PlaybookRun]]:
    """Add one host line to the group bank_app, start the host and run site.yml."""
    extra = tmp_path_factory.mktemp("inventory") / "one-line.yml"
    extra.write_text(ONE_LINE, encoding="utf-8")
    wanted = hosts.inventory(INVENTORY, extra)
    hosts.start(client, wanted)
    yield extra, run_playbook("site.yml", inventory=(INVENTORY, extra))
    hosts.start(client, hosts.inventory())


def test_one_line_brings_the_host_into_service(
    grown: tuple[Path, PlaybookRun], on: Execute, secret: dict[str, str], search: Search
) -> None:
    _, run = grown
    assert not run.failed, run.output[-4000:]
    code, statistics = on("lb1", "sh", "-c", "echo 'show stat' | socat stdio /var/lib/haproxy/stats")
    assert code == 0
    states = {line.split(",")[1]: line.split(",")[17] for line in statistics.splitlines() if line.startswith("bank")}
    assert states.get(NEW, "").startswith("UP"), states
    password = secret["vault_prometheus_web_password"]
    wait_until(
        lambda: len(prometheus_query(f'up{{instance="{NEW}", job=~"bank|node"}} == 1', password)) == 2,
        f"Prometheus scrapes the host and the instance {NEW}",
    )
    # The instance is ready only if PostgreSQL and Redis admit it.
    code, output = on(NEW, "runuser", "-u", "bank", "--", "/opt/bank/current/bin/bank", "check-config", "--ready")
    assert code == 0, output
    assert {f"filebeat on {NEW}", f"metricbeat on {NEW}"} <= api_keys(search)


def test_hosts_that_were_there_change_only_where_they_must(grown: tuple[Path, PlaybookRun]) -> None:
    _, run = grown
    # Names of peers, the firewall's sources, and what balances to, admits or scrapes the new host.
    expected = re.compile(r"by name|zone|firewall|haproxy|access rules|reload|configuration|state", re.IGNORECASE)
    for host in ("app1", "app2", "app3", "db1", "lb1", "monitoring1"):
        tasks = run.changed_tasks(host)
        assert tasks, f"{host} did not learn of {NEW}"
        assert [task for task in tasks if not expected.search(task)] == [], host
        assert not [task for task in tasks if re.search(r"restart", task, re.IGNORECASE)], tasks


def test_decommissioning_leaves_no_trace(
    grown: tuple[Path, PlaybookRun],
    client: docker.DockerClient,
    on: Execute,
    secret: dict[str, str],
    search: Search,
) -> None:
    extra, _ = grown
    address = client.containers.get(f"bank-lab-{NEW}").labels["bank.lab.address"]
    out = run_playbook("playbooks/decommission.yml", "-e", f"decommission_host={NEW}", inventory=(INVENTORY, extra))
    assert not out.failed, out.output[-4000:]
    code, output = on(NEW, "sh", "-c", "ls -d /etc/bank /opt/bank /etc/pki/bank 2>/dev/null; systemctl is-active bank")
    assert output.split() == ["inactive"], output

    again = run_playbook("site.yml")
    assert not again.failed, again.output[-4000:]
    for host, path in PLACES.items():
        code, text = on(host, "cat", path)
        assert code == 0
        assert not re.search(rf"\b{NEW}\b|\b{re.escape(address)}\b", text), f"{path} on {host} still knows {NEW}"
    for host in ("db1", "app1", "lb1", "monitoring1"):
        _, zones = on(host, "sh", "-c", "cat /etc/firewalld/zones/*.xml /etc/firewalld/ipsets/*.xml 2>/dev/null")
        assert f'"{address}"' not in zones and f">{address}<" not in zones, host
    assert api_keys(search) == set()
    # Prometheus marks the series of a removed target stale after a few scrapes.
    password = secret["vault_prometheus_web_password"]
    wait_until(lambda: prometheus_query(f'up{{instance="{NEW}"}}', password) == [], f"Prometheus forgets {NEW}")
