"""The keystore: settings by name in one file that its mode alone protects, as Kibana's without a password."""

from __future__ import annotations

import base64
import json
import os
import sys
from pathlib import Path
from typing import Any

FILE = "kibana.keystore"
USAGE = "usage: kibana-keystore create|list|add KEY --stdin|remove KEY"


class KeystoreError(Exception):
    """The keystore cannot be used; the text says why."""


def directory() -> Path:
    """Return the folder of the configuration."""
    return Path(os.environ.get("KBN_PATH_CONF") or "/etc/kibana")


def read(folder: Path) -> dict[str, Any]:
    """Return the settings by name; none if there is no keystore.

    Raises:
        KeystoreError: It cannot be read.
    """
    file = folder / FILE
    if not file.exists():
        return {}
    try:
        version, _, content = file.read_text(encoding="ascii").partition(":")
        if version != "1":
            raise ValueError(version)
        return dict(json.loads(base64.b64decode(content)))
    except (OSError, ValueError) as error:
        raise KeystoreError(f"Unable to read Kibana keystore {file}: {error}") from error


def write(folder: Path, settings: dict[str, Any]) -> None:
    """Replace the keystore."""
    descriptor = os.open(folder / FILE, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o660)
    with os.fdopen(descriptor, "wb") as stream:
        stream.write(b"1:" + base64.b64encode(json.dumps(settings).encode()))


def value_of(text: str) -> Any:  # noqa: ANN401
    """Return a value as Kibana takes it from standard input: what is JSON becomes what it stands for."""
    try:
        return json.loads(text)
    except ValueError:
        return text


def main() -> None:
    """Run one command; a value to add comes by standard input."""
    words = [word for word in sys.argv[1:] if not word.startswith("-")]
    folder, command, keys = directory(), words[0] if words else "", words[1:]
    try:
        settings = read(folder)
        if command == "create":
            write(folder, {})
            print(f"Created Kibana keystore in {folder / FILE}")
        elif not (folder / FILE).exists():
            sys.exit("ERROR: Kibana keystore not found. Use 'create' command to create one.")
        elif command == "list":
            print("\n".join(sorted(settings)))
        elif command == "add" and keys and "--stdin" in sys.argv:
            write(folder, settings | {keys[0]: value_of(sys.stdin.read().rstrip("\n"))})
        elif command == "remove" and keys:
            settings.pop(keys[0], None)
            write(folder, settings)
        else:
            sys.exit(USAGE)
    except (KeystoreError, OSError) as error:
        sys.exit(f"ERROR: {error}")
