"""The running lab as the tests see it: its hosts, its secrets, and a customer's HTTP session."""

import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import docker
import pytest
import requests

from lab import engine, hosts, secrets
from lab.settings import AUTHORITY, INVENTORY, PROJECT

BIN = Path(sys.executable).parent
BANK = "https://localhost:8443"
PROMETHEUS = "https://localhost:9090"
AUTHORITY_CERTIFICATE = AUTHORITY / "ca.crt"
CUSTOMER = "user@demo.local"
RECOVERY_SECONDS = 60
TOKEN = re.compile(r'name="csrf_token"[^>]*value="([^"]+)"')


@dataclass(frozen=True)
class PlaybookRun:
    """What one playbook run printed and changed."""

    output: str
    changed: dict[str, int]
    failed: bool

    def changed_tasks(self, host: str) -> list[str]:
        """Return the tasks that changed ``host``, in order."""
        tasks, task = [], ""
        for line in self.output.splitlines():
            if found := re.match(r"(?:TASK|RUNNING HANDLER) \[(.*?)\] \*", line):
                task = found[1]
            elif re.match(rf"changed: \[{re.escape(host)}[\] ]", line):
                tasks.append(task)
        return tasks


def run_playbook(name: str, *options: str, inventory: tuple[Path, ...] = (INVENTORY,), lab: str = "") -> PlaybookRun:
    """Run a playbook as an operator would and return what it did."""
    sources = [word for source in inventory for word in ("-i", str(source))]
    environment = {**os.environ, "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}", "ANSIBLE_FORCE_COLOR": "0"}
    environment |= {"LAB_NAME": lab} if lab else {}
    answer = subprocess.run(
        [str(BIN / "ansible-playbook"), *sources, name, *options],
        cwd=PROJECT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    recap = re.findall(r"^(\S+)\s+: ok=\d+\s+changed=(\d+)", answer.stdout, re.MULTILINE)
    return PlaybookRun(
        output=answer.stdout + answer.stderr,
        changed={host: int(count) for host, count in recap},
        failed=answer.returncode != 0,
    )


@pytest.fixture(scope="session")
def client() -> docker.DockerClient:
    """Return a client of the engine that runs the lab."""
    return engine.ensure()


@pytest.fixture(scope="session")
def secret() -> dict[str, str]:
    """Return the lab's secrets by name."""
    return secrets.ensure()


@pytest.fixture(scope="session")
def lab_hosts() -> dict[str, hosts.Host]:
    """Return the hosts of the lab's inventory by name."""
    return {host.name: host for host in hosts.inventory()}


@pytest.fixture(scope="session")
def on(client: docker.DockerClient) -> Callable[..., tuple[int, str]]:
    """Return a function that runs a command on a host: its exit code and output."""

    def execute(host: str, *command: str, lab: str = "bank-lab") -> tuple[int, str]:
        code, output = client.containers.get(f"{lab}-{host}").exec_run(list(command))
        return code, output.decode()

    return execute


def prometheus_query(expression: str, password: str) -> list[dict]:
    """Return the samples that Prometheus gives for an expression."""
    answer = requests.get(
        f"{PROMETHEUS}/api/v1/query",
        params={"query": expression},
        auth=("operator", password),
        verify=AUTHORITY_CERTIFICATE,
        timeout=10,
    )
    answer.raise_for_status()
    return answer.json()["data"]["result"]


def wait_until(condition: Callable[[], bool], what: str) -> None:
    """Wait until the condition holds."""
    deadline = time.monotonic() + RECOVERY_SECONDS
    while time.monotonic() < deadline:
        if condition():
            return
        time.sleep(1)
    pytest.fail(f"not within {RECOVERY_SECONDS} s: {what}")


class Customer(requests.Session):
    """A customer's browser, without the pictures: follows forms and keeps cookies."""

    def __init__(self, base: str = BANK) -> None:
        super().__init__()
        self.base = base
        # The lab's own authority must be enough, whatever this machine's environment trusts.
        self.trust_env = False
        self.verify = str(AUTHORITY_CERTIFICATE)
        # What a browser sends with a form, and what the bank checks it against.
        self.headers["Referer"] = f"{base}/"

    def page(self, path: str) -> requests.Response:
        """Get a page."""
        return self.get(self.base + path, timeout=10)

    def submit(self, path: str, **fields: str) -> requests.Response:
        """Fill in the form of a page and send it."""
        token = TOKEN.search(self.page(path).text)
        assert token, f"{path} has no form"
        return self.post(self.base + path, data={"csrf_token": token[1], **fields}, timeout=10)

    def log_in(self, email: str, password: str) -> requests.Response:
        """Log in through the form."""
        return self.submit("/login", email=email, password=password)


@pytest.fixture
def customer(secret: dict[str, str]) -> Iterator[Customer]:
    """Return a demonstration customer who has logged in through the load balancer."""
    with Customer() as session:
        answer = session.log_in(CUSTOMER, secret["vault_bank_demo_password"])
        assert answer.url.endswith("/accounts"), answer.text
        yield session
