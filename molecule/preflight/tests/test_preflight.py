"""Preflight accepts a good host and leaves no trace on it. What it refuses is tested in tests/preflight."""

from testinfra.host import Host


def test_no_software_was_installed(host: Host) -> None:
    installed = host.check_output("rpm -qa --queryformat '%{NAME}\\n'").split()
    assert not {"postgresql-server", "redis", "haproxy", "chrony"} & set(installed)


def test_nothing_was_configured(host: Host) -> None:
    for path in (
        "/etc/pki/bank",
        "/etc/bank",
        "/etc/prometheus",
        "/opt/bank",
        "/opt/prometheus",
        "/var/lib/prometheus",
    ):
        assert not host.file(path).exists, path
    assert host.run("ls /etc/yum.repos.d/*.repo").rc != 0
    assert "platform" not in host.file("/etc/hosts").content_string


def test_no_account_was_made(host: Host) -> None:
    for name in ("bank", "prometheus", "node_exporter"):
        assert not host.user(name).exists, name


def test_nothing_listens(host: Host) -> None:
    ports = {line.split()[3].rpartition(":")[2] for line in host.check_output("ss -Hlnt").splitlines()}
    assert not {"80", "443", "5432", "6379", "8000", "9090", "9100"} & ports
