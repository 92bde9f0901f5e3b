#!/usr/bin/env python3
"""Build the archive of the maintenance job, which hosts run with their own Python and nothing else.

    python build_release.py --output DIR --version X

The archive holds the job and everything that requirements.lock names, with the locked hashes checked. The same input
gives the same bytes. A line for the archive goes into ``sha256sums.txt`` beside it. Needs pip and its package index.
"""

from __future__ import annotations

import argparse
import hashlib
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
PYTHON = "3.9"
VERSION = re.compile(r"[0-9]+(\.[0-9]+)*")
# The first second that a zip file can hold.
EPOCH = (1980, 1, 1, 0, 0, 0)
# Written by pip, and different from one machine to the next.
OF_THIS_MACHINE = {"RECORD", "REQUESTED", "INSTALLER", "direct_url.json"}


def install(packages: Path) -> None:
    """Unpack the locked wheels into a folder."""
    command = [
        sys.executable,
        "-m",
        "pip",
        "--disable-pip-version-check",
        "--no-input",
        "install",
        "--quiet",
        "--no-deps",
    ]
    command += [
        "--no-compile",
        "--require-hashes",
        "--only-binary=:all:",
        "--implementation=py",
        f"--python-version={PYTHON}",
    ]
    command += [
        "--abi=none",
        "--platform=any",
        f"--target={packages}",
        "--requirement",
        str(HERE / "requirements.lock"),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        last = "\n".join((done.stdout + done.stderr).strip().splitlines()[-12:])
        sys.exit(f"build_release: pip could not install what requirements.lock names:\n{last}")


def pack(tree: Path, archive: Path) -> None:
    """Write the archive with fixed order, times and modes, uncompressed, because compressors differ."""
    partial = archive.with_name(f"{archive.name}.partial")
    with partial.open("wb") as stream:
        stream.write(b"#!/usr/bin/env python3\n")
        with zipfile.ZipFile(stream, "w", zipfile.ZIP_STORED) as packed:
            for path in sorted(tree.rglob("*")):
                if path.is_file() and path.name not in OF_THIS_MACHINE and "__pycache__" not in path.parts:
                    entry = zipfile.ZipInfo(path.relative_to(tree).as_posix(), EPOCH)
                    entry.create_system, entry.external_attr = 3, 0o644 << 16
                    packed.writestr(entry, path.read_bytes())
    partial.replace(archive)


def main() -> None:
    """Build one archive."""
    parser = argparse.ArgumentParser(description="Build the archive of the maintenance job.")
    parser.add_argument("--output", type=Path, required=True, help="folder for the archive and sha256sums.txt")
    parser.add_argument("--version", required=True, help="version of the archive, for example 1.0.0")
    options = parser.parse_args()
    if not VERSION.fullmatch(options.version):
        parser.error(f"--version must look like 1.2.3, not {options.version}")
    options.output.mkdir(parents=True, exist_ok=True)
    archive = options.output / f"elasticsearch_maintenance-{options.version}.pyz"
    with tempfile.TemporaryDirectory(prefix="elasticsearch-maintenance-") as folder:
        tree = Path(folder)
        install(tree)
        shutil.rmtree(tree / "bin", ignore_errors=True)
        package = shutil.copytree(HERE / "src/elasticsearch_maintenance", tree / "elasticsearch_maintenance")
        (package / "__main__.py").replace(tree / "__main__.py")
        pack(tree, archive)
    digest = hashlib.sha256(archive.read_bytes()).hexdigest()
    sums = options.output / "sha256sums.txt"
    lines = sums.read_text(encoding="utf-8").splitlines() if sums.exists() else []
    kept = [line for line in lines if line.split(maxsplit=1)[1:] != [archive.name]]
    sums.write_text("\n".join([*kept, f"{digest}  {archive.name}"]) + "\n", encoding="utf-8")
    print(f"{archive} sha256:{digest}")


if __name__ == "__main__":
    main()
