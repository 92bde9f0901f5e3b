"""What Prometheus learns of services from outside, and what a stranger or a wrong value may not do."""

from __future__ import annotations

import json
import re
import shlex
import time
import urllib.parse
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import testinfra
from testinfra.host import Host

if TYPE_CHECKING:
    from conftest import Apply

MONITOR, SERVICES = "blackbox-exporter-monitor1", "blackbox-exporter-services1"
NAME = f"{MONITOR}.bank.internal"
URL = f"https://{NAME}:9115"
BANK = f"https://{SERVICES}.bank.internal:443/health"
# The role alone.
ROLE = Path(__file__).parents[2] / "shared/converge.yml"
CLIENT = "prometheus:{vault_exporter_web_password}"

Fetch = Callable[..., tuple[int, str]]
Probe = Callable[..., str]


@pytest.fixture(scope="session")
def monitor() -> Host:
    """Connect to the host that looks."""
    return testinfra.get_host(f"docker://{MONITOR}")


@pytest.fixture(scope="session")
def services() -> Host:
    """Connect to the host that is looked at."""
    return testinfra.get_host(f"docker://{SERVICES}")


@pytest.fixture(scope="session")
def fetch(monitor: Host, secrets: dict[str, str]) -> Fetch:
    """Return a function that asks an address with a log-in: the status and the answer."""

    def ask(url: str, login: str = CLIENT) -> tuple[int, str]:
        login = login.format(**secrets).replace("\\", "\\\\").replace('"', '\\"')
        settings = f'user = "{login}"\n' if login else ""
        command = "curl --silent --max-time 20 --cacert /etc/pki/bank/blackbox_exporter/ca.crt --config -"
        answer = monitor.run(
            f"printf %s {shlex.quote(settings)} | {command} --write-out '\\n%{{http_code}}' {shlex.quote(url)}"
        )
        text, _, code = answer.stdout.rpartition("\n")
        return int(code), text

    return ask


@pytest.fixture(scope="session")
def probe(fetch: Fetch) -> Probe:
    """Return a function that has something looked at: the metrics."""

    def look(module: str, target: str, **parameters: str) -> str:
        query = urllib.parse.urlencode({"module": module, "target": target} | parameters)
        code, text = fetch(f"{URL}/probe?{query}")
        assert code == 200, text
        return text

    return look


@pytest.fixture
def sick(services: Host) -> Iterator[None]:
    """Let the bank be unwell for a while."""
    services.run_expect([0], "touch /root/sick")
    yield
    services.run_expect([0], "rm /root/sick")


def query(fetch: Fetch, expression: str) -> list[dict[str, Any]]:
    """Ask Prometheus."""
    address = f"https://{NAME}:9090/api/v1/query?" + urllib.parse.urlencode({"query": expression})
    code, text = fetch(address, "operator:{vault_prometheus_web_password}")
    return json.loads(text)["data"]["result"] if code == 200 else []


def test_prometheus_sees_every_service_from_outside(fetch: Fetch) -> None:
    deadline = time.monotonic() + 60
    while True:
        found = {sample["metric"]["probe"]: sample for sample in query(fetch, "probe_success")}
        state = {name: sample["value"][1] for name, sample in found.items()}
        if state == {"bank": "1", "postgresql": "1", "redis": "1"} or time.monotonic() > deadline:
            break
        time.sleep(1)
    assert state == {"bank": "1", "postgresql": "1", "redis": "1"}
    assert found["bank"]["metric"] == {
        "__name__": "probe_success",
        "group": "load_balancer,postgresql,redis",
        "instance": SERVICES,
        "job": "blackbox",
        "probe": "bank",
        "role": "blackbox",
        "site": "main",
    }
    assert [sample["value"][1] for sample in query(fetch, 'up{job="blackbox_exporter"}')] == ["1"]
    ends = query(fetch, "(probe_ssl_earliest_cert_expiry - time()) / 86400")
    assert {sample["metric"]["probe"] for sample in ends} == {"bank", "redis"}
    assert all(300 < float(sample["value"][1]) < 400 for sample in ends)


def test_bank_that_is_not_well_is_seen(probe: Probe, sick: None) -> None:
    metrics = probe("bank", BANK, hostname="bank.bank.internal")
    assert re.search(r"^probe_success 0$", metrics, re.MULTILINE)
    assert re.search(r"^probe_http_status_code 503$", metrics, re.MULTILINE)


@pytest.mark.parametrize(
    ("module", "target", "hostname"),
    [
        ("bank", BANK, "other.bank.internal"),
        ("bank", BANK.replace("https", "http"), "bank.bank.internal"),
        ("bank", BANK.replace("health", "nothing"), "bank.bank.internal"),
        ("tls", f"{SERVICES}.bank.internal:6379", "other.bank.internal"),
        ("tls", f"{SERVICES}.bank.internal:5432", ""),
        ("tcp", f"{SERVICES}.bank.internal:1", ""),
    ],
    ids=["certificate-of-another", "no-tls", "wrong-path", "tls-of-another", "not-tls", "nothing-there"],
)
def test_what_is_wrong_does_not_pass(probe: Probe, module: str, target: str, hostname: str) -> None:
    metrics = probe(module, target, **({"hostname": hostname} if hostname else {}))
    assert re.search(r"^probe_success 0$", metrics, re.MULTILINE)


@pytest.mark.parametrize("login", ["", "prometheus:wrong", "someone:{vault_exporter_web_password}", "prometheus:"])
def test_strangers_are_refused(fetch: Fetch, login: str) -> None:
    for path in ("/metrics", "/probe?module=tcp&target=localhost:22", "/config", "/logs?id=1", "/-/reload", "/"):
        assert fetch(URL + path, login)[0] == 401


def test_plain_http_is_refused(fetch: Fetch) -> None:
    assert fetch(URL.replace("https", "http") + "/metrics")[0] == 400


def test_password_is_nowhere_to_be_read(monitor: Host, secrets: dict[str, str]) -> None:
    # The first half has no special character that a log might have escaped.
    shown = monitor.check_output("systemctl cat blackbox_exporter; ps -eo args; journalctl --no-pager --output=cat")
    assert secrets["vault_exporter_web_password"][:16] not in shown
    assert monitor.run("grep -rF %s /etc/blackbox_exporter", secrets["vault_exporter_web_password"][:16]).rc == 1
    files = monitor.check_output("stat --format='%a %U %G %n' /etc/blackbox_exporter /etc/blackbox_exporter/*")
    assert files.splitlines() == [
        "750 root blackbox_exporter /etc/blackbox_exporter",
        "640 root blackbox_exporter /etc/blackbox_exporter/blackbox.yml",
        "640 root blackbox_exporter /etc/blackbox_exporter/web.yml",
    ]


def test_sandbox_is_effective(monitor: Host) -> None:
    properties = {
        "CapabilityBoundingSet": "",
        "NoNewPrivileges": "yes",
        "ProtectSystem": "strict",
        "ReadWritePaths": "",
        "User": "blackbox_exporter",
    }
    for name, value in properties.items():
        assert monitor.check_output(f"systemctl show --property={name} --value blackbox_exporter") == value, name
    assert monitor.run("systemd-analyze security --threshold=15 blackbox_exporter.service").rc == 0


def state(monitor: Host) -> str:
    """Return what the role may change on the host, and the running process."""
    return monitor.check_output(
        "find /etc/blackbox_exporter /etc/systemd/system/blackbox_exporter.service -type f -exec sha256sum {} + | sort;"
        " readlink /opt/blackbox_exporter/current; systemctl show --property=MainPID,ActiveState blackbox_exporter"
    )


@pytest.mark.parametrize(
    ("variables", "sentence"),
    [
        ({"vault_exporter_web_password": "short"}, "vault_exporter_web_password needs 16 to 72 bytes"),
        (
            {"blackbox_exporter_modules_extra": {"odd": {"prober": "pigeon"}}},
            "correct odd in",
        ),
        ({"blackbox_exporter_modules_extra": {"odd": {"prober": "tcp", "tcp": {"tsl": True}}}}, "field tsl not found"),
    ],
)
def test_bad_value_is_refused_and_changes_nothing(
    monitor: Host, apply: Apply, variables: dict[str, object], sentence: str
) -> None:
    before = state(monitor)
    answer = apply(ROLE, **variables)
    assert answer.failed
    assert sentence in answer.words
    assert state(monitor) == before


def test_module_comes_and_goes_without_a_restart(monitor: Host, apply: Apply, fetch: Fetch, probe: Probe) -> None:
    process = "systemctl show --property=MainPID --value blackbox_exporter"
    before = monitor.check_output(process)
    answer = apply(ROLE, blackbox_exporter_modules_extra={"ssh": {"prober": "tcp", "timeout": "5s"}})
    assert not answer.failed, answer.output
    assert re.search(r"^probe_success 1$", probe("ssh", f"{NAME}:9090"), re.MULTILINE)
    answer = apply(ROLE)
    assert not answer.failed, answer.output
    assert fetch(f"{URL}/probe?module=ssh&target={NAME}:9090")[0] == 400
    assert monitor.check_output(process) == before


def test_service_comes_back_after_a_crash(monitor: Host, fetch: Fetch) -> None:
    process = "systemctl show --property=MainPID --value blackbox_exporter"
    before = monitor.check_output(process)
    monitor.run_expect([0], "systemctl kill --signal=KILL blackbox_exporter")
    deadline = time.monotonic() + 20
    while monitor.check_output(process) in ("0", before) or fetch(f"{URL}/metrics")[0] != 200:
        assert time.monotonic() < deadline, "blackbox_exporter did not come back"
        time.sleep(0.5)
