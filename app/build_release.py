#!/usr/bin/env python3
"""Build the release archive that hosts install from without internet.

    python app/build_release.py --output DIR [--version X] [--python 3.11]

The archive holds ``wheelhouse/`` (the bank and everything that requirements.lock names, with the locked hashes
checked) and ``requirements.lock``. The same input gives the same bytes. A line for the archive goes into
``sha256sums.txt`` beside it. Needs pip and its package index, nothing else.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
VERSION_LINE = re.compile(r'^__version__ = "(?P<version>[^"]+)"$', re.MULTILINE)
# PEP 440 without a local part, which file names would change.
VERSION = re.compile(r"[0-9]+(\.[0-9]+)*((a|b|rc)[0-9]+)?(\.post[0-9]+)?(\.dev[0-9]+)?")
PYTHON = re.compile(r"3\.[0-9]{1,2}")
# Any second will do as long as it stays the same; zip files cannot hold years before 1980.
EPOCH = 1_700_000_000
# RHEL 9 has glibc 2.34; wheels for it or for anything older run on every supported host.
NEWEST_GLIBC = 34
OLDEST_GLIBC = 17


def pip(*arguments: str) -> None:
    """Run pip of this interpreter and stop with its last words if it fails."""
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-input", *arguments]
    environment = os.environ | {"SOURCE_DATE_EPOCH": str(EPOCH), "PYTHONHASHSEED": "0"}
    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if result.returncode:
        last = "\n".join((result.stdout + result.stderr).strip().splitlines()[-12:])
        sys.exit(f"build_release: pip {arguments[0]} failed:\n{last}")


def build_wheel(version: str, wheelhouse: Path, work: Path) -> None:
    """Build the bank's wheel from a copy, so that another version leaves the tree alone."""
    copy = work / "source"
    copy.mkdir()
    for name in ("pyproject.toml", "README.md"):
        shutil.copy2(HERE / name, copy / name)
    shutil.copytree(HERE / "src", copy / "src", ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    module = copy / "src" / "bank" / "__init__.py"
    module.write_text(VERSION_LINE.sub(f'__version__ = "{version}"', module.read_text()))
    pip("wheel", "--quiet", "--no-deps", "--wheel-dir", str(wheelhouse), str(copy))
    if not list(wheelhouse.glob(f"bank-{version}-*.whl")):
        sys.exit(f"build_release: version {version} is not written as Python packages write it")


def download(lock: Path, python: str, wheelhouse: Path) -> None:
    """Fetch the wheels of the lock for Linux on x86_64 and the given Python."""
    platforms = [f"manylinux_2_{minor}_x86_64" for minor in range(NEWEST_GLIBC, OLDEST_GLIBC - 1, -1)]
    platforms += ["manylinux2014_x86_64", "linux_x86_64"]
    pip(
        "download",
        "--quiet",
        "--require-hashes",
        "--no-deps",
        "--only-binary=:all:",
        "--implementation=cp",
        f"--python-version={python}",
        f"--abi=cp{python.replace('.', '')}",
        "--abi=abi3",
        "--abi=none",
        *[f"--platform={platform}" for platform in platforms],
        "--dest",
        str(wheelhouse),
        "--requirement",
        str(lock),
    )


def write_archive(archive: Path, tree: Path) -> str:
    """Pack ``tree`` with fixed order, times and owners, and return the SHA-256 of the result."""

    def plain(member: tarfile.TarInfo) -> tarfile.TarInfo:
        member.mtime = EPOCH
        member.uid = member.gid = 0
        member.uname = member.gname = "root"
        member.mode = 0o755 if member.isdir() else 0o644
        return member

    partial = archive.with_name(archive.name + ".partial")
    with (
        partial.open("wb") as raw,
        gzip.GzipFile(filename="", mode="wb", fileobj=raw, mtime=EPOCH, compresslevel=1) as packed,
        tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as tar,
    ):
        for path in sorted(tree.rglob("*")):
            tar.add(path, arcname=str(path.relative_to(tree)), recursive=False, filter=plain)
    with partial.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    partial.replace(archive)
    return digest


def note_checksum(sums: Path, archive: Path, digest: str) -> None:
    """Put the archive's line into ``sha256sums.txt``, in place of an older one."""
    lines = sums.read_text().splitlines() if sums.exists() else []
    kept = [line for line in lines if line.split(maxsplit=1)[1:] != [archive.name]]
    sums.write_text("\n".join([*kept, f"{digest}  {archive.name}"]) + "\n")


def main() -> None:
    """Build one archive."""
    current = VERSION_LINE.search((HERE / "src" / "bank" / "__init__.py").read_text())
    parser = argparse.ArgumentParser(description="Build the bank's release archive.")
    parser.add_argument("--output", type=Path, required=True, help="folder for the archive and sha256sums.txt")
    parser.add_argument("--version", default=current and current["version"], help="instead of the package's own")
    parser.add_argument("--python", default="3.11", help="version of Python on the hosts (default: 3.11)")
    options = parser.parse_args()
    if not options.version or not VERSION.fullmatch(options.version):
        parser.error(f"--version must look like 1.2.3, not {options.version}")
    if not PYTHON.fullmatch(options.python):
        parser.error(f"--python must look like 3.11, not {options.python}")

    options.output.mkdir(parents=True, exist_ok=True)
    tag = "cp" + options.python.replace(".", "")
    archive = options.output / f"bank-{options.version}-{tag}-linux-x86_64.tar.gz"
    with tempfile.TemporaryDirectory(prefix="bank-release-") as folder:
        work = Path(folder)
        tree = work / "tree"
        wheelhouse = tree / "wheelhouse"
        wheelhouse.mkdir(parents=True)
        lock = HERE / "requirements.lock"
        shutil.copy2(lock, tree / lock.name)
        download(lock, options.python, wheelhouse)
        build_wheel(options.version, wheelhouse, work)
        digest = write_archive(archive, tree)
    note_checksum(options.output / "sha256sums.txt", archive, digest)
    print(f"{archive} sha256:{digest}")


if __name__ == "__main__":
    main()
