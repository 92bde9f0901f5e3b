"""What the module of the package mirror reads from keys, and what it leaves alone."""

import functools
import http.server
import json
import runpy
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

MODULE = Path(__file__).parents[2] / "roles/package_source/library/mirror_repository.py"
NAMES = runpy.run_path(str(MODULE))
# A key of the standard (RFC 9580, appendix A), with the fingerprint given there.
VERSION_4 = """-----BEGIN PGP PUBLIC KEY BLOCK-----

xjMEU/NfCxYJKwYBBAHaRw8BAQdAPwmJlL3ZFu1AUxl5NOSofIBzOhKA1i+AEJku
Q+47JAY=
-----END PGP PUBLIC KEY BLOCK-----
"""
VERSION_4_FINGERPRINT = "C959BDBAFA32A2F89A153B678CFDE12197965A9A"


@pytest.fixture
def mirror(tmp_path: Path) -> Iterator[str]:
    """Serve a folder with a key and nothing else; return its address."""
    folder = tmp_path / "mirror"
    folder.mkdir()
    (folder / "key").write_text(VERSION_4, encoding="ascii")
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def run(root: Path, **options: str) -> dict[str, object]:
    """Run the module for a host whose files are below a folder."""
    arguments = {"name": "bank-platform", "root": str(root), **options}
    text = json.dumps({"ANSIBLE_MODULE_ARGS": arguments})
    done = subprocess.run([sys.executable, MODULE], input=text, capture_output=True, text=True, check=False)
    return json.loads(done.stdout)


def test_fingerprint_is_that_of_the_standard() -> None:
    assert NAMES["fingerprint"](VERSION_4.encode()) == VERSION_4_FINGERPRINT


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "holds no single OpenPGP key"),
        (VERSION_4 + VERSION_4, "holds no single OpenPGP key"),
        (VERSION_4.replace("xjME", "!!!!"), "is damaged"),
        (VERSION_4.replace("xjME", "AAAA"), "is not an OpenPGP key"),
    ],
)
def test_other_files_are_no_keys(text: str, reason: str) -> None:
    with pytest.raises(NAMES["Refused"], match=reason):
        NAMES["fingerprint"](text.encode())


@pytest.mark.parametrize("written", ["C959 BDBA FA32 A2F8", "c959bdbafa32a2f8", "0xC959:BDBA:FA32:A2F8"])
def test_fingerprints_are_compared_however_they_are_written(written: str) -> None:
    assert NAMES["compact"](written) == VERSION_4_FINGERPRINT[:16]


def test_empty_mirror_changes_nothing(tmp_path: Path, mirror: str) -> None:
    result = run(tmp_path / "host", base_url=f"{mirror}/rpm", key_url=f"{mirror}/key")
    assert f"{mirror}/rpm/repodata/repomd.xml does not answer (HTTP Error 404" in str(result["msg"])
    assert not (tmp_path / "host").exists()


def test_wrong_key_changes_nothing(tmp_path: Path, mirror: str) -> None:
    result = run(tmp_path / "host", base_url=mirror, key_url=f"{mirror}/key", key_fingerprint="0" * 40)
    assert f"has the fingerprint {VERSION_4_FINGERPRINT}, not {'0' * 40}" in str(result["msg"])
    assert not (tmp_path / "host").exists()


def test_mirror_that_is_down_changes_nothing(tmp_path: Path) -> None:
    result = run(tmp_path / "host", base_url="http://127.0.0.1:1", key_url="http://127.0.0.1:1/key")
    assert "http://127.0.0.1:1/key does not answer" in str(result["msg"])
    assert "correct package_mirror_url. Nothing was changed." in str(result["msg"])


def test_upstream_removes_both_files(tmp_path: Path) -> None:
    files = [tmp_path / "etc/yum.repos.d/bank-platform.repo", tmp_path / "etc/pki/rpm-gpg/RPM-GPG-KEY-bank-platform"]
    for path in files:
        path.parent.mkdir(parents=True)
        path.write_text("", encoding="ascii")
    assert run(tmp_path, state="absent")["changed"]
    assert not any(path.exists() for path in files)
    assert not run(tmp_path, state="absent")["changed"]
