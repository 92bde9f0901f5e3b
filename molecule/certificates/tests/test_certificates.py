"""Certificates as services and attackers meet them."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import testinfra
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from testinfra.host import Host

sys.path.insert(0, str(Path(__file__).parents[3] / "tests/unit"))

from pki import supply

if TYPE_CHECKING:
    from conftest import Apply, Run

AUTHORITY = Path(os.environ["MOLECULE_EPHEMERAL_DIRECTORY"]) / "pki"
SITE = Path(os.environ["MOLECULE_EPHEMERAL_DIRECTORY"]) / "site/certificates-site1/web"
APP, OTHER = "certificates-app1", "certificates-site1"
WEB, API, SUPPLIED = "/etc/pki/bank/web", "/etc/pki/bank/api", "/etc/pki/bank/web"


@pytest.fixture(scope="module")
def app() -> Host:
    """Return the host with certificates of the internal authority."""
    return testinfra.get_host(f"docker://{APP}")


@pytest.fixture(scope="module")
def site() -> Host:
    """Return the host with a certificate of the site."""
    return testinfra.get_host(f"docker://{OTHER}")


def certificate(host: Host, folder: str) -> x509.Certificate:
    """Return the certificate of a service."""
    return x509.load_pem_x509_certificate(host.file(f"{folder}/tls.crt").content)


def modes(host: Host, folder: str) -> dict[str, tuple[str, str]]:
    """Return mode, owner and group of everything that a service has."""
    lines = host.check_output(f"stat -c '%n %a %U:%G' /etc/pki/bank {folder} {folder}/*").splitlines()
    return {Path(path).name: (mode, owner) for path, mode, owner in (line.split() for line in lines)}


def test_names_are_those_of_the_host_and_of_the_service(app: Host) -> None:
    address = app.check_output("hostname -i")
    own = {"certificates-app1", "certificates-app1.bank.internal", "localhost", "127.0.0.1", address}
    for folder, extra in ((WEB, set()), (API, {"api.bank.internal", "192.0.2.7"})):
        names = certificate(app, folder).extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        found = {str(name.value) for name in names}
        assert found == own | extra


def test_only_the_service_reads_its_key(app: Host) -> None:
    assert modes(app, WEB) == {
        "bank": ("755", "root:root"),
        "web": ("750", "root:web"),
        "tls.key": ("640", "root:web"),
        "tls.crt": ("644", "root:web"),
        "ca.crt": ("644", "root:web"),
    }
    assert modes(app, API)["tls.crt.key"] == ("640", "root:api")
    assert app.run(f"setpriv --reuid=nobody --regid=web --clear-groups cat {WEB}/tls.key").rc == 0
    assert app.run(f"setpriv --reuid=nobody --regid=api --clear-groups cat {WEB}/tls.key").rc != 0


def test_services_of_one_host_have_different_keys(app: Host) -> None:
    assert app.file(f"{WEB}/tls.key").sha256sum != app.file(f"{API}/tls.crt.key").sha256sum


def test_both_sides_of_a_connection_prove_themselves(app: Host) -> None:
    server = f"openssl s_server -accept 4433 -www -CAfile {WEB}/ca.crt -cert {WEB}/tls.crt -key {WEB}/tls.key -Verify 1"
    app.check_output(f"systemd-run --quiet --unit tls-server {server} -verify_return_error")
    client = f"curl --silent --show-error --retry 5 --retry-connrefused --cacert {API}/ca.crt"
    pair = f"--cert {API}/tls.crt --key {API}/tls.crt.key"
    try:
        assert app.run(f"{client} {pair} https://certificates-app1:4433/").rc == 0
        assert app.run(f"{client} https://certificates-app1:4433/").rc != 0
        assert app.run(f"{client} {pair} https://127.0.0.2:4433/").rc == 60
    finally:
        app.run("systemctl stop tls-server")


def test_the_authority_stays_on_the_control_node_behind_its_passphrase(app: Host) -> None:
    key = AUTHORITY / "ca.key"
    assert (AUTHORITY.stat().st_mode & 0o777, key.stat().st_mode & 0o777) == (0o700, 0o600)
    with pytest.raises(TypeError):
        serialization.load_pem_private_key(key.read_bytes(), password=None)
    assert app.run(f"openssl verify -CAfile {WEB}/ca.crt {WEB}/tls.crt").rc == 0
    constraints = x509.load_pem_x509_certificate((AUTHORITY / "ca.crt").read_bytes()).extensions
    assert constraints.get_extension_for_class(x509.BasicConstraints).value.path_length == 0


def test_certificate_of_the_site_is_installed_with_its_chain(site: Host) -> None:
    for name in ("tls.crt", "tls.key", "ca.crt"):
        assert site.file(f"{SUPPLIED}/{name}").content == (SITE / name).read_bytes()
    assert modes(site, SUPPLIED)["tls.key"] == ("640", "root:web")
    assert site.run(f"openssl verify -CAfile {WEB}/ca.crt -untrusted {WEB}/tls.crt {WEB}/tls.crt").rc == 0


@pytest.fixture(scope="module")
def foreign(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder like the site's, but its ca.crt is of an authority that issued nothing there."""
    top = tmp_path_factory.mktemp("foreign")
    folder = top / OTHER / "web"
    shutil.copytree(SITE, folder)
    shutil.copy(AUTHORITY / "ca.crt", folder / "ca.crt")
    return top


@pytest.fixture(scope="module")
def mended(app: Host, apply: Apply, foreign: Path) -> tuple[int, Run]:
    """Damage one host, offer a foreign authority to the other, run once for both; return API's old number, too."""
    app.check_output("rm -f /run/reloaded-web /run/reloaded-api")
    # A foreign key, a key that all can read, and an authority that somebody replaced.
    app.check_output(f"openssl ecparam -name prime256v1 -genkey -noout -out {WEB}/tls.key")
    app.check_output(f"chmod 0644 {WEB}/tls.key; echo nonsense > {WEB}/ca.crt")
    before = certificate(app, API).serial_number
    return before, apply(certificates_site_directory=str(foreign))


@pytest.fixture(scope="module")
def lacking(apply: Apply, foreign: Path, mended: tuple[int, Run]) -> Run:
    """Name a group that no host has, take ca.crt from the site's files, and run once for both hosts."""
    (foreign / OTHER / "web/ca.crt").unlink()
    return apply(certificates_site_directory=str(foreign), scenario_group="nobody-has-it")


def test_services_reload_only_when_something_changed(app: Host, mended: tuple[int, Run]) -> None:
    before, answer = mended
    assert answer.changed[APP] > 0, answer.output
    assert APP not in answer.stopped, answer.output
    assert modes(app, WEB)["tls.key"] == ("640", "root:web")
    assert app.run(f"openssl verify -CAfile {WEB}/ca.crt {WEB}/tls.crt").rc == 0
    assert app.check_output(f"openssl pkey -in {WEB}/tls.key -pubout") == app.check_output(
        f"openssl x509 -in {WEB}/tls.crt -noout -pubkey"
    )
    assert certificate(app, API).serial_number == before
    assert (app.file("/run/reloaded-web").exists, app.file("/run/reloaded-api").exists) == (True, False)


def test_foreign_authority_of_the_site_changes_nothing(site: Host, mended: tuple[int, Run]) -> None:
    _, answer = mended
    assert answer.failed
    assert OTHER in answer.stopped, answer.output
    assert "is refused, and nothing was changed: it was not issued by the authority" in answer.words
    assert answer.changed[OTHER] == 0
    assert site.file(f"{SUPPLIED}/ca.crt").content == (SITE / "ca.crt").read_bytes()


def test_missing_file_of_the_site_changes_nothing(site: Host, foreign: Path, lacking: Run) -> None:
    assert lacking.failed
    assert OTHER in lacking.stopped, lacking.output
    assert f"The control node lacks ca.crt in {foreign / OTHER / 'web'}" in lacking.words
    assert lacking.changed[OTHER] == 0
    assert site.file(f"{SUPPLIED}/ca.crt").content == (SITE / "ca.crt").read_bytes()


def test_ended_certificate_of_the_site_changes_nothing(site: Host, apply: Apply, tmp_path: Path) -> None:
    supply(tmp_path / OTHER / "web", ["*.bank.internal"], days=-1)
    answer = apply(None, "--limit", OTHER, certificates_site_directory=str(tmp_path))
    assert answer.failed
    assert f"{tmp_path / OTHER / 'web'} is refused, and nothing was changed: it ended on" in answer.words
    assert "Put its successor there, and run again." in answer.words
    assert answer.changed == {OTHER: 0}
    assert site.file(f"{SUPPLIED}/tls.crt").content == (SITE / "tls.crt").read_bytes()


def test_missing_group_stops_in_one_sentence(lacking: Run) -> None:
    assert APP in lacking.stopped, lacking.output
    assert "The group nobody-has-it does not exist on this host" in lacking.words
    assert lacking.changed[APP] == 0


def test_wrong_passphrase_stops_in_one_sentence(apply: Apply) -> None:
    answer = apply(None, "--limit", APP, vault_certificates_authority_passphrase="not the passphrase")
    assert answer.failed
    assert "vault_certificates_authority_passphrase does not open" in answer.words
    assert answer.changed == {APP: 0}


def test_certificate_is_renewed_before_its_end(app: Host, apply: Apply) -> None:
    before = certificate(app, WEB)
    answer = apply(None, "--limit", APP, certificates_renew_before_days=370, certificates_validity_days=400)
    assert not answer.failed, answer.output
    after = certificate(app, WEB)
    assert after.serial_number != before.serial_number
    assert (after.not_valid_after_utc - before.not_valid_after_utc).days >= 34
    assert after.public_key() == before.public_key()
