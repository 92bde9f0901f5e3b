"""What an operator relies on: nothing to do means nothing done, ports open only to those who need them, restarts."""

import time
from pathlib import Path

import pytest
import requests
import yaml

from lab import hosts
from tests.site_client import AUTHORITY_CERTIFICATE, BANK, run_playbook

from .conftest import Execute, prometheus_query, wait_until

NOTICED_SECONDS = 8
CONNECT = "import socket, sys; socket.create_connection((sys.argv[1], int(sys.argv[2])), 2).close()"


def test_a_second_run_changes_nothing() -> None:
    run = run_playbook("site.yml", "--diff")
    assert not run.failed, run.output[-4000:]
    assert run.changed and set(run.changed.values()) == {0}, {host: run.changed_tasks(host) for host in run.changed}


def test_a_task_reaches_the_host_that_it_is_delegated_to(lab_hosts: dict[str, hosts.Host], tmp_path: Path) -> None:
    # Draining an instance is such a task, and so is what a run with --limit learns of the hosts outside.
    first, *others = sorted(lab_hosts)
    ask = {"ansible.builtin.command": "hostname", "delegate_to": "{{ item }}", "loop": others, "changed_when": False}
    tell = {"ansible.builtin.debug": {"msg": "at {{ asked.results | map(attribute='stdout') | join(' ') }} end"}}
    play = [{"hosts": first, "gather_facts": False, "tasks": [ask | {"register": "asked"}, tell]}]
    (tmp_path / "delegate.yml").write_text(yaml.safe_dump(play), encoding="utf-8")
    run = run_playbook(str(tmp_path / "delegate.yml"))
    assert not run.failed, run.output
    assert f"at {' '.join(others)} end" in run.output


def test_check_mode_finds_nothing_to_do() -> None:
    run = run_playbook("site.yml", "--check", "--diff")
    assert not run.failed, run.output[-4000:]
    assert run.changed and set(run.changed.values()) == {0}, {host: run.changed_tasks(host) for host in run.changed}


@pytest.mark.parametrize(
    ("source", "target", "port", "allowed"),
    [
        ("app1", "db1", 5432, True),
        ("app1", "db1", 6379, True),
        ("lb1", "app1", 8000, True),
        ("monitoring1", "app1", 9100, True),
        ("lb1", "db1", 5432, False),
        # The blackbox exporter looks whether it answers.
        ("monitoring1", "db1", 5432, True),
        ("monitoring1", "db1", 9187, True),
        ("app1", "db1", 9187, False),
        ("lb1", "db1", 6379, False),
        ("app2", "app1", 8000, False),
        ("app1", "db1", 9100, False),
    ],
)
def test_a_port_is_open_to_the_groups_that_need_it_alone(
    on: Execute, source: str, target: str, port: int, allowed: bool
) -> None:
    code, output = on(source, "python3", "-c", CONNECT, target, str(port))
    assert (code == 0) == allowed, output


def test_the_bank_answers_while_an_instance_is_down(on: Execute, secret: dict[str, str]) -> None:
    password = secret["vault_prometheus_web_password"]

    def instances_up() -> str:
        return prometheus_query('sum(up{job="bank"})', password)[0]["value"][1]

    on("app2", "systemctl", "stop", "bank.service")
    try:
        # From before the load balancer's checks notice until after: the moment between is when requests were cut.
        codes, end = set(), time.monotonic() + NOTICED_SECONDS
        while time.monotonic() < end:
            codes.add(requests.get(f"{BANK}/login", verify=AUTHORITY_CERTIFICATE, timeout=10).status_code)
        assert codes == {200}
        wait_until(lambda: instances_up() == "2", "Prometheus sees app2 down")
    finally:
        on("app2", "systemctl", "start", "bank.service")
    wait_until(lambda: instances_up() == "3", "Prometheus sees app2 up")
