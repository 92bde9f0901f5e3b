"""What a changed declaration does to a running node, and what a broken one does not do."""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import testinfra
from testinfra.host import Host

sys.path.insert(0, str(Path(__file__).parents[3] / "tests/unit"))

from pki import supply

if TYPE_CHECKING:
    from conftest import Apply

SETTINGS = "/etc/elasticsearch/elasticsearch.yml"


@pytest.fixture(scope="module")
def server() -> Host:
    """Return the host of the log store."""
    return testinfra.get_host("docker://elasticsearch-logs1")


def process(server: Host) -> str:
    """Return the number of the server's process."""
    return server.check_output("systemctl show elasticsearch.service --property=MainPID --value")


@pytest.mark.parametrize(
    ("variables", "sentences"),
    [
        (
            {
                "elasticsearch_version": "8.13.4",
                "elasticsearch_heap_mb": 10_000_000,
                "elasticsearch_settings": {"path.data": "/srv", "indices": {"recovery": 1}},
                "elasticsearch_users": [{"name": "bad name", "password": "short", "roles": []}],
            },
            [
                "elasticsearch_version is 8.13.4, but this role runs 8.14.0 and later",
                "data cannot go back, so set platform_version_elastic to",
                "which is more than half of its",
                "elasticsearch_settings must not hold path.data",
                "takes flat names, but indices holds a mapping",
                "rename bad name.",
                "The password of bad name is shorter than 12 characters",
            ],
        ),
        (
            {
                "elasticsearch_version": "10.0.0",
                "elasticsearch_cluster_name": "another",
                "elasticsearch_elastic_password": "not the password of elastic",
                "elasticsearch_node_roles": ["data"],
            },
            [
                "from which 10.0.0 cannot be reached in one step",
                "belongs to the cluster bank-main, but elasticsearch_cluster_name is another",
                "does not accept elasticsearch_elastic_password",
            ],
        ),
    ],
    ids=["values", "history"],
)
def test_refused_before_anything_changes(
    server: Host, apply: Apply, variables: dict[str, object], sentences: list[str]
) -> None:
    before = process(server), server.file(SETTINGS).sha256sum
    answer = apply(**variables)
    assert answer.failed
    for sentence in sentences:
        assert sentence in answer.words
    assert not any(answer.changed.values())
    assert (process(server), server.file(SETTINGS).sha256sum) == before


@pytest.mark.parametrize(
    ("wrong", "reason", "remedy"),
    [
        ({"days": -1}, "it ended on", "Put its successor there"),
        ({"starts_in_days": 2}, "it is valid from", "Put the host's clock right"),
        ({"authority_days": -1}, "its authority CN=Site intermediate ended on", "Put its successor there"),
        ({"names": ["other.bank.internal"]}, "it lacks the name elasticsearch-logs1.bank.internal", "Order one"),
    ],
    ids=["ended", "not yet valid", "authority ended", "another host's"],
)
def test_certificate_that_does_not_hold_is_refused_before_the_service_is_touched(
    server: Host, apply: Apply, tmp_path: Path, wrong: dict[str, Any], reason: str, remedy: str
) -> None:
    certificates = "/etc/elasticsearch/certs/tls.crt", "/etc/pki/bank/elasticsearch/tls.crt"
    before = process(server), [server.file(path).sha256sum for path in certificates]
    folder = tmp_path / "elasticsearch-logs1/elasticsearch"
    supply(folder, **{"names": ["*.bank.internal"], **wrong})
    answer = apply(certificates_source="site", certificates_site_directory=str(tmp_path))
    assert answer.failed
    assert f"{folder} is refused, and nothing was changed: {reason}" in answer.words
    assert remedy in answer.words
    assert not any(answer.changed.values())
    assert (process(server), [server.file(path).sha256sum for path in certificates]) == before


def test_conflicting_template_is_refused(server: Host, apply: Apply) -> None:
    body = {
        "index_patterns": ["app-logs-*"],
        "priority": 200,
        "template": {"mappings": {"properties": {"message": {"type": "ip"}}}},
    }
    answer = apply(elasticsearch_index_templates=[{"name": "app-logs", "body": body}])
    assert answer.failed
    assert "gives field message the type ip, but index app-logs-" in answer.words
    assert "has it as text" in answer.words
    assert not any(answer.changed.values())


def test_lists_are_the_whole_state_and_need_no_restart(server: Host, apply: Apply) -> None:
    before = process(server)
    users = [
        {
            "name": "filebeat",
            "password": "{{ vault_filebeat_elasticsearch_password }}",
            "roles": ["filebeat_writer"],
        },
        {"name": "visitor", "password": "correct horse ' \" battery", "roles": ["viewer"]},
    ]
    answer = apply(elasticsearch_users=users, elasticsearch_cluster_settings={"cluster.max_shards_per_node": 500})
    assert not answer.failed, answer.output
    login = "curl --silent --cacert /etc/elasticsearch/certs/ca.crt --user 'visitor:correct horse '\\'' \" battery' "
    login += "--output /dev/null --write-out '%{http_code}' https://elasticsearch-logs1.bank.internal:9200/_security/_authenticate"
    assert server.check_output(login) == "200"
    answer = apply()
    assert not answer.failed, answer.output
    assert server.check_output(login) == "401"
    assert process(server) == before


def test_keys_of_hosts_that_left_are_revoked(server: Host, apply: Apply, secrets: dict[str, str]) -> None:
    login = f"elastic:{secrets['vault_elasticsearch_elastic_password']}".replace("\\", "\\\\").replace('"', '\\"')

    def ask(method: str, path: str, body: object = None) -> Any:  # noqa: ANN401
        command = "curl --silent --fail --cacert /etc/elasticsearch/certs/ca.crt --config - "
        command += f"--header 'Content-Type: application/json' --data {shlex.quote(json.dumps(body))} " if body else ""
        command += f"--request {method} https://elasticsearch-logs1.bank.internal:9200{path}"
        config = shlex.quote(f'user = "{login}"')
        return json.loads(server.check_output(f"printf %s {config} | {command}"))

    made = {}
    for host, service, owner in (
        ("elasticsearch-logs1", "filebeat", "bank platform"),
        ("elasticsearch-logs9", "filebeat", "bank platform"),
        ("elasticsearch-logs1", "packetbeat", "bank platform"),
        ("elasticsearch-logs9", "filebeat", "somebody"),
    ):
        metadata = {"managed_by": owner, "service": service, "host": host}
        body = {"name": f"{service} on {host}", "metadata": metadata, "role_descriptors": {"none": {}}}
        made[ask("POST", "/_security/api_key", body)["id"]] = (host, service, owner)
    try:
        answer = apply(None, "--check")
        assert answer.changed["elasticsearch-logs1"] == 1, answer.output
        answer = apply()
        assert not answer.failed, answer.output
        found = ask("GET", "/_security/api_key?active_only=true")["api_keys"]
        assert {made[key["id"]] for key in found if key["id"] in made} == {
            ("elasticsearch-logs1", "filebeat", "bank platform"),
            ("elasticsearch-logs9", "filebeat", "somebody"),
        }
        assert apply().changed["elasticsearch-logs1"] == 0
    finally:
        ask("DELETE", "/_security/api_key", {"ids": list(made)})


def test_index_in_the_place_of_an_alias_becomes_its_first(server: Host, apply: Apply, secrets: dict[str, str]) -> None:
    """As on a site where Filebeat wrote before there was an alias."""
    name = "app-logs-rejected-by-elasticsearch"
    curl = "curl --silent --fail --cacert /etc/elasticsearch/certs/ca.crt --config - "
    curl += "--header 'Content-Type: application/json'"

    def ask(method: str, path: str, body: str = "") -> str:
        login = f"elastic:{secrets['vault_elasticsearch_elastic_password']}".replace("\\", "\\\\").replace('"', '\\"')
        data = f"--data {shlex.quote(body)} " if body else ""
        url = shlex.quote(f"https://elasticsearch-logs1.bank.internal:9200{path}")
        settings = shlex.quote(f'user = "{login}"\n')
        return server.check_output(f"printf %s {settings} | {curl} --request {method} {data} {url}")

    assert f"{name}-000001" in ask("GET", f"/_alias/{name}")
    ask("DELETE", f"/{name}-000001")
    for number in range(3):
        ask("PUT", f"/{name}/_create/{number}?refresh=true", '{"message": "refused"}')
    answer = apply()
    assert not answer.failed, answer.output
    assert f'"{name}-000001":{{"aliases":{{"{name}":{{"is_write_index":true}}}}}}' in ask("GET", f"/_alias/{name}")
    assert '"count":3' in ask("GET", f"/{name}/_count")
    ask("PUT", f"/{name}/_create/new?refresh=true", '{"message": "refused later"}')
    assert not any(apply().changed.values())


def test_unknown_setting_is_told_and_taken_back(server: Host, apply: Apply) -> None:
    before = server.file(SETTINGS).sha256sum
    answer = apply(elasticsearch_settings={"indices.recovery.max_bytes_per_sek": "40mb"})
    assert answer.failed
    assert "unknown setting [indices.recovery.max_bytes_per_sek]" in answer.words
    assert "The previous configuration is back in place, and the node runs with it." in answer.words
    assert server.file(SETTINGS).sha256sum == before
    assert server.check_output("find /etc/elasticsearch /etc/systemd/system -name '*~'") == ""
    assert server.service("elasticsearch").is_running
