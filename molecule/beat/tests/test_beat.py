"""Two services of the family on one host: each with its own rights, and the failure of one leaves the other alone."""

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


@pytest.fixture(scope="session")
def host() -> Host:
    """Return the host of the scenario."""
    return testinfra.get_host(f"docker://{HOST}")


def count(host: Host, secrets: dict[str, str], index: str, query: dict[str, Any]) -> int:
    """Return how many documents of an index a query finds."""
    login = "elastic:" + secrets["vault_elasticsearch_elastic_password"]
    settings = 'user = "' + login.replace("\\", "\\\\").replace('"', '\\"') + '"\n'
    url = shlex.quote(f"https://{HOST}.bank.internal:9200/{index}/_count")
    body = shlex.quote(json.dumps({"query": query}))
    answer = host.check_output(
        f"printf %s {shlex.quote(settings)} | curl --silent --max-time 20 --cacert /etc/elasticsearch/certs/ca.crt "
        f"--config - --header 'Content-Type: application/json' --data {body} {url}"
    )
    return int(json.loads(answer).get("count", 0))


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
        ("/var/lib/filebeat/filebeat.keystore", "root", 0o600),
    ],
)
def test_files_are_closed(host: Host, path: str, owner: str, mode: int) -> None:
    file = host.file(path)
    assert (file.user, oct(file.mode)) == (owner, oct(mode))


def test_keystore_holds_every_secret_and_no_file_shows_one(host: Host, secrets: dict[str, str]) -> None:
    listed = host.check_output("cd / && runuser --user=metricbeat -- metricbeat keystore list")
    assert sorted(listed.split()) == ["ELASTICSEARCH_PASSWORD", "FURTHER"]
    # The first half has no special character that a log might have escaped; the pattern does not match itself.
    half = secrets["vault_filebeat_elasticsearch_password"][:16]
    pattern = shlex.quote(f"[{half[0]}]{half[1:]}")
    assert host.run(f"grep -rla {pattern} /etc /var/log /var/lib /run/systemd /root").stdout == ""


def test_killed_service_comes_back(host: Host, secrets: dict[str, str]) -> None:
    before = shown(host, "metricbeat", "MainPID")["MainPID"]
    host.check_output("systemctl kill --kill-who=main --signal=SIGKILL metricbeat.service")
    assert grows(host, secrets, "app-logs-figures-*", {"match_all": {}}, seconds=30)
    assert shown(host, "metricbeat", "MainPID")["MainPID"] not in (before, "0")


def state(host: Host) -> list[str]:
    """Return sums over the settings, and the process of the service that must not be touched."""
    return [host.file(path).sha256sum for path in FILES] + [shown(host, "filebeat", "MainPID")["MainPID"]]


def test_wrong_password_is_taken_back(host: Host, apply: "Apply", secrets: dict[str, str]) -> None:
    before = state(host)
    result = apply(metricbeat_password="not the right password")
    assert result.failed
    assert 'Metricbeat on beat-host1 failed at "Reach the output"' in result.words
    assert "401" in result.words
    assert "The previous configuration is back in place" in result.words
    assert state(host) == before
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
