"""What an operator finds on a host of Logstash. In the lab a stand-in takes its place: no event is carried here."""

import json
import re
import shlex
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import testinfra
from testinfra.host import Host

PIPE, STORE = "logstash-pipe1", "logstash-store1"
CONFIGURATION = "/etc/logstash"


@pytest.fixture(scope="module")
def pipe() -> Host:
    """Return the host of Logstash."""
    return testinfra.get_host(f"docker://{PIPE}")


@pytest.fixture(scope="module")
def store() -> Host:
    """Return the host of Elasticsearch."""
    return testinfra.get_host(f"docker://{STORE}")


def api(host: Host, path: str) -> dict[str, Any]:
    """Return what the monitoring interface answers."""
    return json.loads(host.check_output(f"curl --silent --fail --max-time 10 http://127.0.0.1:9600{path}"))


def unchanged(host: Host) -> tuple[str, str]:
    """Return what tells whether configuration or process changed."""
    files = host.check_output(
        f"find {CONFIGURATION} /etc/sysconfig/logstash -type f -exec sha256sum {{}} + | sort | sha256sum"
    )
    return files, host.check_output("systemctl show logstash.service --property=MainPID,NRestarts")


def test_package_says_that_it_is_a_standin(pipe: Host) -> None:
    assert "logstash-standin" in pipe.check_output("rpm -qi logstash")
    assert "stand-in" in api(pipe, "/")["standin"]


def test_both_pipelines_run_and_elasticsearch_takes_their_key(pipe: Host) -> None:
    assert set(api(pipe, "/_node/pipelines")["pipelines"]) == {"main", "rejected"}
    report = api(pipe, "/_health_report")["indicators"]["pipelines"]
    assert report["status"] == "green", report


def test_monitoring_interface_is_on_the_loopback_alone(pipe: Host) -> None:
    listening = {line.split()[3] for line in pipe.check_output("ss -Hltn").splitlines()}
    assert {address for address in listening if address.endswith(":9600")} == {"127.0.0.1:9600"}


def test_secrets_are_in_the_keystore_alone(pipe: Host, secrets: dict[str, str]) -> None:
    password = secrets["vault_logstash_elasticsearch_password"]
    # Its first half has no character that a file could have written otherwise.
    for secret in (password[:20], secrets["vault_logstash_keystore_password"][:20]):
        found = pipe.run(f"grep --recursive --files-with-matches --fixed-strings {secret} /etc /var /run").stdout
        assert set(found.split()) <= {"/etc/sysconfig/logstash"}, found
    assert pipe.run(f"grep --fixed-strings {password[:20]} /etc/sysconfig/logstash").rc == 1
    processes = pipe.check_output("cat /proc/[0-9]*/cmdline | tr '\\0' ' '")
    assert password[:20] not in processes
    assert pipe.run(f"journalctl --no-pager | grep --fixed-strings {password[:20]}").rc == 1


@pytest.mark.parametrize(
    ("path", "user", "group", "mode"),
    [
        ("/etc/sysconfig/logstash", "root", "root", 0o600),
        (f"{CONFIGURATION}/logstash.keystore", "root", "logstash", 0o640),
        (f"{CONFIGURATION}/logstash.keystore.seal", "root", "root", 0o600),
        (f"{CONFIGURATION}/elasticsearch-api-key", "root", "root", 0o600),
        (f"{CONFIGURATION}/logstash.yml", "root", "logstash", 0o640),
        (f"{CONFIGURATION}/conf.d/main.conf", "root", "logstash", 0o640),
        ("/etc/pki/bank/logstash/tls.key", "root", "logstash", 0o640),
    ],
)
def test_files_are_closed(pipe: Host, path: str, user: str, group: str, mode: int) -> None:
    file = pipe.file(path)
    assert (file.user, file.group, file.mode) == (user, group, mode)


def test_nothing_is_left_of_earlier_configurations(pipe: Host) -> None:
    left = pipe.check_output(f"find {CONFIGURATION} /etc/sysconfig -name '*~' -o -name '*.new' -o -name '*.rpmnew'")
    assert left == ""


def test_inputs_ask_for_certificates_and_outputs_verify(pipe: Host) -> None:
    text = pipe.file(f"{CONFIGURATION}/conf.d/main.conf").content_string
    for plugin in ("beats", "tcp"):
        block = re.search(rf"^  {plugin} {{(.*?)^  }}", text, re.MULTILINE | re.DOTALL)
        assert block
        assert "ssl_enabled => true" in block[1]
        assert 'ssl_client_authentication => "required"' in block[1]
    assert re.search(r'udp \{[^}]*host => "127\.0\.0\.1"', text)
    for output in re.findall(r"^  elasticsearch {(.*?)^  }", text, re.MULTILINE | re.DOTALL):
        assert f"https://{STORE}.bank.internal:9200" in output
        assert 'ssl_verification_mode => "full"' in output


def test_service_is_sandboxed_and_can_be_stopped(pipe: Host) -> None:
    names = "NoNewPrivileges,ProtectSystem,PrivateDevices,ProtectHome,User,TimeoutStopUSec,CapabilityBoundingSet"
    shown = pipe.check_output(f"systemctl show logstash.service --property={names}")
    properties = dict(line.split("=", 1) for line in shown.splitlines())
    assert (properties["User"], properties["ProtectSystem"]) == ("logstash", "strict")
    assert {properties[name] for name in ("NoNewPrivileges", "PrivateDevices", "ProtectHome")} == {"yes"}
    assert properties["CapabilityBoundingSet"] == ""
    assert properties["TimeoutStopUSec"] == "2min"
    assert "Overall exposure level" in pipe.check_output("systemd-analyze security logstash.service --threshold=30")


def test_writer_may_add_lines_and_nothing_else(store: Host, secrets: dict[str, str]) -> None:
    login = f"logstash:{secrets['vault_logstash_elasticsearch_password']}"
    escaped = login.replace("\\", "\\\\").replace('"', '\\"')
    config = shlex.quote(f'user = "{escaped}"')

    def ask(method: str, path: str, body: str = "") -> int:
        command = (
            f"printf %s {config} | curl --silent --config - --cacert /etc/elasticsearch/certs/ca.crt --max-time 20 "
            f"--output /dev/null --write-out '%{{http_code}}' --request {method} "
            f"--header 'Content-Type: application/json' --data '{body}' 'https://{STORE}.bank.internal:9200{path}'"
        )
        return int(store.check_output(command))

    document = '{"@timestamp": "2026-11-02T08:15:30Z", "message": "from the test"}'
    assert ask("PUT", "/app-logs-2026.11.02/_create/scenario-1", document) == 201
    assert ask("PUT", "/app-logs-2026.11.02/_create/scenario-1", document) == 409, "a line sent twice is stored once"
    assert ask("PUT", "/app-logs-2026.11.02/_doc/scenario-1", document) == 403
    assert ask("GET", "/app-logs-2026.11.02/_search") == 403
    assert ask("PUT", "/other/_create/1", document) == 403


def test_a_refused_pipeline_changes_nothing(pipe: Host, apply: Callable[..., Any], tmp_path: Path) -> None:
    before = unchanged(pipe)
    (tmp_path / "10-broken.conf").write_text('filter { mutate { id => "open" \n', encoding="utf-8")
    run = apply(logstash_filter_directory=str(tmp_path))
    assert run.failed
    assert "failed to validate" in run.words
    assert unchanged(pipe) == before


def test_an_unknown_setting_changes_nothing(pipe: Host, apply: Callable[..., Any]) -> None:
    before = unchanged(pipe)
    run = apply(logstash_settings={"pipeline.wokers": 4})
    assert run.failed
    assert 'Setting "pipeline.wokers" doesn\'t exist' in run.words
    assert unchanged(pipe) == before


@pytest.mark.parametrize(
    ("variables", "sentence"),
    [
        ({"logstash_elasticsearch_password": "short"}, "logstash_elasticsearch_password must have 12 printable ASCII"),
        ({"logstash_keystore_password": "größer als zwölf"}, "logstash_keystore_password must have 12 printable ASCII"),
        ({"logstash_heap_mb": 9_000_000}, "logstash_heap_mb is 9000000"),
        ({"logstash_queue_mb": 900_000_000}, "of which four fifths may be used"),
        ({"logstash_settings": {"path.data": "/tmp"}}, "logstash_settings must not hold path.data"),
        ({"logstash_version": "7.17.0"}, "this role runs 8.14.0 and later"),
        ({"logstash_filter_directory": "/nowhere"}, "which holds no .conf file"),
    ],
)
def test_bad_values_are_refused(
    pipe: Host, apply: Callable[..., Any], variables: dict[str, Any], sentence: str
) -> None:
    before = unchanged(pipe)
    run = apply(**variables)
    assert run.failed
    assert sentence in run.words
    assert unchanged(pipe) == before


def test_wrong_password_changes_nothing(pipe: Host, apply: Callable[..., Any]) -> None:
    before = unchanged(pipe)
    run = apply(logstash_elasticsearch_password="not the right one")
    assert run.failed
    assert "answered 401 to user logstash" in run.words
    assert "No file of the configuration was changed" in run.words
    assert unchanged(pipe) == before


def test_revoked_key_shows_in_the_health_and_is_replaced(
    pipe: Host, store: Host, apply: Callable[..., Any], secrets: dict[str, str]
) -> None:
    """The stand-in says what Elasticsearch makes of the key that is in the keystore."""
    identifier = pipe.file(f"{CONFIGURATION}/elasticsearch-api-key").content_string.partition(":")[0]
    login = f"elastic:{secrets['vault_elasticsearch_elastic_password']}".replace("\\", "\\\\").replace('"', '\\"')
    config, body = shlex.quote(f'user = "{login}"'), json.dumps({"ids": [identifier]})
    store.check_output(
        f"printf %s {config} | curl --silent --fail --config - --cacert /etc/elasticsearch/certs/ca.crt --max-time 20 "
        f"--request DELETE --header 'Content-Type: application/json' --data '{body}' "
        f"'https://{STORE}.bank.internal:9200/_security/api_key'"
    )
    report: dict[str, Any] = {}
    for _ in range(20):
        report = api(pipe, "/_health_report")["indicators"]["pipelines"]
        if report["status"] != "green":
            break
        time.sleep(1)
    assert f"answered 401 to API key {identifier}" in json.dumps(report)
    assert not apply().failed
    assert api(pipe, "/_health_report")["indicators"]["pipelines"]["status"] == "green"
    assert apply().changed[PIPE] == 0
