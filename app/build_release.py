#!/usr/bin/env python3
"""Build the release archive that hosts install from without internet, by unpacking it.

    python app/build_release.py --output DIR [--version X] [--python 3.11] [--lock FILE]

The archive holds ``lib/pythonX.Y/site-packages`` (the bank and everything that requirements.lock names, with the locked
hashes checked, compiled to bytecode if this machine has that Python), ``bin/`` and ``requirements.lock``. Beside it a
host needs nothing but the interpreter. The same input gives the same bytes. A line for the archive goes into
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


def build_wheel(version: str, work: Path) -> Path:
    """Build the bank's wheel from a copy, so that another version leaves the tree alone."""
    copy = work / "source"
    copy.mkdir()
    for name in ("pyproject.toml", "README.md"):
        shutil.copy2(HERE / name, copy / name)
    shutil.copytree(HERE / "src", copy / "src", ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    module = copy / "src" / "bank" / "__init__.py"
    module.write_text(VERSION_LINE.sub(f'__version__ = "{version}"', module.read_text()))
    pip("wheel", "--quiet", "--no-deps", "--wheel-dir", str(work), str(copy))
    wheel = next(work.glob(f"bank-{version}-*.whl"), None)
    if wheel is None:
        sys.exit(f"build_release: version {version} is not written as Python packages write it")
    return wheel


def install(requirements: list[str], python: str, packages: Path) -> None:
    """Unpack wheels for Linux on x86_64 and the given Python into a folder."""
    platforms = [f"manylinux_2_{minor}_x86_64" for minor in range(NEWEST_GLIBC, OLDEST_GLIBC - 1, -1)]
    platforms += ["manylinux2014_x86_64", "linux_x86_64"]
    pip(
        "install",
        "--quiet",
        "--no-deps",
        "--no-compile",
        "--only-binary=:all:",
        "--implementation=cp",
        f"--python-version={python}",
        f"--abi=cp{python.replace('.', '')}",
        "--abi=abi3",
        "--abi=none",
        *[f"--platform={platform}" for platform in platforms],
        f"--target={packages}",
        *requirements,
    )


def tidy(packages: Path) -> None:
    """Remove what names this machine: programs with the path of its Python, and the lists that hold their hashes.

    Nothing is ever removed from a release singly, which is all that the lists are for.
    """
    shutil.rmtree(packages / "bin", ignore_errors=True)
    for name in ("RECORD", "REQUESTED", "direct_url.json"):
        for file in packages.glob(f"*.dist-info/{name}"):
            file.unlink()


def compile_packages(python: str, packages: Path) -> None:
    """Compile to bytecode where this machine has the hosts' Python; elsewhere each host does it once."""
    interpreter = shutil.which(f"python{python}")
    if interpreter is None:
        print(f"This machine has no python{python}: hosts will compile the release themselves.")
        return
    for path in packages.rglob("*"):
        os.utime(path, (EPOCH, EPOCH))
    command = [interpreter, "-m", "compileall", "-q", "--invalidation-mode=timestamp", "-s", packages, packages]
    # Whoever builds may keep bytecode elsewhere; here it belongs beside the sources.
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPYCACHEPREFIX"}
    environment["PYTHONHASHSEED"] = "0"
    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if result.returncode:
        sys.exit(f"build_release: the packages cannot be compiled:\n{(result.stdout + result.stderr).strip()[-2000:]}")


def write_programs(folder: Path) -> None:
    """Write what operators and systemd start; the release is found through any link that leads to it."""
    folder.mkdir()
    for name in ("bank", "gunicorn"):
        program = folder / name
        program.write_text(f'#!/bin/sh\nexec "$(dirname "$(realpath "$0")")/python" -m {name} "$@"\n')
        program.chmod(0o755)


def write_archive(archive: Path, tree: Path) -> str:
    """Pack ``tree`` with fixed order, times and owners, and return the SHA-256 of the result."""

    def plain(member: tarfile.TarInfo) -> tarfile.TarInfo:
        member.mtime = EPOCH
        member.uid = member.gid = 0
        member.uname = member.gname = "root"
        member.mode = 0o755 if member.isdir() or member.mode & 0o100 else 0o644
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
    parser.add_argument("--lock", type=Path, default=HERE / "requirements.lock", help="hashed lock of what it needs")
    options = parser.parse_args()
    if not options.lock.is_file():
        parser.error(f"--lock names {options.lock}, which is not there")
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
        packages = tree / "lib" / f"python{options.python}" / "site-packages"
        packages.mkdir(parents=True)
        shutil.copy2(options.lock, tree / "requirements.lock")
        install(["--require-hashes", "--requirement", str(options.lock)], options.python, packages)
        install([str(build_wheel(options.version, work))], options.python, packages)
        tidy(packages)
        compile_packages(options.python, packages)
        write_programs(tree / "bin")
        digest = write_archive(archive, tree)
    note_checksum(options.output / "sha256sums.txt", archive, digest)
    print(f"{archive} sha256:{digest}")


if __name__ == "__main__":
    main()
