"""The release before this one, taken from the repository's history: the last commit whose version is another."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

VERSION_FILE = "app/src/bank/__init__.py"
REPOSITORY = Path(__file__).parents[2]


class HistoryError(Exception):
    """The release cannot be found; the text says why and what helps."""


def _git(repository: Path, *arguments: str) -> bytes:
    try:
        done = subprocess.run(["git", "-C", repository, *arguments], capture_output=True, check=False)
    except FileNotFoundError:
        raise HistoryError("git is not installed") from None
    if done.returncode:
        raise HistoryError(f"git {arguments[0]} failed: {done.stderr.decode().strip()}")
    return done.stdout


def _version(source: str) -> str:
    found = re.search(r'^__version__ = "([^"]+)"$', source, re.MULTILINE)
    return found[1] if found else ""


def find(repository: Path = REPOSITORY) -> tuple[str, str]:
    """Return the version and the commit of the release before the one in the work tree.

    Raises:
        HistoryError: There is no history, not enough of it, or no earlier release in it.
    """
    if _git(repository, "rev-parse", "--is-shallow-repository").strip() == b"true":
        raise HistoryError("this clone is shallow; get the rest with: git fetch --unshallow")
    today = _version((repository / VERSION_FILE).read_text())
    last = "HEAD"
    for commit in _git(repository, "log", "--format=%H", "--", VERSION_FILE).decode().split():
        version = _version(_git(repository, "show", f"{commit}:{VERSION_FILE}").decode())
        if version != today:
            return version, _git(repository, "rev-parse", last).decode().strip()
        last = f"{commit}^"
    raise HistoryError(f"the history holds no other version than {today}")


def unpack(commit: str, folder: Path, repository: Path = REPOSITORY) -> Path:
    """Write the repository as it was at a commit; return the application's folder."""
    folder.mkdir(parents=True)
    archive = folder / "release.tar"
    _git(repository, "archive", "--format=tar", f"--output={archive}", commit)
    shutil.unpack_archive(archive, folder)
    return folder / "app"
