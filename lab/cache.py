"""Builds kept by the content of what they are made from, with checksums that notice damage."""

import fcntl
import hashlib
import json
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from lab.settings import CACHE

CHECKSUMS = "checksums.json"


def digest_of(paths: Iterable[Path], *words: str) -> str:
    """Return a short digest over the words and over every file at or below the paths."""
    total = hashlib.sha256("\0".join(words).encode())
    for path in paths:
        files = [path] if path.is_file() else sorted(path.rglob("*"))
        for file in files:
            if file.is_file() and "__pycache__" not in file.parts:
                total.update(f"{file.relative_to(path.parent)}\0".encode())
                total.update(file.read_bytes())
    return total.hexdigest()[:16]


def checksums(directory: Path) -> dict[str, str]:
    """Return the SHA-256 of every file below ``directory``, by its relative path."""
    sums = {}
    for file in sorted(directory.rglob("*")):
        if file.is_file() and file != directory / CHECKSUMS:
            with file.open("rb") as stream:
                sums[str(file.relative_to(directory))] = hashlib.file_digest(stream, "sha256").hexdigest()
    return sums


@contextmanager
def locked(name: str) -> Iterator[None]:
    """Hold the lock of one build, so that two runs at the same time do not make it twice."""
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def cached(name: str, digest: str, build: Callable[[Path], None]) -> tuple[Path, bool]:
    """Return the folder of a build and whether it had to be made.

    A folder whose files do not match their checksums is thrown away and built again.
    Folders of older content are removed once the new one is whole.
    """
    with locked(name):
        directory = CACHE / name / digest
        listing = directory / CHECKSUMS
        if listing.exists() and json.loads(listing.read_text(encoding="utf-8")) == checksums(directory):
            return directory, False
        shutil.rmtree(directory, ignore_errors=True)
        directory.mkdir(parents=True)
        build(directory)
        listing.write_text(json.dumps(checksums(directory), indent=1), encoding="utf-8")
        for other in directory.parent.iterdir():
            if other != directory:
                shutil.rmtree(other, ignore_errors=True)
        return directory, True
