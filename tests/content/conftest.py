"""What the content tests look at: the repository as git would hand it out."""

from __future__ import annotations

import subprocess
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml

# Whatever YAML can hold.
Value = Any
PROJECT = Path(__file__).parents[2]
ROLES = sorted(path.name for path in (PROJECT / "roles").iterdir() if path.is_dir())
PLAYBOOKS = sorted(path.relative_to(PROJECT) for path in [*PROJECT.glob("site.yml"), *PROJECT.glob("playbooks/*.yml")])
INVENTORIES = sorted(
    path.relative_to(PROJECT)
    for top in ("inventories", "tests/inventories")
    for path in (PROJECT / top).iterdir()
    if path.is_dir()
)


class Loader(yaml.SafeLoader):
    """Reads Ansible's own tags as plain values."""


Loader.add_constructor("!unsafe", lambda loader, node: loader.construct_scalar(node))
Loader.add_constructor("!vault", lambda loader, node: loader.construct_scalar(node))


def read_yaml(path: Path) -> Value:
    """Return what a YAML file holds."""
    with path.open(encoding="utf-8") as handle:
        return yaml.load(handle, Loader=Loader)


@lru_cache(maxsize=1)
def repository() -> list[Path]:
    """Return the files that are tracked, or would be: a new file is checked before its first commit."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    names = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, check=True).stdout.split("\0")
    return [
        PROJECT / name for name in names if name and (PROJECT / name).is_file() and not (PROJECT / name).is_symlink()
    ]


def text_files(*tops: str) -> list[tuple[Path, str]]:
    """Return the text files below some folders, with their contents."""
    found = []
    for path in repository():
        if not tops or str(path.relative_to(PROJECT)).startswith(tops):
            try:
                found.append((path, path.read_text(encoding="utf-8")))
            except UnicodeDecodeError:
                continue
    return found


def tasks_of(document: Value) -> list[dict[str, Any]]:
    """Return every task of a task file or playbook, blocks opened."""
    found: list[dict[str, Any]] = []
    for item in document or []:
        found.append(item)
        for key in ("block", "rescue", "always", "tasks", "pre_tasks", "post_tasks", "handlers"):
            found += tasks_of(item.get(key))
    return found
