"""What a job that has ended leaves for Prometheus, and what a stranger or a wrong value may not do."""

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

HOST = "pushgateway-monitor1"
URL = f"https://{HOST}.bank.internal:9091"
CLIENT = "prometheus:{vault_exporter_web_password}"
JOB = "pusher:{vault_pushgateway_push_password}"
SAMPLE = re.compile(r'^backup_bytes\{instance="db1",job="backup"\} 42$', re.MULTILINE)

Ask = Callable[..., tuple[int, str]]


@pytest.fixture(scope="session")
def server() -> Host:
    """Connect to the host of the Pushgateway."""
    return testinfra.get_host(f"docker://{HOST}")


@pytest.fixture(scope="session")
def ask(server: Host, secrets: dict[str, str]) -> Ask:
    """Return a function that sends a request with a log-in: the status and the answer."""

    def send(path: str, login: str = CLIENT, method: str = "GET", body: str = "", url: str = URL) -> tuple[int, str]:
        login = login.format(**secrets).replace("\\", "\\\\").replace('"', '\\"')
        settings = f'user = "{login}"\n' if login else ""
        command = "curl --silent --max-time 20 --cacert /etc/pki/bank/pushgateway/ca.crt --config -"
        command += f" --request {method}" + (f" --data-binary {shlex.quote(body)}" if body else "")
        answer = server.run(
            f"printf %s {shlex.quote(settings)} | {command} --write-out '\\n%{{http_code}}' {shlex.quote(url + path)}"
        )
        text, _, code = answer.stdout.rpartition("\n")
        return int(code), text

    return send


def test_what_a_job_pushed_is_read_until_it_is_deleted(server: Host, ask: Ask) -> None:
    job = "/metrics/job/backup/instance/db1"
    assert ask(job, JOB, "PUT", "backup_bytes 42\n")[0] == 200
    metrics = ask("/metrics")[1]
    assert SAMPLE.search(metrics)
    assert re.search(r'^push_time_seconds\{instance="db1",job="backup"\} \S+$', metrics, re.MULTILINE)
    server.run_expect([0], "systemctl restart pushgateway")
    deadline = time.monotonic() + 20
    while ask("/metrics")[0] != 200:
        assert time.monotonic() < deadline, "the Pushgateway did not come back"
        time.sleep(0.5)
    assert SAMPLE.search(ask("/metrics")[1])
    assert ask(job, JOB, "DELETE")[0] == 202
    time.sleep(0.5)
    assert not SAMPLE.search(ask("/metrics")[1])


def test_text_that_is_no_metric_is_refused(ask: Ask) -> None:
    code, text = ask("/metrics/job/backup", JOB, "PUT", "backup_bytes = 42\n")
    assert code == 400
    assert "text format parsing error" in text


@pytest.mark.parametrize(
    "login",
    ["", "pusher:wrong", "pusher:{vault_exporter_web_password}", "prometheus:{vault_pushgateway_push_password}"],
)
def test_strangers_are_refused(ask: Ask, login: str) -> None:
    assert ask("/metrics/job/forged", login, "PUT", "forged 1\n")[0] == 401
    for path in ("/metrics", "/", "/api/v1/status", "/-/ready"):
        assert ask(path, login)[0] == 401
    assert "forged" not in ask("/metrics")[1]


def test_nobody_wipes_or_stops_it(ask: Ask) -> None:
    assert ask("/api/v1/admin/wipe", JOB, "PUT")[0] == 404
    assert ask("/-/quit", JOB, "PUT")[0] == 403


def test_plain_http_is_refused(ask: Ask) -> None:
    assert ask("/metrics", url=URL.replace("https", "http"))[0] == 400


def test_passwords_are_nowhere_to_be_read(server: Host, secrets: dict[str, str]) -> None:
    shown = server.check_output("systemctl cat pushgateway; ps -eo args; journalctl --no-pager --output=cat")
    # The first half has no special character that a log might have escaped.
    for name in ("vault_exporter_web_password", "vault_pushgateway_push_password"):
        assert secrets[name][:16] not in shown
        assert server.run("grep -rF %s /etc/pushgateway", secrets[name][:16]).rc == 1
    files = server.check_output("stat --format='%a %U %G %n' /etc/pushgateway /etc/pushgateway/* /var/lib/pushgateway")
    assert files.splitlines() == [
        "750 root pushgateway /etc/pushgateway",
        "640 root pushgateway /etc/pushgateway/web.yml",
        "750 pushgateway pushgateway /var/lib/pushgateway",
    ]


def test_sandbox_is_effective(server: Host) -> None:
    properties = {
        "CapabilityBoundingSet": "",
        "NoNewPrivileges": "yes",
        "ProtectSystem": "strict",
        "ReadWritePaths": "/var/lib/pushgateway",
        "User": "pushgateway",
    }
    for name, value in properties.items():
        assert server.check_output(f"systemctl show --property={name} --value pushgateway") == value, name
    assert server.run("systemd-analyze security --threshold=15 pushgateway.service").rc == 0


def test_service_comes_back_after_a_crash(server: Host, ask: Ask) -> None:
    process = "systemctl show --property=MainPID --value pushgateway"
    before = server.check_output(process)
    server.run_expect([0], "systemctl kill --signal=KILL pushgateway")
    deadline = time.monotonic() + 20
    while server.check_output(process) in ("0", before) or ask("/metrics")[0] != 200:
        assert time.monotonic() < deadline, "the Pushgateway did not come back"
        time.sleep(0.5)


def state(server: Host) -> str:
    """Return what the role may change on the host, and the running process."""
    return server.check_output(
        "find /etc/pushgateway /etc/systemd/system/pushgateway.service -type f -exec sha256sum {} + | sort;"
        " systemctl show --property=MainPID,ActiveState pushgateway"
    )


@pytest.mark.parametrize(
    ("variables", "sentence"),
    [
        ({"pushgateway_push_password": "short"}, "vault_pushgateway_push_password needs 16 to 72 bytes"),
        (
            {"pushgateway_push_user": "prometheus", "pushgateway_persistence_interval": "often"},
            "are both prometheus: give jobs a name of their own. pushgateway_persistence_interval is often",
        ),
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
