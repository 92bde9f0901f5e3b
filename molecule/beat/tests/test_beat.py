"""Two services of the family on one host: each with its own rights, and the failure of one leaves the other alone."""

import base64
import json
import shlex
import time
from typing import TYPE_CHECKING, Any

import pytest
import testinfra
from testinfra.host import Host

if TYPE_CHECKING:
    from molecule.conftest import Apply

HOST = "beat-host1"
FILES = ("/etc/metricbeat/metricbeat.yml", "/etc/filebeat/filebeat.yml")
KEYS = {
    "metricbeat": "/etc/metricbeat/elasticsearch-api-key",
    "filebeat": "/var/lib/filebeat/elasticsearch-api-key",
}


@pytest.fixture(scope="session")
def host() -> Host:
    """Return the host of the scenario."""
    return testinfra.get_host(f"docker://{HOST}")


def ask(host: Host, login: str, method: str, path: str, body: object = None) -> tuple[int, Any]:
    """Return status and answer of Elasticsearch to a line of curl's settings that says who asks."""
    command = (
        "curl --silent --max-time 20 --cacert /etc/elasticsearch/certs/ca.crt --config - --write-out '\\n%{http_code}'"
    )
    command += f" --request {method} --header 'Content-Type: application/json'"
    if body is not None:
        command += f" --data {shlex.quote(json.dumps(body))}"
    url = shlex.quote(f"https://{HOST}.bank.internal:9200{path}")
    content, _, status = host.check_output(f"printf %s {shlex.quote(login)} | {command} {url}").rpartition("\n")
    return int(status), json.loads(content or "{}")


def superuser(secrets: dict[str, str]) -> str:
    """Return the log-in of Elasticsearch's superuser."""
    login = "elastic:" + secrets["vault_elasticsearch_elastic_password"]
    return 'user = "' + login.replace("\\", "\\\\").replace('"', '\\"') + '"\n'


def count(host: Host, secrets: dict[str, str], index: str, query: dict[str, Any]) -> int:
    """Return how many documents of an index a query finds."""
    return int(ask(host, superuser(secrets), "POST", f"/{index}/_count", {"query": query})[1].get("count", 0))


def keys(host: Host, secrets: dict[str, str]) -> dict[str, list[str]]:
    """Return the ids of the keys that count, by their names."""
    found: dict[str, list[str]] = {}
    for key in ask(host, superuser(secrets), "GET", "/_security/api_key?active_only=true")[1]["api_keys"]:
        found.setdefault(key["name"], []).append(key["id"])
    return found


def grows(host: Host, secrets: dict[str, str], index: str, query: dict[str, Any], seconds: float = 20) -> bool:
    """Tell whether more documents arrive."""
    before, end = count(host, secrets, index, query), time.monotonic() + seconds
    while time.monotonic() < end:
        if count(host, secrets, index, query) > before:
            return True
        time.sleep(0.5)
    return False


def shown(host: Host, unit: str, *names: str) -> dict[str, str]:
    """Return properties of a unit as systemd has them."""
    output = host.check_output(f"systemctl show {unit} --property={','.join(names)}")
    return dict(line.split("=", 1) for line in output.splitlines())


def test_events_of_both_arrive_with_what_is_added_to_all(host: Host, secrets: dict[str, str]) -> None:
    labels = [{"term": {"labels.site": "main"}}, {"term": {"labels.kind": "figures"}}]
    assert grows(host, secrets, "app-logs-figures-*", {"bool": {"filter": labels}})
    # Read every second: it is not there before the first question.
    host.check_output("systemd-run --quiet sh -c \"sleep 2; echo 'a line' >> /var/log/lines.log\"")
    assert grows(host, secrets, "app-logs-lines-*", {"match_all": {}})


def test_account_has_no_right_that_root_has(host: Host) -> None:
    unit = shown(host, "metricbeat", "User", "CapabilityBoundingSet", "AmbientCapabilities", "MainPID")
    assert (unit["User"], unit["CapabilityBoundingSet"], unit["AmbientCapabilities"]) == ("metricbeat", "", "")
    status = host.file(f"/proc/{unit['MainPID']}/status").content_string
    identity = host.check_output("id --user metricbeat")
    assert f"Uid:\t{identity}\t{identity}\t{identity}\t{identity}" in status
    assert "CapEff:\t0000000000000000" in status
    assert "NoNewPrivs:\t1" in status
    assert shown(host, "filebeat", "User")["User"] in ("", "root")


@pytest.mark.parametrize(
    ("path", "owner", "mode"),
    [
        ("/etc/metricbeat", "root", 0o755),
        ("/etc/metricbeat/metricbeat.yml", "root", 0o640),
        ("/etc/metricbeat/metricbeat.keystore", "metricbeat", 0o600),
        ("/etc/metricbeat/metricbeat.keystore.seal", "root", 0o600),
        ("/var/lib/metricbeat", "metricbeat", 0o700),
        ("/etc/filebeat/filebeat.yml", "root", 0o600),
        ("/etc/metricbeat/elasticsearch-api-key", "root", 0o600),
        ("/var/lib/filebeat/filebeat.keystore", "root", 0o600),
        ("/var/lib/filebeat/elasticsearch-api-key", "root", 0o600),
    ],
)
def test_files_are_closed(host: Host, path: str, owner: str, mode: int) -> None:
    file = host.file(path)
    assert (file.user, oct(file.mode)) == (owner, oct(mode))


def test_keystore_holds_every_secret_and_no_file_shows_one(host: Host, secrets: dict[str, str]) -> None:
    listed = host.check_output("cd / && runuser --user=metricbeat -- metricbeat keystore list")
    assert sorted(listed.split()) == ["ELASTICSEARCH_API_KEY", "FURTHER"]
    # The first half has no special character that a log might have escaped; the pattern does not match itself.
    half = secrets["vault_filebeat_elasticsearch_password"][:16]
    pattern = shlex.quote(f"[{half[0]}]{half[1:]}")
    assert host.run(f"grep -rla {pattern} /etc /var/log /var/lib /run/systemd /root").stdout == ""


def test_killed_service_comes_back(host: Host, secrets: dict[str, str]) -> None:
    before = shown(host, "metricbeat", "MainPID")["MainPID"]
    host.check_output("systemctl kill --kill-who=main --signal=SIGKILL metricbeat.service")
    end = time.monotonic() + 30
    while shown(host, "metricbeat", "MainPID")["MainPID"] in (before, "0"):
        assert time.monotonic() < end, "systemd starts it again"
        time.sleep(0.5)
    assert grows(host, secrets, "app-logs-figures-*", {"match_all": {}}, seconds=30)


def test_each_service_has_a_key_of_its_own_that_only_adds(host: Host, secrets: dict[str, str]) -> None:
    found = keys(host, secrets)
    for service, path in KEYS.items():
        identifier, _, secret = host.file(path).content_string.strip().partition(":")
        assert found[f"{service} on {HOST}"] == [identifier]
        login = f'header = "Authorization: ApiKey {base64.b64encode(f"{identifier}:{secret}".encode()).decode()}"\n'
        line, index = {"@timestamp": "2026-11-02T08:15:30Z"}, "/app-logs-key-2026.11.02"
        assert ask(host, login, "POST", f"{index}/_doc", line)[0] == 201
        for method, path, body in (
            ("GET", f"{index}/_search", None),
            ("DELETE", index, None),
            ("POST", "/metricbeat-2026.11.02/_doc", line),
            ("GET", "/_security/user", None),
            # Nor does a stolen key give birth to others.
            ("POST", "/_security/api_key", {"name": "another"}),
        ):
            assert ask(host, login, method, path, body)[0] == 403, (service, method, path)


def test_revoked_key_stops_one_service_until_the_next_run(host: Host, apply: "Apply", secrets: dict[str, str]) -> None:
    name = f"filebeat on {HOST}"
    before = keys(host, secrets)
    assert ask(host, superuser(secrets), "DELETE", "/_security/api_key", {"ids": before[name]})[0] == 200
    host.check_output("echo 'a line that waits' >> /var/log/lines.log")
    waiting = {"match_phrase": {"message": "a line that waits"}}
    assert not grows(host, secrets, "app-logs-lines-*", waiting, seconds=5)
    assert grows(host, secrets, "app-logs-figures-*", {"match_all": {}}), "the other has its own"
    # Filebeat waits longer and longer: the run restarts it.
    result = apply()
    assert not result.failed, result.output
    assert count(host, secrets, "app-logs-lines-*", waiting) == 1 or grows(host, secrets, "app-logs-lines-*", waiting)
    after = keys(host, secrets)
    assert (len(after[name]), after[name] != before[name]) == (1, True)
    assert after[f"metricbeat on {HOST}"] == before[f"metricbeat on {HOST}"]
    assert apply().changed == {HOST: 0}


def test_key_that_the_host_lost_is_revoked(host: Host, apply: "Apply", secrets: dict[str, str]) -> None:
    before = keys(host, secrets)
    host.check_output(f"rm {KEYS['metricbeat']}")
    result = apply()
    assert not result.failed, result.output
    after = keys(host, secrets)[f"metricbeat on {HOST}"]
    assert (len(after), after != before[f"metricbeat on {HOST}"]) == (1, True)
    assert grows(host, secrets, "app-logs-figures-*", {"match_all": {}}, seconds=30)


def state(host: Host) -> list[str]:
    """Return sums over the settings, and the process of the service that must not be touched."""
    return [host.file(path).sha256sum for path in FILES] + [shown(host, "filebeat", "MainPID")["MainPID"]]


def test_wrong_password_changes_nothing(host: Host, apply: "Apply", secrets: dict[str, str]) -> None:
    before = [*state(host), shown(host, "metricbeat", "MainPID")]
    result = apply(metricbeat_password="not the right password")
    assert result.failed
    assert 'Metricbeat on beat-host1 failed at "Keep a key of its own at Elasticsearch"' in result.words
    assert "answered 401 to user filebeat: its password in the vault is not the one" in result.words
    assert "No file of the configuration was changed" in result.words
    assert [*state(host), shown(host, "metricbeat", "MainPID")] == before
    assert host.check_output("find /etc /var/lib/metricbeat -name '*~'") == ""
    assert grows(host, secrets, "app-logs-figures-*", {"match_all": {}}, seconds=30)


def test_settings_that_are_refused_are_taken_back(host: Host, apply: "Apply") -> None:
    before = state(host)
    result = apply(metricbeat_settings={"metricbeat.max_start_delay": "often"})
    assert result.failed
    assert 'failed at "Write the settings"' in result.words
    assert "max_start_delay" in result.words
    assert state(host) == before


def test_everything_wrong_is_told_at_once(host: Host, apply: "Apply") -> None:
    before = state(host)
    result = apply(
        metricbeat_password="short", metricbeat_settings={"metricbeat.modules": [], "output.console.pretty": True}
    )
    assert result.failed
    assert "metricbeat_elasticsearch_password (vault_metricbeat_elasticsearch_password) is shorter" in result.words
    assert "metricbeat_settings must not hold metricbeat.modules, output.console.pretty" in result.words
    assert state(host) == before
    result = apply(filebeat_password="line\nbreak, and long enough", filebeat_problems=["The caller says no."])
    assert result.failed
    assert "The caller says no. filebeat_elasticsearch_password" in result.words
    assert "holds a line break" in result.words
    assert state(host) == before
