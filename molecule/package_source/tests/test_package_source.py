"""Where a host installs from, and what it refuses."""

import json
import os
import re
import subprocess
from pathlib import Path

import pytest
import testinfra
from testinfra.host import Host

CONVERGE = Path(__file__).parents[1] / "converge.yml"
INVENTORY = Path(os.environ["MOLECULE_EPHEMERAL_DIRECTORY"]) / "inventory"
REPOSITORY = "/etc/yum.repos.d/bank-platform.repo"
KEY = "/etc/pki/rpm-gpg/RPM-GPG-KEY-bank-platform"
WRONG = "0123456789ABCDEF0123456789ABCDEF01234567"


def converge(**variables: str) -> tuple[int, str]:
    """Run the scenario's playbook once more, with other variables."""
    command = ["ansible-playbook", "--inventory", INVENTORY, "--extra-vars", json.dumps(variables), CONVERGE]
    environment = os.environ | {"ANSIBLE_FORCE_COLOR": "0", "NO_COLOR": "1"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    output = " ".join((done.stdout + done.stderr).split())
    assert re.search(r"package-source-app1 +: ok=", output), output
    return done.returncode, output


@pytest.fixture
def host() -> Host:
    """Return the host."""
    return testinfra.get_host("docker://package-source-app1")


def state(host: Host) -> tuple[str, str]:
    """Return checksums of what the role writes."""
    return host.file(REPOSITORY).sha256sum, host.file(KEY).sha256sum


def test_packages_come_from_the_mirror_with_all_signatures_checked(host: Host) -> None:
    assert host.file(REPOSITORY).mode == host.file(KEY).mode == 0o644
    lines = host.file(REPOSITORY).content_string.splitlines()
    assert {"gpgcheck=1", "repo_gpgcheck=1", f"gpgkey=file://{KEY}", "skip_if_unavailable=0"} <= set(lines)
    host.check_output("dnf --assumeyes --quiet install socat")
    assert host.check_output("rpm --query --queryformat '%{RSAHEADER:pgpsig}' socat").startswith("RSA/SHA")
    assert host.check_output("dnf --quiet repoquery --installed --qf '%{from_repo}' socat") == "bank-platform"
    host.check_output("dnf --assumeyes --quiet remove socat")


@pytest.mark.parametrize(
    ("variables", "sentence"),
    [
        ({"package_mirror_url": ""}, 'package_mirror_url is "", which is no http or https address'),
        (
            {"package_mirror_url": "http://mirror:8080/releases"},
            "start or fill the package mirror, or correct package_mirror_url. Nothing was changed.",
        ),
        ({"package_source_mirror_key_fingerprint": WRONG}, f"not {WRONG}: ask the mirror's owner which is right"),
    ],
    ids=["no address", "empty mirror", "wrong key"],
)
def test_unusable_mirror_stops_in_one_sentence(host: Host, variables: dict[str, str], sentence: str) -> None:
    before = state(host)
    code, output = converge(**variables)
    assert code != 0
    assert sentence in output
    assert state(host) == before


def test_metadata_signed_with_another_key_is_refused(host: Host) -> None:
    before = state(host)
    host.check_output(
        "gpg --batch --quiet --homedir $(mktemp --directory) --pinentry-mode loopback --passphrase '' "
        "--quick-generate-key stranger rsa3072 sign never"
    )
    folder = host.check_output("ls --directory /tmp/tmp.*").splitlines()[-1]
    host.check_output(
        "mkdir --parents /srv/stranger/rpm/el9 && ln --symbolic --no-target-directory --force /srv/packages "
        "/srv/stranger/rpm/el9/x86_64 && mkdir --parents /srv/packages/repodata"
    )
    host.check_output(
        f"gpg --homedir {folder} --armor --export stranger > /srv/stranger/rpm/RPM-GPG-KEY-bank-mirror; "
        "cd /srv/packages/repodata && for name in repomd.xml repomd.xml.asc; do "
        "curl --silent --fail --remote-name http://mirror:8080/rpm/el9/x86_64/repodata/$name; done"
    )
    host.check_output(
        "systemctl is-active stranger || systemd-run --quiet --unit stranger "
        "python3 -m http.server --directory /srv/stranger 8090"
    )
    host.check_output(f"mv {KEY} /root/key")
    try:
        code, output = converge(package_mirror_url="http://127.0.0.1:8090")
        assert code != 0
        assert "dnf does not accept the package mirror at http://127.0.0.1:8090/rpm/el9/x86_64/" in output
        assert not host.file(KEY).exists
    finally:
        host.check_output(f"mv /root/key {KEY}")
    assert state(host) == before


def test_pinned_key_is_accepted_however_it_is_written(host: Host) -> None:
    shown = host.check_output(f"gpg --batch --show-keys --with-colons {KEY} 2>/dev/null")
    fingerprint = re.search(r"^fpr:+([0-9A-F]+):", shown, re.MULTILINE).group(1)
    spaced = " ".join(re.findall("....", fingerprint.lower()))
    code, output = converge(package_source_mirror_key_fingerprint=spaced)
    assert (code, "changed=0" in output) == (0, True), output


def test_upstream_mode_leaves_nothing_of_the_mirror(host: Host) -> None:
    code, output = converge(package_source="upstream")
    assert code == 0, output
    assert not host.file(REPOSITORY).exists
    assert not host.file(KEY).exists
    code, output = converge()
    assert (code, host.file(REPOSITORY).exists) == (0, True), output
