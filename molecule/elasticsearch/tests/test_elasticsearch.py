"""What writers, readers and strangers find at the log store, and an auditor on its host."""

import json
import shlex
from collections.abc import Callable
from typing import Any

import pytest
import testinfra
from testinfra.host import Host

SERVER = "elasticsearch-logs1"
NAME = f"{SERVER}.bank.internal"
URL = f"https://{NAME}:9200"
INDEX = "app-logs-2026.11.22"
DOCUMENT = {
    "@timestamp": "2026-11-22T10:00:00.000Z",
    "message": "transfer booked",
    "event": {"id": "proof-1", "duration": 12000000, "category": ["web"]},
    "source": {"ip": "192.0.2.7"},
    "bank": {"amount_minor": 1999, "currency": "EUR"},
}

Ask = Callable[..., tuple[int, Any]]


@pytest.fixture(scope="session")
def server() -> Host:
    """Return the host of the log store."""
    return testinfra.get_host(f"docker://{SERVER}")


@pytest.fixture(scope="session")
def ask(server: Host, secrets: dict[str, str]) -> Ask:
    """Return a function that sends a request as a user and returns status and answer."""
    passwords = {
        "elastic": secrets["vault_elasticsearch_elastic_password"],
        "filebeat": secrets["vault_filebeat_elasticsearch_password"],
    }

    def send(
        method: str, path: str, body: object = None, user: str = "elastic", password: str | None = None
    ) -> tuple[int, Any]:
        login = f"{user}:{passwords[user] if password is None else password}"
        escaped = login.replace("\\", "\\\\").replace('"', '\\"')
        settings = f'user = "{escaped}"\n'
        command = f"curl --silent --max-time 20 --cacert /etc/elasticsearch/certs/ca.crt --request {method} "
        command += "--write-out '\\n%{http_code}' --header 'Content-Type: application/json' --config - "
        if body is not None:
            text = body if isinstance(body, str) else json.dumps(body)
            command += f"--data-binary {shlex.quote(text)} "
        answer = server.run_expect([0], f"printf %s {shlex.quote(settings)} | {command} {shlex.quote(URL + path)}")
        content, _, status = answer.stdout.rpartition("\n")
        return int(status), json.loads(content) if content.startswith(("{", "[")) else content

    return send


@pytest.fixture(scope="module")
def written(ask: Ask) -> str:
    """Let Filebeat's user write one document; return the name of its index."""
    status, answer = ask("PUT", f"/{INDEX}/_create/proof-1?refresh=wait_for", DOCUMENT, user="filebeat")
    assert status in (201, 409), answer
    return INDEX


def test_superuser_logs_in_over_verified_tls(ask: Ask) -> None:
    status, answer = ask("GET", "/_cluster/health")
    assert status == 200
    assert (answer["cluster_name"], answer["status"], answer["number_of_nodes"]) == ("bank-main", "green", 1)


def test_strangers_are_refused(ask: Ask, server: Host) -> None:
    assert ask("GET", "/_cluster/health", password="wrong password")[0] == 401
    assert ask("GET", "/_cluster/health", user="nobody", password="")[0] == 401
    plain = server.run(f"curl --silent --max-time 10 http://{NAME}:9200/")
    assert (plain.rc, plain.stdout) == (52, ""), "an empty reply, because the port speaks TLS only"


def test_certificates_name_the_host_and_old_tls_is_refused(server: Host) -> None:
    for port in (9200, 9300):
        command = (
            f"openssl s_client -connect {NAME}:{port} -CAfile /etc/elasticsearch/certs/ca.crt -verify_return_error"
        )
        for name, accepted in ((NAME, True), ("other.bank.internal", False)):
            shown = server.run(f"{command} -verify_hostname {name} </dev/null").stdout
            assert ("Verify return code: 0 (ok)" in shown) is accepted, f"{port} {name}: {shown[-500:]}"
    assert server.run(f"openssl s_client -connect {NAME}:9200 -cipher ALL:@SECLEVEL=0 -tls1_1 </dev/null").rc != 0


def test_node_without_a_certificate_cannot_join(server: Host) -> None:
    """TLS 1.3 tells a client about its missing certificate after the handshake, so something is read as well."""
    command = f"openssl s_client -connect {NAME}:9300 -CAfile /etc/elasticsearch/certs/ca.crt -quiet -ign_eof"
    shown = server.run(f"timeout 10 {command} </dev/null 2>&1").stdout
    assert "certificate required" in shown or "bad certificate" in shown or "alert" in shown, shown


def test_writer_writes_and_does_nothing_else(ask: Ask, written: str) -> None:
    denied = [
        ("GET", f"/{written}/_search", None),
        ("GET", f"/{written}/_doc/proof-1", None),
        ("PUT", f"/{written}/_doc/proof-1", DOCUMENT),
        ("DELETE", f"/{written}/_doc/proof-1", None),
        ("DELETE", f"/{written}", None),
        ("PUT", "/other-index/_create/1", DOCUMENT),
        ("GET", "/_security/user", None),
        ("PUT", "/_index_template/mine", {"index_patterns": ["app-logs-*"], "priority": 999}),
        ("PUT", "/_cluster/settings", {"persistent": {"cluster.max_shards_per_node": 7}}),
    ]
    found = {f"{method} {path}": ask(method, path, body, user="filebeat")[0] for method, path, body in denied}
    assert set(found.values()) == {403}, found


def test_template_gives_the_types(ask: Ask, written: str) -> None:
    mapping = ask("GET", f"/{written}/_mapping")[1][written]["mappings"]["properties"]
    assert mapping["@timestamp"]["type"] == "date"
    assert mapping["message"]["type"] == "text"
    assert mapping["source"]["properties"]["ip"]["type"] == "ip"
    assert mapping["event"]["properties"]["duration"]["type"] == "long"
    assert mapping["bank"]["properties"]["amount_minor"]["type"] == "long"
    status, answer = ask("POST", f"/{written}/_doc", DOCUMENT | {"source": {"ip": "no address"}}, user="filebeat")
    assert (status, answer["error"]["type"]) == (400, "document_parsing_exception")


def test_document_is_found_by_a_field(ask: Ask, written: str) -> None:
    query = {
        "query": {"bool": {"filter": [{"term": {"event.id": "proof-1"}}, {"range": {"bank.amount_minor": {"gte": 1}}}]}}
    }
    hits = ask("POST", "/app-logs-*/_search", query)[1]["hits"]["hits"]
    assert [hit["_source"]["message"] for hit in hits] == ["transfer booked"]


def test_snapshot_is_taken_and_restored(ask: Ask, written: str) -> None:
    ask("DELETE", "/_snapshot/platform/proof")
    status, answer = ask("PUT", "/_snapshot/platform/proof?wait_for_completion=true", {"indices": written})
    assert (status, answer["snapshot"]["state"]) == (200, "SUCCESS"), answer
    body = {"indices": written, "rename_pattern": "(.+)", "rename_replacement": "restored-$1"}
    status, answer = ask("POST", "/_snapshot/platform/proof/_restore?wait_for_completion=true", body)
    assert (status, answer["snapshot"]["shards"]["failed"]) == (200, 0), answer
    assert ask("GET", f"/restored-{written}/_count")[1]["count"] >= 1
    assert ask("DELETE", f"/restored-{written}")[0] == 200


def test_running_node_has_the_settings(ask: Ask) -> None:
    node = next(iter(ask("GET", "/_nodes/_local/jvm,process,settings?flat_settings=true")[1]["nodes"].values()))
    assert node["process"]["mlockall"] is True
    assert node["jvm"]["mem"]["heap_max_in_bytes"] == 512 * 1024 * 1024
    assert node["settings"]["cluster.name"] == "bank-main"
    persistent = ask("GET", "/_cluster/settings?flat_settings=true")[1]["persistent"]
    assert persistent["cluster.routing.allocation.disk.watermark.flood_stage"] == "95%"


def test_first_masters_and_first_password_are_gone(server: Host) -> None:
    assert "initial_master_nodes" not in server.file("/etc/elasticsearch/elasticsearch.yml").content_string
    listed = server.check_output("runuser -u elasticsearch -- /usr/share/elasticsearch/bin/elasticsearch-keystore list")
    assert "bootstrap.password" not in listed.split()
    assert not [name for name in listed.split() if "autoconfig" in name or "ssl" in name]


def test_passwords_are_nowhere_on_the_host(server: Host, secrets: dict[str, str]) -> None:
    for name in ("vault_elasticsearch_elastic_password", "vault_filebeat_elasticsearch_password"):
        # The first half has no special character that a log might have escaped.
        pattern = shlex.quote(secrets[name][:16])
        folders = "/etc /var/log /run/systemd /usr/lib/systemd /var/lib/elasticsearch"
        found = server.run(f"grep -rlaF {pattern} {folders}")
        assert (found.rc, found.stdout) == (1, ""), found.stdout
        assert server.run(f"journalctl --no-pager | grep -cF {pattern}").stdout.strip() == "0"
        assert server.run(f"cat /proc/[0-9]*/environ | grep -caF {pattern}").stdout.strip() == "0"


@pytest.mark.parametrize(
    ("path", "owner", "mode"),
    [
        ("/etc/elasticsearch", "root", 0o2750),
        ("/etc/elasticsearch/elasticsearch.yml", "root", 0o660),
        ("/etc/elasticsearch/certs/tls.key", "root", 0o640),
        ("/etc/elasticsearch/elasticsearch.keystore", "root", 0o660),
        ("/var/lib/elasticsearch", "elasticsearch", 0o2750),
        ("/var/lib/elasticsearch-snapshots", "elasticsearch", 0o2750),
    ],
)
def test_files_are_closed(server: Host, path: str, owner: str, mode: int) -> None:
    file = server.file(path)
    assert (file.user, file.group, oct(file.mode)) == (owner, "elasticsearch", oct(mode))


def test_no_copy_of_an_older_configuration_is_left(server: Host) -> None:
    assert server.check_output("find /etc/elasticsearch /etc/systemd/system -name '*~' -o -name '*.rpmnew'") == ""


def test_certificates_are_those_that_are_renewed(server: Host) -> None:
    for name in ("tls.crt", "tls.key", "ca.crt"):
        issued, used = (
            server.file(f"{folder}/{name}") for folder in ("/etc/pki/bank/elasticsearch", "/etc/elasticsearch/certs")
        )
        assert issued.sha256sum == used.sha256sum


def test_server_listens_on_the_host_address_only(server: Host) -> None:
    address = server.check_output("hostname -i").split()[0]
    listening = {
        line.split()[3] for line in server.check_output("ss -Hltn sport = :9200 or sport = :9300").splitlines()
    }
    assert {name.replace("[::ffff:", "").replace("]", "") for name in listening} == {
        f"{address}:9200",
        f"{address}:9300",
    }


def test_unit_is_sandboxed(server: Host) -> None:
    switches = ("ProtectHome", "PrivateTmp", "NoNewPrivileges", "PrivateDevices", "ProtectKernelTunables")
    names = ",".join((*switches, "ProtectSystem", "CapabilityBoundingSet", "LimitMEMLOCK", "MainPID"))
    properties = dict(
        line.split("=", 1)
        for line in server.check_output(f"systemctl show elasticsearch.service -p {names}").splitlines()
    )
    assert properties["ProtectSystem"] == "strict"
    assert {properties[name] for name in switches} == {"yes"}
    assert properties["CapabilityBoundingSet"] == "cap_ipc_lock", "a container locks memory by this capability alone"
    process = server.file(f"/proc/{properties['MainPID']}/status").content_string
    assert "NoNewPrivs:\t1" in process
    assert "CapBnd:\t0000000000004000" in process
    server.run_expect([0], "systemd-analyze security elasticsearch.service --threshold=30 --no-pager")


def test_repository_is_used_only_when_it_is_named(server: Host) -> None:
    assert "enabled=0" in server.file("/etc/yum.repos.d/bank-platform-elastic.repo").content_string
    assert "elastic" not in server.check_output("dnf --quiet repolist")
