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
        (tree / "lib").mkdir(parents=True)
        build.write_programs(tree / "bin")
        for number in (2, 1) if name == "one" else (1, 2):
            (tree / "lib" / f"{number}.py").write_bytes(b"x" * number)
        (tree / "requirements.lock").write_text("a==1")
        (tree / "requirements.lock").chmod(0o600 if name == "one" else 0o664)
        digests.add(build.write_archive(tmp_path / f"{name}.tar.gz", tree))
    assert len(digests) == 1
    with tarfile.open(tmp_path / "one.tar.gz") as archive:
        assert archive.getnames() == [
            "bin", "bin/bank", "bin/gunicorn", "lib", "lib/1.py", "lib/2.py", "requirements.lock"
        ]  # fmt: skip
        assert {(member.uid, member.gid, member.mtime) for member in archive} == {(0, 0, build.EPOCH)}
        assert {name: archive.getmember(name).mode for name in ("bin/bank", "lib/1.py")} == {
            "bin/bank": 0o755, "lib/1.py": 0o644
        }  # fmt: skip
    assert not list(tmp_path.glob("*.partial"))


def test_what_names_the_building_machine_is_left_out(build, tmp_path):
    metadata = tmp_path / "bank-1.0.dist-info"
    for folder in (metadata, tmp_path / "bin"):
        folder.mkdir()
    for name in ("METADATA", "RECORD", "direct_url.json", "REQUESTED"):
        (metadata / name).touch()
    (tmp_path / "bin/bank").touch()
    build.tidy(tmp_path)
    assert [str(path.relative_to(tmp_path)) for path in sorted(tmp_path.rglob("*"))] == [
        "bank-1.0.dist-info", "bank-1.0.dist-info/METADATA"
    ]  # fmt: skip


def test_bytecode_is_the_same_whenever_it_is_compiled(build, tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPYCACHEPREFIX", str(tmp_path / "elsewhere"))
    digests = []
    for name in ("one", "two"):
        packages = tmp_path / name / "site-packages"
        packages.mkdir(parents=True)
        (packages / "module.py").write_text("NAMES = frozenset({'a', 'b', 'c', 'd'})\n")
        build.compile_packages(f"{sys.version_info.major}.{sys.version_info.minor}", packages)
        digests.append([path.read_bytes() for path in packages.glob("__pycache__/*.pyc")])
    assert digests[0] == digests[1] != []


def test_program_finds_its_release_through_any_link(build, tmp_path):
    release = tmp_path / "releases" / "1.0"
    release.mkdir(parents=True)
    build.write_programs(release / "bin")
    (release / "bin/python").write_text('#!/bin/sh\necho "$0" "$@"\n')
    (release / "bin/python").chmod(0o755)
    (tmp_path / "current").symlink_to("releases/1.0")
    done = subprocess.run([tmp_path / "current/bin/bank", "a b"], capture_output=True, text=True, check=True)
    assert done.stdout == f"{release}/bin/python -m bank a b\n"


def test_checksum_line_replaces_an_older_one(build, tmp_path):
    sums = tmp_path / "sha256sums.txt"
    for digest, name in (("1" * 64, "a.tar.gz"), ("2" * 64, "b.tar.gz"), ("3" * 64, "a.tar.gz")):
        build.note_checksum(sums, tmp_path / name, digest)
    assert sums.read_text() == f"{'2' * 64}  b.tar.gz\n{'3' * 64}  a.tar.gz\n"


@pytest.mark.parametrize(
    "arguments",
    [["--version", "1.0/../x"], ["--version", "latest"], ["--python", "2.7"], ["--lock", "/nowhere/requirements.lock"]],
)
def test_bad_arguments_are_refused_before_anything_is_done(tmp_path, arguments):
    result = subprocess.run(
        [sys.executable, APP / "build_release.py", "--output", tmp_path / "out", *arguments],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert result.returncode == 2
    assert f"{arguments[0]} {'names' if arguments[0] == '--lock' else 'must look like'}" in result.stderr
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
