"""What Prometheus learns of an Elasticsearch node, and what the exporter, a stranger or a wrong value may not do."""

from __future__ import annotations

import json
import re
import shlex
import time
import urllib.parse
from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest
import testinfra
from testinfra.host import Host

if TYPE_CHECKING:
    from conftest import Apply

HOST = "elasticsearch-exporter-logs1"
NAME = f"{HOST}.bank.internal"
SERVER = f"https://{NAME}:9200"
EXPORTER = f"https://{NAME}:9114"
URL = f"{EXPORTER}/probe?" + urllib.parse.urlencode({"target": SERVER, "auth_module": "platform"})
CLIENT = "prometheus:{vault_exporter_web_password}"

Fetch = Callable[..., tuple[int, str]]


@pytest.fixture(scope="session")
def server() -> Host:
    """Connect to the host of Elasticsearch."""
    return testinfra.get_host(f"docker://{HOST}")


@pytest.fixture(scope="session")
def fetch(server: Host, secrets: dict[str, str]) -> Fetch:
    """Return a function that asks an address with a log-in: the status and the answer."""

    def ask(url: str = URL, login: str = CLIENT, body: object = None, method: str = "") -> tuple[int, str]:
        login = login.format(**secrets).replace("\\", "\\\\").replace('"', '\\"')
        settings = f'user = "{login}"\n' if login else ""
        command = "curl --silent --max-time 30 --cacert /etc/pki/bank/elasticsearch_exporter/ca.crt --config -"
        if body is not None:
            command += f" --header 'Content-Type: application/json' --data-binary {shlex.quote(json.dumps(body))}"
        if method:
            command += f" --request {method}"
        answer = server.run(
            f"printf %s {shlex.quote(settings)} | {command} --write-out '\\n%{{http_code}}' {shlex.quote(url)}"
        )
        text, _, code = answer.stdout.rpartition("\n")
        return int(code), text

    return ask


@pytest.fixture(scope="module")
def index(fetch: Fetch) -> str:
    """Write a document."""
    name = "app-logs-2026.11.22"
    login = "filebeat:{vault_filebeat_elasticsearch_password}"
    code, text = fetch(f"{SERVER}/{name}/_doc?refresh=true", login, body={"message": "private"})
    assert code == 201, text
    return name


def test_node_and_indices_are_measured(fetch: Fetch, index: str, secrets: dict[str, str]) -> None:
    code, metrics = fetch()
    assert code == 200
    for series in (
        r"elasticsearch_cluster_health_number_of_nodes\{.*\} 1",
        r'elasticsearch_cluster_health_status\{.*color="(green|yellow)"\} 1',
        r"elasticsearch_jvm_memory_used_bytes\{.*area=\"heap\".*\} \S+",
        r"elasticsearch_filesystem_data_available_bytes\{.*\} \S+",
        r"elasticsearch_thread_pool_rejected_count\{.*\} \d+",
        r"elasticsearch_breakers_tripped\{.*\} \d+",
        rf'elasticsearch_indices_docs_primary\{{.*index="{index}".*\}} 1',
        "elasticsearch_indices_settings_stats_read_only_indices 0",
    ):
        assert re.search(rf"^{series}$", metrics, re.MULTILINE), series
    assert "private" not in metrics
    # The first half has no special character that an address might have escaped.
    for path in ("/metrics", "/probe?" + URL.split("?")[1]):
        assert secrets["vault_elasticsearch_exporter_password"][:16] not in fetch(EXPORTER + path)[1]


def test_indices_that_a_full_disk_closed_are_counted(fetch: Fetch, index: str) -> None:
    """Closed by hand, with the block that the server sets."""
    elastic = "elastic:{vault_elasticsearch_elastic_password}"
    path = f"{SERVER}/{index}/_settings"
    code, text = fetch(path, elastic, {"index.blocks.read_only_allow_delete": True}, method="PUT")
    assert code == 200, text
    try:
        assert re.search("^elasticsearch_indices_settings_stats_read_only_indices 1$", fetch()[1], re.MULTILINE)
    finally:
        code, text = fetch(path, elastic, {"index.blocks.read_only_allow_delete": None}, method="PUT")
    assert code == 200, text


def test_its_user_reads_no_document(fetch: Fetch, index: str) -> None:
    login = "exporter:{vault_elasticsearch_exporter_password}"
    assert fetch(f"{SERVER}/_cluster/health", login)[0] == 200
    for path in (f"{index}/_search", f"{index}/_mapping", "_security/user", "_cluster/settings"):
        assert fetch(f"{SERVER}/{path}", login)[0] == (200 if path == "_cluster/settings" else 403), path
    assert fetch(f"{SERVER}/{index}/_doc", login, body={"message": "forged"})[0] == 403


@pytest.mark.parametrize("login", ["", "prometheus:wrong", "someone:{vault_exporter_web_password}", "prometheus:"])
def test_strangers_are_refused(fetch: Fetch, login: str) -> None:
    for address in (URL, f"{EXPORTER}/metrics", f"{EXPORTER}/"):
        assert fetch(address, login)[0] == 401


def test_plain_http_is_refused(fetch: Fetch) -> None:
    assert fetch(URL.replace("https", "http", 1))[0] == 400


def test_passwords_are_nowhere_to_be_read(server: Host, secrets: dict[str, str]) -> None:
    shown = server.check_output("systemctl cat elasticsearch_exporter; ps -eo args; journalctl --no-pager --output=cat")
    for name in ("vault_exporter_web_password", "vault_elasticsearch_exporter_password"):
        assert secrets[name][:16] not in shown
    files = server.check_output("stat --format='%a %U %G %n' /etc/elasticsearch_exporter /etc/elasticsearch_exporter/*")
    assert files.splitlines() == [
        "750 root elasticsearch_exporter /etc/elasticsearch_exporter",
        "640 root elasticsearch_exporter /etc/elasticsearch_exporter/config.yml",
        "640 root elasticsearch_exporter /etc/elasticsearch_exporter/web.yml",
    ]


def test_sandbox_is_effective(server: Host) -> None:
    properties = {
        "CapabilityBoundingSet": "",
        "NoNewPrivileges": "yes",
        "ProtectSystem": "strict",
        "ReadWritePaths": "",
        "User": "elasticsearch_exporter",
    }
    for name, value in properties.items():
        assert server.check_output(f"systemctl show --property={name} --value elasticsearch_exporter") == value, name
    assert server.run("systemd-analyze security --threshold=15 elasticsearch_exporter.service").rc == 0


def test_service_comes_back_after_a_crash(server: Host, fetch: Fetch) -> None:
    process = "systemctl show --property=MainPID --value elasticsearch_exporter"
    before = server.check_output(process)
    server.run_expect([0], "systemctl kill --signal=KILL elasticsearch_exporter")
    deadline = time.monotonic() + 20
    while server.check_output(process) in ("0", before) or fetch()[0] != 200:
        assert time.monotonic() < deadline, "elasticsearch_exporter did not come back"
        time.sleep(0.5)


def state(server: Host) -> str:
    """Return what the role may change on the host, and the running process."""
    return server.check_output(
        "find /etc/elasticsearch_exporter /etc/systemd/system/elasticsearch_exporter.service -type f"
        " -exec sha256sum {} + | sort; systemctl show --property=MainPID,ActiveState elasticsearch_exporter"
    )


@pytest.mark.parametrize(
    ("variables", "sentence"),
    [
        ({"vault_exporter_web_password": "short"}, "vault_exporter_web_password needs 16 to 72 bytes"),
        (
            {"elasticsearch_exporter_elasticsearch_user": "odd", "elasticsearch_exporter_elasticsearch_password": ""},
            "elasticsearch_users has no user odd, as which the node is asked: add it, or set"
            " elasticsearch_exporter_elasticsearch_user. elasticsearch_exporter_elasticsearch_password"
            " (vault_elasticsearch_exporter_password) is empty",
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


def test_password_that_elasticsearch_refuses_is_told(apply: Apply, fetch: Fetch) -> None:
    answer = apply(elasticsearch_exporter_elasticsearch_password="not the right password")
    assert answer.failed
    assert f"could not read the statistics of {SERVER} as exporter" in answer.words
    assert "not the right password" not in answer.output
    answer = apply()
    assert not answer.failed, answer.output
    assert "elasticsearch_cluster_health_number_of_nodes{" in fetch()[1]
