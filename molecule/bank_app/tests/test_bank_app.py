"""What customers, operators and auditors find, before, during and after a change of release."""

import json
import os
import runpy
import shlex
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import testinfra
from testinfra.host import Host

if TYPE_CHECKING:
    from conftest import Apply

PLAYBOOKS = Path(__file__).parents[3] / "playbooks"
EPHEMERAL = Path(os.environ["MOLECULE_EPHEMERAL_DIRECTORY"])
RELEASES = runpy.run_path(str(Path(__file__).parents[1] / "releases.py"))
CURRENT, GOOD = RELEASES["CURRENT"], RELEASES["GOOD"]
NEVER_READY, NOT_READY_ONCE_IT_SERVES = RELEASES["NEVER_READY"], RELEASES["NOT_READY_ONCE_IT_SERVES"]
NODES = ["bank-app-node1", "bank-app-node2"]
PKI = "/etc/pki/bank/bank"
BANK = "bank.bank.internal"
READY = "https://localhost:8000/health/ready"


@pytest.fixture(params=NODES)
def node(request: pytest.FixtureRequest) -> Host:
    return testinfra.get_host(f"docker://{request.param}")


@pytest.fixture(scope="session")
def data() -> Host:
    return testinfra.get_host("docker://bank-app-data1")


def release(version: str) -> dict[str, str]:
    """Return the variables that install a release built for this test."""
    archive = EPHEMERAL / f"releases/bank-{version}-cp311-linux-x86_64.tar.gz"
    return {"platform_version_bank": version, "bank_app_release_file": str(archive)}


def current(node: Host) -> str:
    return node.check_output("readlink /opt/bank/current").removeprefix("releases/")


def ask(node: Host, url: str, *, certificate: bool = True) -> tuple[int, str]:
    own = f"--cert {PKI}/tls.crt --key {PKI}/tls.key" if certificate else ""
    answer = node.run(f"curl -s --max-time 10 --cacert {PKI}/ca.crt {own} -w '\\n%{{http_code}}' {url}")
    body, _, status = answer.stdout.rpartition("\n")
    return int(status), body


def nodes() -> list[Host]:
    return [testinfra.get_host(f"docker://{name}") for name in NODES]


@pytest.fixture
def traffic(data: Host) -> Iterator[None]:
    """Ask the bank for its log-in page through the load balancer all the time; every answer must be good."""
    name = f"steady-{os.getpid()}"
    loop = (
        f"while [ -e /run/{name} ]; do curl -s -o /dev/null --max-time 10 --cacert /etc/pki/bank/haproxy/ca.crt "
        f"--resolve {BANK}:443:127.0.0.1 -w '%{{http_code}} ' https://{BANK}/login >> /run/{name}.log; sleep 0.3; done"
    )
    data.check_output(
        f"rm -f /run/{name}.log; touch /run/{name}; (setsid sh -c {shlex.quote(loop)} > /dev/null 2>&1 &)"
    )
    try:
        yield
    finally:
        data.run(f"rm -f /run/{name}; sleep 1")
        answers = data.check_output(f"cat /run/{name}.log").split()
        assert len(answers) > 20
        assert set(answers) == {"200"}


def test_login_page_over_both_sided_tls(node: Host) -> None:
    status, page = ask(node, "https://localhost:8000/login")
    assert status == 200
    assert "<form" in page
    assert ask(node, "https://localhost:8000/login", certificate=False)[0] == 0


def test_schema_is_migrated_and_the_application_is_not_its_owner(data: Host) -> None:
    owner = "SELECT DISTINCT tableowner FROM pg_tables WHERE schemaname = 'public'"
    query = f"runuser -u postgres -- psql -At bank -c {shlex.quote(owner)}"
    assert data.check_output(query) == "bank_owner"


@pytest.mark.parametrize(("unit", "enabled"), [("bank", "enabled"), ("bank-scheduler", "static")])
def test_unit_is_sandboxed_as_systemd_sees_it(node: Host, unit: str, enabled: str) -> None:
    wanted = "User,NoNewPrivileges,ProtectSystem,PrivateDevices,MemoryDenyWriteExecute,MemoryMax,CapabilityBoundingSet"
    shown = node.check_output(f"systemctl show {unit}.service --property={wanted},ActiveState,UnitFileState")
    assert dict(line.split("=", 1) for line in shown.splitlines()) == {
        "User": "bank",
        "NoNewPrivileges": "yes",
        "ProtectSystem": "strict",
        "PrivateDevices": "yes",
        "MemoryDenyWriteExecute": "yes",
        "MemoryMax": str(1024**3),
        "CapabilityBoundingSet": "",
        "ActiveState": "active",
        "UnitFileState": enabled,
    }


def test_secrets_are_where_they_may_be(node: Host, secrets: dict[str, str]) -> None:
    config = node.file("/etc/bank/bank.toml")
    assert (config.user, config.group, config.mode) == ("root", "bank", 0o640)
    used = {name: value[:32] for name, value in secrets.items() if name.startswith(("vault_bank", "vault_redis"))}
    assert used["vault_bank_database_password"] in config.content_string
    assert used["vault_bank_database_owner_password"] not in config.content_string
    for name, value in used.items():
        found = node.run(f"grep -rlsF {value} /etc/systemd /opt/bank/current/bin /var/log /run/bank /root /tmp")
        assert found.stdout == "", name
    owner = used["vault_bank_database_owner_password"]
    assert node.run(f"grep -rlsF {owner} /etc /opt/bank /var/log").stdout == ""


def test_bank_is_told_where_prometheus_is(node: Host, secrets: dict[str, str]) -> None:
    assert tomllib.loads(node.file("/etc/bank/bank.toml").content_string)["prometheus"] == {
        "urls": ["https://bank-app-data1.bank.internal:9090"],
        "user": "bank",
        "password": secrets["vault_bank_prometheus_password"],
        "ca_certificate": f"{PKI}/ca.crt",
    }


def test_log_rotates_and_is_written_on(node: Host) -> None:
    ask(node, "https://localhost:8000/login")
    node.check_output("logrotate --force /etc/logrotate.d/bank")
    ask(node, "https://localhost:8000/login")
    log = node.file("/var/log/bank/bank.json")
    assert (log.user, log.mode) == ("bank", 0o640)
    assert all(json.loads(line)["service"]["name"] == "bank" for line in log.content_string.splitlines())
    assert log.content_string


@pytest.mark.usefixtures("traffic")
def test_upgrade_loses_no_request(apply: "Apply") -> None:
    run = apply(PLAYBOOKS / "application.yml", **release(GOOD))
    assert not run.failed, run.output
    assert [current(node) for node in nodes()] == [GOOD, GOOD]
    for node in nodes():
        assert ask(node, READY)[0] == 200
        assert node.check_output("readlink /opt/bank/previous") == f"releases/{CURRENT}"


@pytest.mark.usefixtures("traffic")
@pytest.mark.parametrize(
    ("version", "sentence"),
    [
        # Refused before anything is touched; and seen only once it runs, so the host goes back.
        (NEVER_READY, f"bank-app-node1 was not switched to release {NEVER_READY} and goes on as before"),
        (NOT_READY_ONCE_IT_SERVES, f"Release {GOOD} serves there as before; hosts after it were not touched"),
    ],
)
def test_release_that_does_not_work_is_refused(apply: "Apply", version: str, sentence: str) -> None:
    started = [node.check_output("systemctl show bank --property=MainPID") for node in nodes()]
    run = apply(PLAYBOOKS / "application.yml", bank_app_ready_seconds=4, **release(version))
    assert run.failed
    assert sentence in run.words
    assert "spoiled on purpose" in run.output
    assert [current(node) for node in nodes()] == [GOOD, GOOD]
    assert [ask(node, READY)[0] for node in nodes()] == [200, 200]
    after = [node.check_output("systemctl show bank --property=MainPID") for node in nodes()]
    assert after[1] == started[1]
    assert (after[0] == started[0]) == (version == NEVER_READY)


@pytest.mark.usefixtures("traffic")
def test_configuration_change_goes_host_by_host(apply: "Apply") -> None:
    run = apply(PLAYBOOKS / "application.yml", bank_app_log_level="warning", **release(GOOD))
    assert not run.failed, run.output
    assert run.output.count("Restart the bank") == 2
    for node in nodes():
        assert 'level = "warning"' in node.file("/etc/bank/bank.toml").content_string


@pytest.mark.usefixtures("traffic")
def test_rolling_restart_loses_no_request(apply: "Apply") -> None:
    started = [node.check_output("systemctl show bank --property=MainPID") for node in nodes()]
    run = apply(PLAYBOOKS / "rolling_restart.yml", **release(GOOD))
    assert not run.failed, run.output
    after = [node.check_output("systemctl show bank --property=MainPID") for node in nodes()]
    assert all(before != now for before, now in zip(started, after, strict=True))


@pytest.mark.usefixtures("traffic")
def test_rollback_goes_to_the_release_before_and_only_once(apply: "Apply") -> None:
    run = apply(PLAYBOOKS / "rollback.yml")
    assert not run.failed, run.output
    assert [current(node) for node in nodes()] == [CURRENT, CURRENT]
    assert [ask(node, READY)[0] for node in nodes()] == [200, 200]
    run = apply(PLAYBOOKS / "rollback.yml")
    assert run.failed
    assert "No host of the bank has a release to go back to" in run.words
    assert [current(node) for node in nodes()] == [CURRENT, CURRENT]


def test_release_that_changed_under_its_version_is_refused(apply: "Apply") -> None:
    node, marker = nodes()[0], f"/opt/bank/releases/{CURRENT}/.installed-from"
    before = node.check_output(f"cat {marker}")
    node.check_output(f"echo {'0' * 64} > {marker}")
    try:
        run = apply(PLAYBOOKS / "application.yml")
        assert run.failed
        assert "a release never changes" in run.words
    finally:
        node.check_output(f"echo {before} > {marker}")
