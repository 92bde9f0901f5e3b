"""The running lab as the tests see it: its hosts, its secrets, its metrics, and a customer who has logged in."""

import time
from collections.abc import Callable, Iterator

import docker
import pytest
import requests

from lab import engine, hosts, secrets
from tests.site_client import AUTHORITY_CERTIFICATE, CUSTOMER, Customer

PROMETHEUS = "https://localhost:9090"
RECOVERY_SECONDS = 60


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


@pytest.fixture
def customer(secret: dict[str, str]) -> Iterator[Customer]:
    """Return a demonstration customer who has logged in through the load balancer."""
    with Customer() as session:
        answer = session.log_in(CUSTOMER, secret["vault_bank_demo_password"])
        assert answer.url.endswith("/accounts"), answer.text
        yield session
