"""Taking a host out: refused where the site would lose something, drained and cleared where not, dead or alive."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from docker.models.containers import Container

from tests.preflight.conftest import PROJECT, UNREACHABLE, good_secrets, reach, site

RPMS = "http://mirror:8080/rpm/el9/x86_64"
HAPROXY = """
global
    stats socket /var/lib/haproxy/stats mode 660 level admin
defaults
    mode http
    timeout connect 1s
    timeout client 9s
    timeout server 9s
frontend bank
    bind *:8081
    default_backend bank
backend bank
    server app1 127.0.0.1:7001
    server app2 127.0.0.1:7002 check
    server app3 127.0.0.1:7003
"""


SHOW_STAT = """
import socket
connection = socket.socket(socket.AF_UNIX)
connection.connect("/var/lib/haproxy/stats")
connection.sendall(b"show stat\\n")
print(connection.makefile().read())
"""


@pytest.fixture
def decommission(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    def run(inventory: dict[str, Any], *options: str) -> subprocess.CompletedProcess[str]:
        path = tmp_path / "hosts.yml"
        path.write_text(yaml.safe_dump(inventory), encoding="utf-8")
        command = ["ansible-playbook", "-i", str(path), "playbooks/decommission.yml", *options]
        env = {**os.environ, "ANSIBLE_NOCOLOR": "1", "ANSIBLE_FORCE_COLOR": "0"}
        return subprocess.run(command, cwd=PROJECT, env=env, capture_output=True, text=True, check=False, timeout=120)

    return run


def words(done: subprocess.CompletedProcess[str]) -> str:
    """Return the output with its line breaks and indents folded."""
    return " ".join((done.stdout + done.stderr).split())


NOWHERE = site(
    dict.fromkeys(("app1", "db1", "cache1", "lb1"), UNREACHABLE),
    {"bank_app": ["app1"], "postgresql": ["db1"], "redis": ["cache1"], "load_balancer": ["lb1"]},
)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ([], "No host was given; add -e decommission_host="),
        (
            ["-e", "decommission_host=app9"],
            'Host "app9" is not in the inventory; if its line is deleted already, run site.yml.',
        ),
        (
            ["-e", "decommission_host=db1"],
            'Host "db1" is the PostgreSQL primary (group postgresql) and holds its data; move the data',
        ),
        (
            ["-e", "decommission_host=cache1"],
            'Host "cache1" is the Redis server (group redis) and holds its data; move the data',
        ),
        (["-e", "decommission_host=app1"], 'Host "app1" is the last of group bank_app'),
        (["-e", "decommission_host=lb1"], 'Host "lb1" is the last of group load_balancer'),
    ],
)
def test_refused(
    decommission: Callable[..., subprocess.CompletedProcess[str]], options: list[str], sentence: str
) -> None:
    done = decommission(NOWHERE, *options)
    assert done.returncode == 2, "refused by a sentence, before any connection"
    assert sentence in words(done)


@pytest.fixture(scope="module")
def balancer(containers: Callable[[str], Container]) -> Container:
    """Return a load balancer with three servers, from the RPM of the lab's mirror."""
    container = containers("lb")
    script = f"""set -e
dnf -q -y --repofrompath=lab,{RPMS} --repo=lab --nogpgcheck install haproxy >/dev/null
cat > /etc/haproxy/haproxy.cfg <<'CFG'{HAPROXY}CFG
systemctl start haproxy"""
    code, output = container.exec_run(["bash", "-c", script])
    assert code == 0, output.decode()
    return container


@pytest.fixture
def instance(containers: Callable[[str], Container]) -> Container:
    """Return an application host with a service, its settings and its keys."""
    container = containers("instance")
    script = """set -e
mkdir -p /etc/bank /opt/bank/releases /etc/pki/bank/bank /var/log/bank
echo key > /etc/pki/bank/bank/tls.key; echo log > /var/log/bank/bank.json
cd /etc/systemd/system
printf '[Service]\\nExecStart=/bin/sleep infinity\\n[Install]\\nWantedBy=multi-user.target\\n' > bank.service
systemctl enable --now bank.service"""
    code, output = container.exec_run(["bash", "-c", script])
    assert code == 0, output.decode()
    return container


def states(balancer: Container) -> dict[str, str]:
    """Return what HAProxy says about each server."""
    _, output = balancer.exec_run(["python3", "-c", SHOW_STAT])
    rows = [line.split(",") for line in output.decode().splitlines() if line.startswith("bank,app")]
    return {row[1]: row[17] for row in rows}


def whole_site(balancer: Container, **hosts: dict[str, Any]) -> dict[str, Any]:
    down = dict.fromkeys(("app1", "app2", "app3", "db1"), UNREACHABLE)
    return site(
        {**down, "lb1": reach(balancer), **hosts},
        {"bank_app": ["app1", "app2", "app3"], "postgresql": ["db1"], "load_balancer": ["lb1"]},
        **good_secrets(),
    )


def test_a_live_host_is_drained_stopped_and_cleared(
    decommission: Callable[..., subprocess.CompletedProcess[str]], balancer: Container, instance: Container
) -> None:
    assert states(balancer)["app1"] != "MAINT"
    done = decommission(whole_site(balancer, app1=reach(instance)), "-e", "decommission_host=app1")
    assert done.returncode == 0, words(done)
    assert states(balancer)["app1"] == "MAINT"
    assert states(balancer)["app3"] != "MAINT", "the others keep serving"
    assert instance.exec_run(["systemctl", "is-active", "bank.service"]).exit_code != 0
    for path in ("/etc/bank", "/opt/bank", "/etc/pki/bank", "/etc/systemd/system/bank.service"):
        assert instance.exec_run(["test", "-e", path]).exit_code == 1, path
    assert instance.exec_run(["test", "-s", "/var/log/bank/bank.json"]).exit_code == 0, "logs stay"
    assert "app1 is out of service. " in words(done)
    assert "Delete its line from the inventory and run site.yml" in words(done)


def test_a_dead_host_is_taken_out_all_the_same(
    decommission: Callable[..., subprocess.CompletedProcess[str]], balancer: Container
) -> None:
    """Its health check has failed already, so there is nothing to wait for."""
    done = decommission(whole_site(balancer), "-e", "decommission_host=app2")
    assert done.returncode == 0, words(done)
    assert states(balancer)["app2"] == "MAINT"
    assert "nothing was stopped or removed on it, so keep it switched off" in words(done)
