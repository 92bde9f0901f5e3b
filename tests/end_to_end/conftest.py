"""The running lab as the tests see it: its hosts, its secrets, its metrics, and a customer who has logged in."""

import secrets as random
import time
from collections.abc import Callable, Iterator
from typing import Any

import docker
import pytest
import requests

from lab import engine, hosts, secrets
from tests.site_client import AUTHORITY_CERTIFICATE, BANK, CUSTOMER, Customer

PROMETHEUS = "https://localhost:9090"
ELASTICSEARCH = "https://localhost:9200"
RECOVERY_SECONDS = 120

Execute = Callable[..., tuple[int, str]]
Search = Callable[[str, dict[str, Any]], dict[str, Any]]


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
def on(client: docker.DockerClient) -> Execute:
    """Return a function that runs a command on a host: its exit code and output."""

    def execute(host: str, *command: str, lab: str = "bank-lab") -> tuple[int, str]:
        code, output = client.containers.get(f"{lab}-{host}").exec_run(list(command))
        return code, output.decode()

    return execute


@pytest.fixture(scope="session", autouse=True)
def _first_snapshot(on: Execute, lab_hosts: dict[str, hosts.Host]) -> None:
    """Have the log store's job of the night run now, long before a dashboard is asked what it did."""
    first = min(name for name, host in lab_hosts.items() if "elasticsearch" in host.groups)
    assert on(first, "systemctl", "start", "elasticsearch-maintenance.service")[0] == 0


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


def wait_until(condition: Callable[[], bool], what: str, seconds: int = RECOVERY_SECONDS) -> None:
    """Wait until the condition holds."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if condition():
            return
        time.sleep(1)
    pytest.fail(f"not within {seconds} s: {what}")


@pytest.fixture
def customer(secret: dict[str, str]) -> Iterator[Customer]:
    """Return a demonstration customer who has logged in through the load balancer."""
    with Customer() as session:
        answer = session.log_in(CUSTOMER, secret["vault_bank_demo_password"])
        assert answer.url.endswith("/accounts"), answer.text
        yield session


def call(method: str, path: str, *, bearer: str = "", **options: object) -> requests.Response:
    """Send one request of a program, on a connection of its own."""
    headers = {"Authorization": f"Bearer {bearer}"} | options.pop("headers", {})
    return requests.request(
        method, BANK + path, headers=headers, verify=AUTHORITY_CERTIFICATE, timeout=10, allow_redirects=False, **options
    )


@pytest.fixture(scope="session")
def token(secret: dict[str, str]) -> str:
    """Return an access token of the demonstration customer."""
    log_in = {"email": CUSTOMER, "password": secret["vault_bank_demo_password"]}
    answer = call("POST", "/api/v1/token", json=log_in | {"scopes": ["accounts:read", "transfers:write"]})
    assert answer.status_code == 201, answer.text
    return answer.json()["access_token"]


@pytest.fixture(scope="session")
def accounts(token: str) -> list[dict[str, Any]]:
    """Return the two accounts in euro of the demonstration customer."""
    items = call("GET", "/api/v1/accounts", bearer=token).json()["items"]
    return [account for account in items if account["currency"] == "EUR"][:2]


def send_cent(token: str, accounts: list[dict[str, Any]], trace: str) -> requests.Response:
    """Order the transfer of a cent as part of a trace."""
    order = {
        "from_account": accounts[0]["id"],
        "to_number": accounts[1]["number"],
        "amount_minor": 1,
        "currency": "EUR",
        "reference": "private reference",
    }
    headers = {
        "Idempotency-Key": f'"{random.token_hex(16)}"',
        "traceparent": f"00-{trace}-{random.token_hex(8)}-01",
    }
    return call("POST", "/api/v1/transfers", bearer=token, json=order, headers=headers)


@pytest.fixture(scope="session")
def search(secret: dict[str, str]) -> Search:
    """Return a function that asks Elasticsearch."""
    session = requests.Session()
    session.trust_env = False
    session.auth = (b"elastic", secret["vault_elasticsearch_elastic_password"].encode())
    session.verify = str(AUTHORITY_CERTIFICATE)

    def ask(path: str, body: dict[str, Any]) -> dict[str, Any]:
        answer = session.post(f"{ELASTICSEARCH}{path}", json=body, timeout=10)
        assert answer.status_code == 200, answer.text
        return answer.json()

    return ask
