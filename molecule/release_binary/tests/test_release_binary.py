"""What an operator sees who installs, upgrades and takes back a release, and who meets a wrong one."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import testinfra
import yaml
from testinfra.host import Host

if TYPE_CHECKING:
    from conftest import Apply, Run

HOST = "release-binary1"
PROJECT = Path(__file__).parents[3]
VERSION = yaml.safe_load((PROJECT / "group_vars/all/versions.yml").read_text())["platform_version_node_exporter"]
MIRROR = "http://127.0.0.1:8899"
ROOT = "/opt/node_exporter"
UNIT = "/etc/systemd/system/node_exporter.service"


@pytest.fixture(scope="session")
def server() -> Host:
    """Connect to the host that the release is on."""
    return testinfra.get_host(f"docker://{HOST}")


@pytest.fixture(scope="session")
def mirror(server: Host) -> Host:
    """Serve releases 9.9.8 (not what its checksum says), 9.9.9 and 9.9.10 on the host itself."""
    for version in ("9.9.8", "9.9.9", "9.9.10"):
        name = f"node_exporter-{version}.linux-amd64"
        server.run_expect(
            [0],
            f"mkdir -p /srv/mirror/{version}/{name} && cd /srv/mirror/{version}"
            f" && cp {ROOT}/current/bin/node_exporter {name}/"
            f" && echo licence > {name}/LICENSE && tar --owner=1001 --group=1001 -czf {name}.tar.gz {name}"
            f" && sha256sum {name}.tar.gz > sha256sums.txt",
        )
    server.run_expect([0], "echo tampered >> /srv/mirror/9.9.8/node_exporter-9.9.8.linux-amd64.tar.gz")
    server.run_expect(
        [0], "systemd-run --unit=mirror python3 -m http.server --bind 127.0.0.1 --directory /srv/mirror 8899"
    )
    server.run_expect([0], f"curl --retry 20 --retry-connrefused --retry-delay 1 -fsS {MIRROR}/9.9.9/sha256sums.txt")
    return server


@pytest.fixture(scope="session")
def install(apply: Apply) -> Callable[..., Run]:
    """Return a function that applies the role again, with another release."""

    def run(version: str, **variables: object) -> Run:
        changed = {"release_binary_version": version, "release_binary_mirror_url": f"{MIRROR}/{version}"}
        return apply(**changed | variables)

    return run


def state(server: Host) -> str:
    """Return everything that the role may change on the host, and the running process."""
    return server.check_output(
        f"find {ROOT} {UNIT} -printf '%p %m %u %g %l %T@\\n' | sort; sha256sum {UNIT};"
        " ls -A /var/tmp; cat /etc/passwd /etc/group; systemctl show --property=MainPID,ActiveState node_exporter"
    )


def without_folder_times(text: str) -> list[str]:
    return [line.rsplit(" ", 1)[0] if line.startswith(f"{ROOT}/releases ") else line for line in text.splitlines()]


def process(server: Host) -> str:
    return server.check_output("systemctl show --property=MainPID --value node_exporter")


def program(server: Host) -> str:
    """Return the file that runs; only its own user may read that in a container."""
    return server.check_output(f"runuser --user node_exporter -- readlink /proc/{process(server)}/exe")


def active(server: Host) -> str:
    return server.check_output(f"basename $(readlink {ROOT}/current)")


def releases(server: Host) -> set[str]:
    return set(server.check_output(f"ls {ROOT}/releases").split())


def test_service_runs_the_program_of_the_release(server: Host) -> None:
    assert program(server) == f"{ROOT}/releases/{VERSION}/bin/node_exporter"
    assert server.service("node_exporter").is_enabled
    assert server.check_output(f"stat --format=%U /proc/{process(server)}") == "node_exporter"
    assert "node_exporter_build_info" in server.check_output("curl -fsS http://127.0.0.1:9100/metrics")


def test_only_root_can_replace_the_program(server: Host) -> None:
    found = server.check_output(f"find {ROOT} -printf '%m %u %g %y %P\\n'").splitlines()
    assert f"755 root root f releases/{VERSION}/bin/node_exporter" in found
    assert [line for line in found if not line.startswith(("755 root root", "777 root root l"))] == []
    assert not [line for line in found if "LICENSE" in line]


def test_arguments_reach_the_program_as_they_were_written(server: Host) -> None:
    arguments = server.check_output(f"tr '\\0' '\\n' < /proc/{process(server)}/cmdline").splitlines()
    assert arguments[1:] == [
        "--web.listen-address=127.0.0.1:9100",
        """--collector.filesystem.mount-points-exclude=^/(a b|'c'|"d"|%h|%%|$HOME|${HOME}|\\d|é)($|/)""",
    ]
    description = server.check_output("systemctl show --property=Description --value node_exporter")
    assert description == "Metrics at 100 % of the host's $PATH"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("CapabilityBoundingSet", ""),
        ("AmbientCapabilities", ""),
        ("LockPersonality", "yes"),
        ("MemoryDenyWriteExecute", "yes"),
        ("NoNewPrivileges", "yes"),
        ("PrivateDevices", "yes"),
        ("PrivateTmp", "yes"),
        ("ProtectHome", "yes"),
        ("ProtectKernelModules", "yes"),
        ("ProtectProc", "invisible"),
        ("ProtectSystem", "strict"),
        ("ReadWritePaths", "/var/lib"),
        ("Restart", "always"),
        ("RestrictAddressFamilies", "AF_INET AF_INET6 AF_UNIX"),
        ("LimitNOFILE", "8192"),
        ("User", "node_exporter"),
    ],
)
def test_sandbox_is_effective(server: Host, name: str, value: str) -> None:
    found = server.check_output(f"systemctl show --property={name} --value node_exporter")
    assert sorted(found.split()) == sorted(value.split())


def test_system_calls_are_limited(server: Host) -> None:
    calls = server.check_output("systemctl show --property=SystemCallFilter --value node_exporter").split()
    assert {"read", "openat"} <= set(calls)
    assert not {"mount", "ptrace", "init_module", "chown", "setuid"} & set(calls)


def test_exposure_stays_low(server: Host) -> None:
    # 10 is a service without any sandbox; 1.5 leaves room for a systemd that rates one more item.
    assert server.run("systemd-analyze security --threshold=15 node_exporter.service").rc == 0
    assert server.run("systemd-analyze security --threshold=1 node_exporter.service").rc != 0


def test_wrong_pinned_checksum_changes_nothing(mirror: Host, install: Callable[..., Run]) -> None:
    before = state(mirror)
    answer = install("9.9.9", release_binary_checksum="0" * 64)
    assert answer.failed
    assert "node_exporter-9.9.9.linux-amd64.tar.gz" in answer.words
    assert f"{MIRROR}/9.9.9/node_exporter-9.9.9.linux-amd64.tar.gz was refused on {HOST}" in answer.words
    assert "correct the pinned checksum" in answer.words
    assert state(mirror) == before


def test_file_that_differs_from_its_checksum_list_changes_nothing(mirror: Host, install: Callable[..., Run]) -> None:
    before = state(mirror)
    answer = install("9.9.8")
    assert answer.failed
    assert f"correct {MIRROR}/9.9.8/sha256sums.txt" in answer.words
    assert state(mirror) == before


def test_release_that_is_not_on_the_mirror_changes_nothing(mirror: Host, install: Callable[..., Run]) -> None:
    before = state(mirror)
    answer = install("1.0.0")
    assert answer.failed
    assert "see that the host reaches this address" in answer.words
    assert state(mirror) == before


def test_setting_that_systemd_does_not_know_changes_nothing(mirror: Host, install: Callable[..., Run]) -> None:
    before = state(mirror)
    answer = install("9.9.9", release_binary_service_settings={"ProtectSystem": "strictly"})
    assert answer.failed
    assert "failed to validate" in answer.output
    # The release is there for the next try; what runs, and will run after a restart, is the old one.
    mirror.run_expect([0], f"rm -r {ROOT}/releases/9.9.9")
    assert without_folder_times(state(mirror)) == without_folder_times(before)


def test_upgrade_rollback_and_pruning(mirror: Host, install: Callable[..., Run]) -> None:
    first = process(mirror)
    archive = mirror.file("/srv/mirror/9.9.9/node_exporter-9.9.9.linux-amd64.tar.gz").content
    # The pinned checksum wins: the list beside the archive is gone.
    mirror.run_expect([0], "mv /srv/mirror/9.9.9/sha256sums.txt /srv/mirror/9.9.9/other.txt")
    answer = install("9.9.9", release_binary_checksum=hashlib.sha256(archive).hexdigest())
    assert not answer.failed, answer.output
    assert active(mirror) == "9.9.9"
    assert process(mirror) != first
    assert program(mirror).startswith(f"{ROOT}/releases/9.9.9/")

    # Back, with nothing to download from.
    mirror.run_expect([0], "mv /srv/mirror/9.9.9 /srv/mirror/gone")
    answer = install(VERSION, release_binary_mirror_url=f"{MIRROR}/nowhere")
    assert not answer.failed, answer.output
    assert active(mirror) == VERSION
    assert program(mirror).startswith(f"{ROOT}/releases/{VERSION}/")
    assert releases(mirror) == {VERSION, "9.9.9"}

    # The release that was active stays for the way back, although the other is newer.
    answer = install("9.9.10")
    assert not answer.failed, answer.output
    assert releases(mirror) == {VERSION, "9.9.10"}
    assert mirror.check_output("ls /var/tmp | grep -c release_binary || true") == "0"


def test_unchanged_run_is_short(server: Host, install: Callable[..., Run]) -> None:
    answer = install(active(server))
    recap = next(line for line in answer.output.splitlines() if line.startswith(HOST))
    counts = dict(pair.split("=") for pair in recap.split(":")[1].split())
    assert counts["changed"] == "0"
    # Facts and the service are the caller's; the role itself takes 5.
    assert int(counts["ok"]) <= 7
