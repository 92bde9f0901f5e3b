"""Where a host installs from, and what it refuses."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest
import testinfra
from testinfra.host import Host

if TYPE_CHECKING:
    from conftest import Apply

NAME = "package-source-app1"
REPOSITORY = "/etc/yum.repos.d/bank-platform.repo"
KEY = "/etc/pki/rpm-gpg/RPM-GPG-KEY-bank-platform"
WRONG = "0123456789ABCDEF0123456789ABCDEF01234567"


@pytest.fixture
def host() -> Host:
    """Return the host."""
    return testinfra.get_host(f"docker://{NAME}")


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
def test_unusable_mirror_stops_in_one_sentence(
    host: Host, apply: Apply, variables: dict[str, str], sentence: str
) -> None:
    before = state(host)
    answer = apply(**variables)
    assert answer.failed
    assert sentence in answer.words
    assert state(host) == before


def test_metadata_signed_with_another_key_is_refused(host: Host, apply: Apply) -> None:
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
        answer = apply(package_mirror_url="http://127.0.0.1:8090")
        assert answer.failed
        assert "dnf does not accept the package mirror at http://127.0.0.1:8090/rpm/el9/x86_64/" in answer.words
        assert not host.file(KEY).exists
    finally:
        host.check_output(f"mv /root/key {KEY}")
    assert state(host) == before


def test_pinned_key_is_accepted_however_it_is_written(host: Host, apply: Apply) -> None:
    shown = host.check_output(f"gpg --batch --show-keys --with-colons {KEY} 2>/dev/null")
    fingerprint = re.search(r"^fpr:+([0-9A-F]+):", shown, re.MULTILINE).group(1)
    spaced = " ".join(re.findall("....", fingerprint.lower()))
    answer = apply(package_source_mirror_key_fingerprint=spaced)
    assert (answer.failed, answer.changed) == (False, {NAME: 0}), answer.output


def test_upstream_mode_leaves_nothing_of_the_mirror(host: Host, apply: Apply) -> None:
    answer = apply(package_source="upstream")
    assert not answer.failed, answer.output
    assert not host.file(REPOSITORY).exists
    assert not host.file(KEY).exists
    answer = apply()
    assert (answer.failed, host.file(REPOSITORY).exists) == (False, True), answer.output
