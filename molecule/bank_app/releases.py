"""Builds release 0.1.1, and from it 0.1.2 that refuses its configuration and 0.1.3 that starts but is never ready."""

import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

PROJECT = Path(__file__).parents[2]
OUTPUT = Path(sys.argv[1])


def spoiled(wheel: Path, version: str, file: str, extra: str) -> Path:
    """Write a wheel of another version, with a statement at the end of one of its files."""
    old = wheel.name.split("-")[1]
    target = wheel.with_name(wheel.name.replace(old, version))
    with zipfile.ZipFile(wheel) as source, zipfile.ZipFile(target, "w") as copy:
        for name in source.namelist():
            content = source.read(name)
            if name.endswith((".dist-info/METADATA", "bank/__init__.py")):
                content = content.replace(old.encode(), version.encode())
            if name == file:
                content += extra.encode()
            copy.writestr(name.replace(f"bank-{old}", f"bank-{version}"), content)
    wheel.unlink()
    return target


def release(good: Path, version: str, file: str, extra: str) -> None:
    """Write an archive of another version that does not work."""
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder)
        with tarfile.open(good) as archive:
            archive.extractall(tree, filter="data")
        spoiled(next((tree / "wheelhouse").glob("bank-*.whl")), version, file, extra)
        with tarfile.open(good.with_name(good.name.replace("0.1.1", version)), "w:gz", compresslevel=1) as archive:
            for path in sorted(tree.iterdir()):
                archive.add(path, arcname=path.name)


build = [sys.executable, PROJECT / "app/build_release.py", "--output", OUTPUT, "--version", "0.1.1", "--python", "3.11"]
subprocess.run(build, check=True)
made = next(OUTPUT.glob("bank-0.1.1-*.tar.gz"))
release(
    made,
    "0.1.2",
    "bank/services/health.py",
    '\n\ndef check_all(found):\n    return {"database": "spoiled on purpose"}\n',
)
# check-config works in a process of its own; only what gunicorn runs is spoiled.
spoil = """

import sys
if "gunicorn" in sys.argv[0]:
    def check_all(found):
        return {"database": "spoiled on purpose"}
"""
release(made, "0.1.3", "bank/services/health.py", spoil)
