"""What services find on every host, read from the running system."""

import pytest
import testinfra
from testinfra.host import Host

PEER = testinfra.get_host("docker://common-peer1")


@pytest.fixture
def host() -> Host:
    """Return the host that has the role."""
    return testinfra.get_host("docker://common-app1")


def test_every_host_is_known_by_each_of_its_names(host: Host) -> None:
    address = PEER.check_output("hostname -i")
    for name in ("common-peer1", "common-peer1.bank.internal"):
        assert host.check_output(f"getent --service=files ahostsv4 {name}").split()[0] == address
    assert host.check_output("getent --service=files ahostsv4 localhost").split()[0] == "127.0.0.1"


def test_packages_come_from_the_mirror(host: Host) -> None:
    for name in ("chrony", "curl", "openssl", "tar"):
        assert host.package(name).is_installed
    assert host.run("dnf --quiet repoquery --installed --qf '%{from_repo}' chrony").stdout.strip() == "bank-platform"


def test_chrony_accepts_its_sources(host: Host) -> None:
    parsed = host.check_output("chronyd -p -f /etc/chrony.conf")
    assert "server 192.0.2.123 iburst" in parsed
    assert "pool" not in parsed


def test_journal_survives_a_restart_and_has_a_limit(host: Host) -> None:
    host.check_output("logger --tag scenario 'kept on disk' && journalctl --sync")
    assert "kept on disk" in host.check_output("journalctl --identifier=scenario --directory=/var/log/journal")
    assert " max 64.0M" in host.check_output("journalctl --unit=systemd-journald | tail -n 2")


def test_time_zone_is_utc(host: Host) -> None:
    assert host.check_output("date +%Z") == "UTC"
    assert host.check_output("readlink --canonicalize /etc/localtime").endswith("/UTC")


def test_kernel_settings_of_the_machine_are_left_alone_in_a_container(host: Host) -> None:
    assert not host.file("/etc/sysctl.d/90-bank-platform.conf").exists
