"""Containers that preflight looks at, and a way to run it against an inventory made for one test."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import docker
import pytest
import yaml
from docker.models.containers import Container

# Whatever YAML can hold.
Value = Any
PROJECT = Path(__file__).parents[2]
IMAGE = "bank-lab/host:current"
NETWORK = "bank-molecule"
HOST_IS_UP_SECONDS = 30
# Nobody listens there, so a connection is refused at once.
UNREACHABLE = {"ansible_connection": "ssh", "ansible_host": "127.0.0.1", "ansible_port": 1}


@dataclass
class Run:
    """What one ansible-playbook run said."""

    code: int
    findings: list[str]
    changed: int
    tasks: dict[str, int]
    output: str


@pytest.fixture(scope="session")
def containers() -> Iterator[Callable[[str], Container]]:
    """Start hosts by name and remove them at the end, however the tests went."""
    client = docker.from_env()
    started: list[Container] = []

    def start(name: str) -> Container:
        container = client.containers.run(
            IMAGE,
            name=f"preflight-test-{os.getpid()}-{name}",
            detach=True,
            stop_signal="SIGRTMIN+3",
            cap_add=["SYS_ADMIN", "NET_ADMIN"],
            security_opt=["seccomp=unconfined"],
            cgroupns="private",
            tmpfs={"/run": "", "/run/lock": "", "/tmp": ""},
            network=NETWORK,
            labels={"bank.lab": "preflight"},
        )
        started.append(container)
        limit = time.monotonic() + HOST_IS_UP_SECONDS
        while container.exec_run(["systemctl", "is-system-running", "--wait"]).output.strip() not in (
            b"running",
            b"degraded",
        ):
            assert time.monotonic() < limit, f"{name} did not boot"
            time.sleep(0.2)
        return container

    try:
        yield start
    finally:
        for container in started:
            container.remove(force=True)


@pytest.fixture(scope="session")
def good_host(containers: Callable[[str], Container]) -> Container:
    """Return a host on which nothing is wrong."""
    return containers("good")


@pytest.fixture(scope="session")
def old_host(containers: Callable[[str], Container]) -> Container:
    """Return a host of a release that the roles do not support."""
    container = containers("old")
    release = "Red Hat Enterprise Linux release 8.10 (Ootpa)"
    assert (
        container.exec_run(
            ["sh", "-c", f'echo \'{release}\' > /etc/redhat-release; sed -i \'s/="9[^"]*"/="8.10"/\' /etc/os-release']
        ).exit_code
        == 0
    )
    return container


def reach(container: Container) -> dict[str, Any]:
    """Variables under which Ansible reaches a container."""
    return {"ansible_connection": "docker", "ansible_host": container.name}


def good_secrets() -> dict[str, str]:
    """Return a random value for every secret of the platform, of letters that no template engine reads."""
    table = yaml.safe_load((PROJECT / "group_vars/all/platform_roles.yml").read_text(encoding="utf-8"))
    names = {name for row in table["platform_roles"].values() for name in row.get("secrets", [])}
    return {name: secrets.token_hex(24) for name in names | set(table["platform_optional_secrets"])}


def site(hosts: dict[str, dict[str, Any]], groups: dict[str, list[str]], **variables: Value) -> dict[str, Any]:
    """Return an inventory."""
    return {
        "all": {
            "hosts": hosts,
            "vars": variables,
            "children": {group: {"hosts": {name: {} for name in members}} for group, members in groups.items()},
        }
    }


GROUPS = ("bank_app", "postgresql", "redis", "load_balancer", "elasticsearch", "prometheus")


@pytest.fixture
def preflight(tmp_path: Path) -> Callable[..., Run]:
    """Run the playbook against an inventory; a play that would change a file comes after it."""

    def run(inventory: dict[str, Any], environment: dict[str, str] | None = None) -> Run:
        folder = tmp_path / "inventory"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        (folder / "hosts.yml").write_text(yaml.safe_dump(inventory), encoding="utf-8")
        playbooks = tmp_path / "playbooks"
        playbooks.mkdir(exist_ok=True)
        if not (playbooks / "group_vars").exists():
            (playbooks / "group_vars").symlink_to(PROJECT / "group_vars")
        then_change = [
            {"import_playbook": str(PROJECT / "playbooks/preflight.yml")},
            {
                "name": "Change something",
                "hosts": "all",
                "gather_facts": False,
                "tasks": [{"name": "Change a file", "ansible.builtin.command": "touch /root/was-changed"}],
            },
        ]
        (playbooks / "site.yml").write_text(yaml.safe_dump(then_change), encoding="utf-8")
        done = subprocess.run(
            ["ansible-playbook", "-i", str(folder), str(playbooks / "site.yml")],
            cwd=PROJECT,
            env={**os.environ, "ANSIBLE_STDOUT_CALLBACK": "ansible.posix.json", **(environment or {})},
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        return parse(done)

    return run


def parse(done: subprocess.CompletedProcess[str]) -> Run:
    """Return what the output of a run says."""
    output = done.stdout + done.stderr
    findings: list[str] = []
    tasks: dict[str, int] = {}
    changed = 0
    start = done.stdout.find("\n{")
    document = json.loads(done.stdout[max(start, 0) :]) if "{" in done.stdout else {"plays": []}
    for play in document["plays"]:
        for task in play["tasks"]:
            results = [result for result in task["hosts"].values() if not result.get("skipped")]
            tasks[task["task"]["name"]] = len(results)
            changed += sum(bool(result.get("changed")) for result in results)
            for result in results:
                if result.get("failed") and not findings:
                    findings = [
                        line.removeprefix("- ")
                        for line in str(result.get("msg", "")).splitlines()
                        if line.startswith("- ")
                    ]
    return Run(done.returncode, findings, changed, tasks, output)


def expect(run: Run, *sentences: tuple[str, ...]) -> None:
    """Each sentence has all its words, nothing else was found, and the run stopped before any change."""
    assert run.code not in (0, 4), run.output[-3000:]
    left = list(run.findings)
    for words in sentences:
        matching = [finding for finding in left if all(word in finding for word in words)]
        assert matching, f"nothing says {words} in:\n" + "\n".join(left)
        left.remove(matching[0])
    assert not left, "unexpected:\n" + "\n".join(left)
    assert run.changed == 0
    assert "Change a file" not in run.tasks, "the run went on"
