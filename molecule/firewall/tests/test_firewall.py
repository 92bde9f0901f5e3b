"""What the peers of a host, and strangers, find open."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import testinfra
from testinfra.host import Host

if TYPE_CHECKING:
    from conftest import Apply

INVENTORY = Path(os.environ["MOLECULE_EPHEMERAL_DIRECTORY"]) / "inventory"
POSTGRESQL, NODE_EXPORTER, SSH, UNKNOWN = 5432, 9100, 22, 4444
ZONE = "/etc/firewalld/zones/public.xml"


@pytest.fixture(scope="module")
def database() -> Iterator[Host]:
    """Return the guarded host, on which something listens behind every port of these tests."""
    host = testinfra.get_host("docker://firewall-db1")
    for port in (POSTGRESQL, NODE_EXPORTER, SSH, UNKNOWN):
        # SSH may be there already.
        host.run(f"systemd-run --quiet --unit listener-{port} python3 -m http.server {port}")
        wait = f"until (</dev/tcp/127.0.0.1/{port}) 2>/dev/null; do sleep 0.2; done"
        host.check_output(f'timeout 20 bash -c "{wait}"')
    yield host
    for port in (POSTGRESQL, NODE_EXPORTER, SSH, UNKNOWN):
        host.run(f"systemctl stop listener-{port}")


def reaches(name: str, port: int) -> bool:
    """Tell whether one container can connect to a port of the database."""
    client = testinfra.get_host(f"docker://{name}")
    return client.run(f"timeout 5 bash -c '</dev/tcp/firewall-db1/{port}'").rc == 0


def test_peer_reaches_what_it_needs_and_nothing_else(database: Host) -> None:
    open_to_app = {port for port in (POSTGRESQL, NODE_EXPORTER, SSH, UNKNOWN) if reaches("firewall-app1", port)}
    assert open_to_app == {POSTGRESQL, SSH}
    assert database.run(f"timeout 5 bash -c '</dev/tcp/127.0.0.1/{UNKNOWN}'").rc == 0


def test_stranger_is_kept_out(database: Host) -> None:
    assert not reaches("bank-lab-mirror", POSTGRESQL)


def test_effective_rules_are_those_of_the_table(database: Host) -> None:
    rules = database.check_output("firewall-cmd --zone=public --list-rich-rules").splitlines()
    addresses = {
        testinfra.get_host(f"docker://{name}").check_output("hostname -i")
        for name in ("firewall-app1", "firewall-app2")
    }
    assert {re.search(r'source address="(.+?)" port port="5432"', rule).group(1) for rule in rules} == addresses
    assert database.check_output("firewall-cmd --zone=public --list-ports") == "22/tcp"
    kernel = database.check_output("nft list table inet firewalld")
    assert all(f"ip saddr {address} tcp dport 5432" in kernel for address in addresses)
    assert database.service("firewalld").is_enabled


def test_removed_peer_is_closed_out_and_changes_by_hand_too(database: Host, apply: Apply, tmp_path: Path) -> None:
    database.check_output(f"firewall-cmd --add-port={UNKNOWN}/tcp")
    assert reaches("firewall-app2", UNKNOWN)
    inventory = tmp_path / "inventory"
    inventory.mkdir()
    (inventory / "group_vars").symlink_to(INVENTORY / "group_vars")
    hosts = {"postgresql": {"hosts": {"firewall-db1": {}}}, "bank_app": {"hosts": {"firewall-app2": {}}}}
    (inventory / "hosts.yml").write_text(json.dumps({"all": {"children": hosts}}), encoding="utf-8")
    answer = apply(inventory=inventory)
    assert not answer.failed, answer.output
    assert not reaches("firewall-app1", POSTGRESQL)
    assert reaches("firewall-app2", POSTGRESQL)
    assert not reaches("firewall-app2", UNKNOWN)


def test_bad_settings_leave_the_firewall_as_it_was(database: Host, apply: Apply) -> None:
    before = database.file(ZONE).content, database.check_output("firewall-cmd --list-all")
    answer = apply(firewall_services=["no-such-service"])
    assert answer.failed
    assert "firewalld refuses the zone public on firewall-db1, and keeps the one that it had" in answer.words
    answer = apply(firewall_admin_sources=["192.0.2.300"])
    assert answer.failed
    assert 'Flow "SSH" has the source "192.0.2.300", which is no address or network' in answer.words
    assert (database.file(ZONE).content, database.check_output("firewall-cmd --list-all")) == before
    assert database.check_output("ls /etc/firewalld/zones").split() == ["public.xml"]
