"""What Prometheus learns of a Redis server, and what the exporter, a stranger or a wrong value may not do."""

from __future__ import annotations

import re
import shlex
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest
import testinfra
from testinfra.host import Host

if TYPE_CHECKING:
    from conftest import Apply

HOST = "redis-exporter-cache1"
NAME = f"{HOST}.bank.internal"
URL = f"https://{NAME}:9121/metrics"
EXPORTER = "prometheus:{vault_exporter_web_password}"

Fetch = Callable[..., tuple[int, str]]
Redis = Callable[..., str]


@pytest.fixture(scope="session")
def server() -> Host:
    """Connect to the host of Redis."""
    return testinfra.get_host(f"docker://{HOST}")


@pytest.fixture(scope="session")
def fetch(server: Host, secrets: dict[str, str]) -> Fetch:
    """Return a function that asks an address with a log-in: the status and the answer."""

    def ask(url: str = URL, login: str = EXPORTER) -> tuple[int, str]:
        login = login.format(**secrets).replace("\\", "\\\\").replace('"', '\\"')
        settings = f'user = "{login}"\n' if login else ""
        command = "curl --silent --max-time 20 --cacert /etc/pki/bank/redis_exporter/ca.crt --config -"
        answer = server.run(
            f"printf %s {shlex.quote(settings)} | {command} --write-out '\\n%{{http_code}}' {shlex.quote(url)}"
        )
        text, _, code = answer.stdout.rpartition("\n")
        return int(code), text

    return ask


@pytest.fixture(scope="session")
def redis(server: Host, secrets: dict[str, str]) -> Redis:
    """Return a function that sends a command to Redis as a user."""

    def send(*words: str, user: str = "bank", secret: str = "vault_redis_bank_password") -> str:
        command = f"redis-cli --tls --cacert /etc/pki/bank/redis/ca.crt -h {NAME} --user {user} --no-auth-warning"
        answer = server.run(f"REDISCLI_AUTH={shlex.quote(secrets[secret])} {command} {shlex.join(words)}")
        return (answer.stdout + answer.stderr).strip()

    return send


def test_server_is_measured(fetch: Fetch, redis: Redis) -> None:
    assert redis("set", "bank:private", "word") == "OK"
    metrics = fetch()[1]
    for series in (
        "redis_up 1",
        r"redis_connected_clients [1-9]\d*",
        r"redis_memory_used_bytes \S+",
        "redis_memory_max_bytes 6.7108864e\\+07",
        r"redis_rejected_connections_total 0",
        r"redis_keyspace_hits_total \d+",
        r"redis_evicted_keys_total 0",
        "redis_aof_enabled 1",
        "redis_rdb_last_bgsave_status 1",
        'redis_db_keys{db="db0"} 1',
        r'redis_commands_total{cmd="set"} [1-9]\d*',
        r'redis_commands_latencies_usec_count{cmd="set"} [1-9]\d*',
        r"redis_slowlog_length \d+",
        'redis_instance_info{.*role="master".*} 1',
    ):
        assert re.search(rf"^{series}$", metrics, re.MULTILINE), series
    assert "private" not in metrics
    assert "redis_config_" not in metrics.replace("redis_config_maxclients", "").replace("redis_config_io_threads", "")


@pytest.mark.parametrize(
    "words", [("get", "bank:private"), ("keys", "*"), ("slowlog", "get"), ("config", "get", "*"), ("acl", "list")]
)
def test_its_user_sees_neither_keys_nor_settings(redis: Redis, words: tuple[str, ...]) -> None:
    answer = redis(*words, user="redis_exporter", secret="vault_redis_exporter_password")
    assert "NOPERM" in answer


@pytest.mark.parametrize("login", ["", "prometheus:wrong", "someone:{vault_exporter_web_password}", "prometheus:"])
def test_strangers_are_refused(fetch: Fetch, login: str) -> None:
    for path in ("/metrics", "/", "/-/reload", "/health"):
        code, text = fetch(URL.removesuffix("/metrics") + path, login)
        assert code == 401
        assert "redis_" not in text


def test_it_asks_no_other_server(fetch: Fetch) -> None:
    code, text = fetch(URL.replace("/metrics", "/scrape?target=rediss://127.0.0.1:6379"))
    assert code == 404 or "redis_up" not in text


def test_plain_http_is_refused(fetch: Fetch) -> None:
    assert fetch(URL.replace("https", "http"))[0] == 400


def test_passwords_are_nowhere_to_be_read(server: Host, secrets: dict[str, str]) -> None:
    shown = server.check_output(
        "systemctl cat redis_exporter; systemctl show redis_exporter; ps -eo args; journalctl --no-pager --output=cat"
    )
    # The first half has no special character that a log might have escaped.
    for name in ("vault_exporter_web_password", "vault_redis_exporter_password"):
        assert secrets[name][:16] not in shown
    assert "$2b$" not in shown
    assert server.run("grep -rF %s /etc/redis_exporter", secrets["vault_exporter_web_password"][:16]).rc == 1
    files = server.check_output("stat --format='%a %U %G %n' /etc/redis_exporter /etc/redis_exporter/*")
    assert files.splitlines() == [
        "750 root redis_exporter /etc/redis_exporter",
        "600 root root /etc/redis_exporter/environment",
        "640 root redis_exporter /etc/redis_exporter/passwords.json",
    ]


def test_sandbox_is_effective(server: Host) -> None:
    properties = {
        "CapabilityBoundingSet": "",
        "NoNewPrivileges": "yes",
        "ProtectSystem": "strict",
        "ReadWritePaths": "",
        "User": "redis_exporter",
    }
    for name, value in properties.items():
        assert server.check_output(f"systemctl show --property={name} --value redis_exporter") == value, name
    assert server.run("systemd-analyze security --threshold=15 redis_exporter.service").rc == 0


def test_service_comes_back_after_a_crash(server: Host, fetch: Fetch) -> None:
    process = "systemctl show --property=MainPID --value redis_exporter"
    before = server.check_output(process)
    server.run_expect([0], "systemctl kill --signal=KILL redis_exporter")
    deadline = time.monotonic() + 20
    while server.check_output(process) in ("0", before) or fetch()[0] != 200:
        assert time.monotonic() < deadline, "redis_exporter did not come back"
        time.sleep(0.5)


def test_it_does_not_start_without_its_log_in(server: Host) -> None:
    server.run_expect([0], "mv /etc/redis_exporter/environment /root/environment && systemctl stop redis_exporter")
    try:
        assert server.run("systemctl start redis_exporter").rc != 0
    finally:
        server.run_expect([0], "mv /root/environment /etc/redis_exporter/environment")
        server.run_expect([0], "systemctl start redis_exporter")


def state(server: Host) -> str:
    """Return what the role may change on the host, and the running process."""
    return server.check_output(
        "find /etc/redis_exporter /etc/systemd/system/redis_exporter.service -type f -exec sha256sum {} + | sort;"
        " readlink /opt/redis_exporter/current; systemctl show --property=MainPID,ActiveState redis_exporter"
    )


@pytest.mark.parametrize(
    ("variables", "sentence"),
    [
        ({"vault_exporter_web_password": "short"}, "vault_exporter_web_password needs 16 to 72 bytes"),
        ({"redis_exporter_web_user": ""}, 'the name "" needs letters'),
        (
            {"redis_exporter_redis_user": "a@b", "redis_exporter_redis_password": ""},
            "letters, digits, dots, dashes and underscores are needed. redis_users has no user a@b, as which the server"
            " is asked: add it, or set redis_exporter_redis_user."
            " redis_exporter_redis_password (vault_redis_exporter_password) is empty",
        ),
        ({"redis_exporter_port": "nine"}, "redis_exporter_port"),
    ],
)
def test_bad_value_is_refused_and_changes_nothing(
    server: Host, apply: Apply, variables: dict[str, object], sentence: str
) -> None:
    before = state(server)
    answer = apply(**variables)
    assert answer.failed
    assert sentence in answer.words
    assert state(server) == before


def test_password_that_redis_refuses_is_told(apply: Apply, fetch: Fetch) -> None:
    answer = apply(redis_exporter_redis_password="not the right password")
    assert answer.failed
    assert f"could not log in to Redis at {NAME}:6379 as redis_exporter" in answer.words
    assert "not the right password" not in answer.output
    answer = apply()
    assert not answer.failed, answer.output
    assert re.search(r"^redis_up 1$", fetch()[1], re.MULTILINE)


def test_program_that_serves_everybody_is_refused(apply: Apply, fetch: Fetch) -> None:
    answer = apply(redis_exporter_arguments=["--basic-auth-username="])
    assert answer.failed
    assert "answers at https://" in answer.words
    assert "without a log-in" in answer.words
    answer = apply()
    assert not answer.failed, answer.output
    assert fetch(login="")[0] == 401
