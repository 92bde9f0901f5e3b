"""What a client of the cache, and an auditor on its host, find."""

import hashlib
import shlex

import pytest
import testinfra
from testinfra.backend.base import CommandResult
from testinfra.host import Host

SERVER = "redis-cache1"
NAME = f"{SERVER}.bank.internal"


@pytest.fixture(scope="session")
def password(secrets: dict[str, str]) -> str:
    """Return the password of the user bank."""
    return secrets["vault_redis_bank_password"]


@pytest.fixture(scope="session")
def server() -> Host:
    """Return the host of the cache."""
    return testinfra.get_host(f"docker://{SERVER}")


@pytest.fixture(scope="session")
def app(server: Host) -> Host:
    """Return a host of the group bank_app with the client program and the platform's CA."""
    host = testinfra.get_host("docker://redis-app1")
    host.run_expect([0], "dnf --assumeyes --quiet install @redis:7")
    authority = server.file("/etc/pki/bank/redis/ca.crt").content_string
    host.run_expect([0], f"printf %s {shlex.quote(authority)} > /root/ca.crt")
    return host


def redis(host: Host, password: str | None, command: str, user: str = "bank", tls: str = "--tls") -> CommandResult:
    """Run a command from a host over the network, without a log-in if there is no password."""
    login = f"REDISCLI_AUTH={shlex.quote(password)}" if password is not None else ""
    name = f"--user {user}" if password is not None else ""
    authority = "--cacert /root/ca.crt" if tls else ""
    return host.run(f"{login} timeout 5 redis-cli {tls} {authority} -h {NAME} {name} {command}")


def test_application_reads_and_writes_its_keys(app: Host, password: str) -> None:
    assert redis(app, password, "ping").stdout.strip() == "PONG"
    assert redis(app, password, "set bank:proof 42 EX 60").stdout.strip() == "OK"
    assert redis(app, password, "get bank:proof").stdout.strip() == "42"
    assert redis(app, password, "ttl bank:proof").stdout.strip() in {"58", "59", "60"}


@pytest.mark.parametrize(
    "command",
    ["set other:key 1", "get other:key", "flushall", "keys '*'", "config get '*'", "acl list", "shutdown", "monitor"],
)
def test_application_may_do_nothing_else(app: Host, password: str, command: str) -> None:
    result = redis(app, password, command)
    assert "NOPERM" in result.stdout + result.stderr


def test_wrong_password_is_refused(app: Host) -> None:
    result = redis(app, "wrong password", "get bank:proof")
    assert "WRONGPASS" in result.stdout + result.stderr
    assert "NOAUTH" in result.stdout + result.stderr


def test_unauthenticated_is_refused(app: Host) -> None:
    assert "NOAUTH" in redis(app, None, "ping").stdout
    for nothing in ("''", "default"):
        refused = app.run(f"timeout 5 redis-cli --tls --cacert /root/ca.crt -h {NAME} auth default {nothing}")
        assert "WRONGPASS" in refused.stdout


def test_plain_text_is_refused(app: Host, password: str) -> None:
    result = redis(app, password, "ping", tls="")
    assert "PONG" not in result.stdout
    assert result.rc != 0 or "closed" in (result.stdout + result.stderr)


def test_server_certificate_names_the_host(app: Host) -> None:
    command = f"openssl s_client -connect {NAME}:6379 -CAfile /root/ca.crt -verify_return_error"
    assert app.run(f"{command} -verify_hostname {NAME} </dev/null").rc == 0
    assert app.run(f"{command} -verify_hostname other.bank.internal </dev/null").rc != 0


def test_server_listens_with_tls_only_on_the_named_addresses(server: Host) -> None:
    address = server.run_expect([0], "hostname -i").stdout.split()[0]
    owner = f"uid:{server.user('redis').uid} "
    lines = server.run_expect([0], "ss -Hltne").stdout.splitlines()
    listening = {line.split()[3] for line in lines if owner in line}
    assert listening == {f"{address}:6379", "127.0.0.1:6379"}


@pytest.mark.parametrize(
    ("path", "mode"),
    [("/etc/redis/redis.conf", 0o640), ("/etc/redis/users.acl", 0o640)],
)
def test_files_are_closed(server: Host, path: str, mode: int) -> None:
    file = server.file(path)
    assert (file.user, file.group, file.mode) == ("redis", "root", mode)


def test_key_is_readable_by_the_service_only(server: Host) -> None:
    file = server.file("/etc/pki/bank/redis/tls.key")
    assert (file.uid, file.gid, file.mode) == (0, server.group("redis").gid, 0o640)


def test_password_is_stored_as_a_sum_only(server: Host, password: str) -> None:
    users = server.file("/etc/redis/users.acl").content_string
    assert f"#{hashlib.sha256(password.encode()).hexdigest()}" in users
    assert users.splitlines()[0].startswith("user default off")
    # The first half has no special character that a log might have escaped.
    found = server.run(f"grep -rlF {shlex.quote(password[:16])} /etc /var/log /run/systemd")
    assert (found.rc, found.stdout) == (1, ""), found.stdout
    assert server.run(f"journalctl --no-pager | grep -cF {shlex.quote(password[:16])}").stdout.strip() == "0"


def test_running_server_has_the_settings(app: Host, server: Host, password: str) -> None:
    # Nobody may read the settings over the network, so what they do is looked at.
    assert server.run_expect([0], "ls /var/lib/redis/appendonlydir").stdout != ""
    assert redis(app, password, "object freq bank:none").rc == 0
    assert server.file("/var/log/redis/redis.log").contains("Ready to accept connections")


def test_unit_is_sandboxed(server: Host) -> None:
    switches = ("ProtectHome", "PrivateTmp", "NoNewPrivileges", "PrivateDevices", "MemoryDenyWriteExecute")
    names = ",".join((*switches, "ProtectSystem", "CapabilityBoundingSet", "LimitNOFILE", "MainPID"))
    shown = server.run_expect([0], f"systemctl show redis.service -p {names}").stdout
    properties = dict(line.split("=", 1) for line in shown.splitlines())
    assert properties["ProtectSystem"] == "strict"
    assert {properties[name] for name in switches} == {"yes"}
    assert properties["CapabilityBoundingSet"] == ""
    assert int(properties["LimitNOFILE"]) >= 10000
    process = server.file(f"/proc/{properties['MainPID']}/status").content_string
    assert "NoNewPrivs:\t1" in process
    assert "CapBnd:\t0000000000000000" in process


def test_exposure_stays_low(server: Host) -> None:
    result = server.run_expect([0], "systemd-analyze security redis.service --threshold=25 --no-pager")
    assert "Overall exposure level" in result.stdout


def test_data_survives_a_restart(app: Host, server: Host, password: str) -> None:
    assert redis(app, password, "set bank:kept 42").stdout.strip() == "OK"
    server.run_expect([0], "systemctl restart redis.service")
    assert redis(app, password, "get bank:kept").stdout.strip() == "42"
    assert redis(app, password, "del bank:kept").stdout.strip() == "1"
    assert server.service("redis").is_enabled


def test_no_trial_server_is_left(server: Host) -> None:
    assert server.run("pgrep -c redis-server").stdout.strip() == "1"
    assert not server.file("/run/redis-candidate.sock").exists
