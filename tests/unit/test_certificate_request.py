"""The module that keeps the key and certificate of a service, run as Ansible runs it."""

import grp
import json
import os
import pwd
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

sys.path.insert(0, str(Path(__file__).parent))

from pki import Authority, pem_of

MODULE = Path(__file__).parents[2] / "plugins/modules/certificate_request.py"
NAMES = ["db1.bank.internal", "localhost", "192.0.2.7"]
Run = Callable[..., dict[str, Any]]


@pytest.fixture(scope="session")
def authority() -> Authority:
    """Return the trusted authority."""
    return Authority.new("Trusted")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return the folder of the service, which does not exist yet."""
    return tmp_path / "bank/postgresql"


@pytest.fixture
def run(folder: Path, authority: Authority) -> Run:
    """Return a function that runs the module."""

    def call(*, check: bool = False, **options: object) -> dict[str, Any]:
        arguments = {
            "directory": str(folder),
            "owner": pwd.getpwuid(os.getuid()).pw_name,
            "group": grp.getgrgid(os.getgid()).gr_name,
            "ca_certificate": authority.pem,
            "names": NAMES,
            "common_name": NAMES[0],
            "organizational_unit": "postgresql",
            "_ansible_check_mode": check,
            **options,
        }
        text = json.dumps({"ANSIBLE_MODULE_ARGS": arguments})
        done = subprocess.run([sys.executable, MODULE], input=text, capture_output=True, text=True, check=False)
        return json.loads(done.stdout)

    return call


@pytest.fixture
def issued(run: Run, authority: Authority, folder: Path) -> Path:
    """Return the folder with a good certificate in it."""
    run(certificate=authority.sign(run()["csr"]))
    return folder


def key_in(folder: Path) -> ec.EllipticCurvePrivateKey:
    """Return the key of the service."""
    return serialization.load_pem_private_key((folder / "tls.key").read_bytes(), password=None)


def snapshot(folder: Path) -> dict[str, tuple[bytes, int]]:
    """Return content and mode of every file."""
    return {path.name: (path.read_bytes(), path.stat().st_mode) for path in folder.glob("*")}


def test_first_run_makes_a_key_and_asks_for_all_names(run: Run, folder: Path) -> None:
    result = run()
    assert (result["changed"], result["reason"]) == (True, "there is none yet")
    request = x509.load_pem_x509_csr(result["csr"].encode())
    names = request.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert {str(name.value) for name in names} == set(NAMES)
    assert request.subject.rfc4514_string() == "CN=db1.bank.internal,OU=postgresql"
    assert request.public_key() == key_in(folder).public_key()
    assert not request.extensions.get_extension_for_class(x509.BasicConstraints).value.ca


def test_files_are_open_to_the_group_only_as_far_as_needed(issued: Path) -> None:
    modes = {path.name: path.stat().st_mode & 0o777 for path in (issued.parent, issued, *issued.glob("*"))}
    assert modes == {"bank": 0o755, "postgresql": 0o750, "tls.key": 0o640, "tls.crt": 0o644, "ca.crt": 0o644}


def test_good_certificate_stays(run: Run, issued: Path) -> None:
    before = snapshot(issued)
    result = run()
    assert (result["changed"], result["csr"], result["reason"]) == (False, "", "")
    assert result["not_after"]
    assert snapshot(issued) == before


def test_check_mode_writes_nothing(run: Run, folder: Path) -> None:
    result = run(check=True, ca_certificate="", group="not-there-yet")
    assert result["changed"]
    assert result["csr"] == ""
    assert "tls.key: new private key" in result["diff"]["after"]
    assert not folder.parent.exists()


def test_key_never_leaves_the_host(run: Run, folder: Path) -> None:
    assert "PRIVATE KEY" not in json.dumps(run())
    assert "PRIVATE KEY" in (folder / "tls.key").read_text(encoding="ascii")


@pytest.mark.parametrize(
    ("days", "reason"), [(59, "in less than 60 days"), (-1, "it ended on"), (61, "")], ids=["near", "past", "far"]
)
def test_certificate_is_replaced_before_its_end(
    run: Run, authority: Authority, issued: Path, days: int, reason: str
) -> None:
    (issued / "tls.crt").write_text(authority.issue(key_in(issued), NAMES, days=days), encoding="ascii")
    result = run()
    assert reason in result["reason"]
    assert bool(result["csr"]) == bool(reason)


def test_certificate_of_the_future_is_replaced(run: Run, authority: Authority, issued: Path) -> None:
    (issued / "tls.crt").write_text(authority.issue(key_in(issued), NAMES, starts_in_days=2), encoding="ascii")
    assert "it is valid from" in run()["reason"]


@pytest.mark.parametrize(
    ("names", "reason"),
    [
        ([*NAMES, "new.bank.internal"], "it lacks the name new.bank.internal"),
        (NAMES[:2], "it has the name 192.0.2.7, which the host has no more"),
        (["DB1.bank.internal", *NAMES[1:]], ""),
    ],
)
def test_names_decide(run: Run, issued: Path, names: list[str], reason: str) -> None:
    result = run(names=names)
    assert result["reason"] == reason
    assert result["changed"] == bool(reason)


def test_certificate_of_another_authority_is_replaced(run: Run, issued: Path) -> None:
    stranger = Authority.new("Trusted")
    (issued / "tls.crt").write_text(stranger.issue(key_in(issued), NAMES), encoding="ascii")
    assert run()["reason"] == "it was not issued by the authority"


def test_new_authority_reaches_the_host(run: Run, issued: Path) -> None:
    other = Authority.new("Next")
    assert run(ca_certificate=other.pem)["reason"] == "it was not issued by the authority"
    assert (issued / "ca.crt").read_text(encoding="ascii") == other.pem


def test_unreadable_key_is_replaced_and_foreign_key_gets_its_own_certificate(run: Run, issued: Path) -> None:
    (issued / "tls.key").write_text("nonsense", encoding="ascii")
    assert run()["reason"] == "it does not belong to the private key"
    assert key_in(issued).curve.name == "secp256r1"
    foreign = ec.generate_private_key(ec.SECP256R1())
    (issued / "tls.key").write_text(pem_of(foreign), encoding="ascii")
    result = run()
    assert x509.load_pem_x509_csr(result["csr"].encode()).public_key() == foreign.public_key()


def test_changed_mode_is_corrected(run: Run, issued: Path) -> None:
    (issued / "tls.key").chmod(0o644)
    result = run()
    assert (result["changed"], result["reason"]) == (True, "")
    assert "mode 0644" in result["diff"]["before"]
    assert (issued / "tls.key").stat().st_mode & 0o777 == 0o640


def test_missing_group_is_named(run: Run) -> None:
    result = run(group="not-there")
    assert result["failed"]
    assert "The group not-there does not exist on this host: install the package that brings it" in result["msg"]


def test_certificate_of_the_site_may_have_a_chain_and_a_wildcard(run: Run, authority: Authority, folder: Path) -> None:
    intermediate = Authority.new("Between", parent=authority)
    key = ec.generate_private_key(ec.SECP256R1())
    chain = intermediate.issue(key, ["*.bank.internal"]) + intermediate.pem
    options = {"certificate": chain, "private_key": pem_of(key), "names": NAMES[:1], "exact_names": False}
    assert run(**options)["changed"]
    assert (folder / "tls.crt").read_text(encoding="ascii") == chain
    assert not run(**options)["changed"]


EC_KEY = ec.generate_private_key(ec.SECP256R1())


@pytest.mark.parametrize(
    ("change", "reason", "remedy"),
    [
        ({"names": ["web.other.internal"]}, "it lacks the name web.other.internal", "Order one that has it"),
        (
            {"private_key": pem_of(ec.generate_private_key(ec.SECP256R1()))},
            "it does not belong to the private key",
            "Put the key that it was ordered with into tls.key",
        ),
        ({"private_key": "nonsense"}, "its private key cannot be read", "Write tls.key in PEM again"),
        ({"certificate": "nonsense"}, "it holds no certificate in PEM", "Write tls.crt in PEM"),
        (
            {"ca_certificate": Authority.new("Stranger").pem},
            "it was not issued by the authority",
            "Append the certificate of CN=Trusted to tls.crt, or to ca.crt",
        ),
    ],
    ids=["name", "other key", "bad key", "bad certificate", "authority"],
)
def test_bad_certificate_of_the_site_changes_nothing(
    run: Run, authority: Authority, folder: Path, change: dict[str, object], reason: str, remedy: str
) -> None:
    good = {"certificate": authority.issue(EC_KEY, NAMES), "private_key": pem_of(EC_KEY), "exact_names": False}
    result = run(**{**good, **change}, origin="/srv/certificates/db1")
    assert result["msg"].startswith(f"/srv/certificates/db1 is refused, and nothing was changed: {reason}. {remedy}")
    assert result["msg"].endswith(", and run again.")
    assert not folder.parent.exists()


@pytest.mark.parametrize(
    ("leaf", "between", "root", "words"),
    [
        ({"days": -1}, {}, {}, ("it ended on", "Put its successor there")),
        ({"starts_in_days": 2}, {}, {}, ("it is valid from", "Put the host's clock right")),
        ({}, {"days": -1}, {}, ("its authority CN=Between ended on", "Put its successor there")),
        ({}, {}, {"days": -1}, ("its authority CN=Root ended on", "Put its successor there")),
        ({}, {"ca": False}, {}, ("it was not issued by the authority", "Append the certificate of CN=Between")),
    ],
    ids=["ended", "not yet valid", "intermediate ended", "root ended", "issuer that may not sign"],
)
def test_certificate_of_the_site_that_does_not_hold_changes_nothing(
    run: Run, folder: Path, leaf: dict[str, Any], between: dict[str, Any], root: dict[str, Any], words: tuple[str, ...]
) -> None:
    top = Authority.new("Root", **root)
    middle = Authority.new("Between", parent=top, **between)
    chain = middle.issue(EC_KEY, NAMES, **leaf) + middle.pem
    result = run(certificate=chain, private_key=pem_of(EC_KEY), exact_names=False, ca_certificate=top.pem)
    assert all(text in result["msg"] for text in words), result["msg"]
    assert not folder.parent.exists()


def test_chain_without_its_middle_is_told_apart(run: Run, authority: Authority, folder: Path) -> None:
    middle = Authority.new("Between", parent=authority)
    result = run(certificate=middle.issue(EC_KEY, NAMES), private_key=pem_of(EC_KEY), exact_names=False)
    assert "Append the certificate of CN=Between to tls.crt" in result["msg"]
    assert not folder.parent.exists()


def test_successor_of_an_ended_authority_is_preferred(run: Run, authority: Authority) -> None:
    """Both have the same key and name, and only one of them still holds."""
    ended = Authority.new("Trusted", key=authority.key, days=-1)
    options = {"certificate": authority.issue(EC_KEY, NAMES), "private_key": pem_of(EC_KEY)}
    assert run(ca_certificate=ended.pem + authority.pem, **options)["changed"]
    assert "ended on" in run(ca_certificate=ended.pem, **options)["msg"]


def test_certificate_of_the_site_that_ends_soon_is_installed_with_a_warning(run: Run, authority: Authority) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    result = run(certificate=authority.issue(key, NAMES, days=20), private_key=pem_of(key), origin="db1")
    assert result["changed"]
    assert "supply a new one before" in str(result["warnings"])


def test_signed_certificate_for_another_key_is_refused(run: Run, authority: Authority, issued: Path) -> None:
    before = snapshot(issued)
    result = run(certificate=authority.issue(ec.generate_private_key(ec.SECP256R1()), NAMES))
    assert "it does not belong to the private key" in result["msg"]
    assert snapshot(issued) == before
