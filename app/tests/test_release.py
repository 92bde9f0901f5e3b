"""The release archive: same input, same bytes; and a lock that leaves nothing open."""

import importlib.util
import re
import subprocess
import sys
import tarfile
import tomllib
from pathlib import Path

import pytest

APP = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def build():
    spec = importlib.util.spec_from_file_location("build_release", APP / "build_release.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_archive_has_the_same_bytes_whenever_it_is_made(build, tmp_path):
    digests = set()
    for name in ("one", "two"):
        tree = tmp_path / name
        (tree / "wheelhouse").mkdir(parents=True)
        for number in (2, 1) if name == "one" else (1, 2):
            (tree / "wheelhouse" / f"{number}.whl").write_bytes(b"x" * number)
        (tree / "requirements.lock").write_text("a==1")
        (tree / "requirements.lock").chmod(0o600 if name == "one" else 0o664)
        digests.add(build.write_archive(tmp_path / f"{name}.tar.gz", tree))
    assert len(digests) == 1
    with tarfile.open(tmp_path / "one.tar.gz") as archive:
        assert archive.getnames() == ["requirements.lock", "wheelhouse", "wheelhouse/1.whl", "wheelhouse/2.whl"]
        assert {(member.uid, member.gid, member.mtime) for member in archive} == {(0, 0, build.EPOCH)}
    assert not list(tmp_path.glob("*.partial"))


def test_checksum_line_replaces_an_older_one(build, tmp_path):
    sums = tmp_path / "sha256sums.txt"
    for digest, name in (("1" * 64, "a.tar.gz"), ("2" * 64, "b.tar.gz"), ("3" * 64, "a.tar.gz")):
        build.note_checksum(sums, tmp_path / name, digest)
    assert sums.read_text() == f"{'2' * 64}  b.tar.gz\n{'3' * 64}  a.tar.gz\n"


@pytest.mark.parametrize("arguments", [["--version", "1.0/../x"], ["--version", "latest"], ["--python", "2.7"]])
def test_bad_arguments_are_refused_before_anything_is_done(tmp_path, arguments):
    result = subprocess.run(
        [sys.executable, APP / "build_release.py", "--output", tmp_path / "out", *arguments],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert result.returncode == 2
    assert f"{arguments[0]} must look like" in result.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["requirements.lock", "requirements-dev.lock"])
def test_lock_pins_and_hashes_everything_that_is_asked_for(name):
    text = (APP / name).read_text()
    entries = re.findall(
        r"^([a-z0-9-]+)==(\S+) \\\n((?:    --hash=sha256:[0-9a-f]{64}(?: \\)?\n)+)", text, re.MULTILINE
    )
    pinned = {entry[0] for entry in entries}
    others = [line for line in text.splitlines() if line and not line.startswith(("#", " ")) and "==" not in line]
    assert others == []
    assert len(entries) == len(re.findall(r"^[a-z].*==", text, re.MULTILINE))
    project = tomllib.loads((APP / "pyproject.toml").read_text())["project"]
    wanted = project["dependencies"] + (project["optional-dependencies"]["dev"] if "dev" in name else [])
    assert {re.match(r"[a-z0-9-]+", item)[0] for item in wanted} <= pinned


def test_development_lock_agrees_with_the_lock():
    def pins(name):
        return dict(re.findall(r"^([a-z0-9-]+)==(\S+)", (APP / name).read_text(), re.MULTILINE))

    assert pins("requirements.lock").items() <= pins("requirements-dev.lock").items()
