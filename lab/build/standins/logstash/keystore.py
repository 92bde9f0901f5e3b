"""The keystore: secrets by name in one file, sealed with the password of the environment."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import sys
from pathlib import Path

from cryptography.fernet import Fernet, InvalidToken

FILE = "logstash.keystore"
ITERATIONS = 100_000
USAGE = "usage: logstash-keystore --path.settings DIRECTORY create|list|add KEY|remove KEY"


class KeystoreError(Exception):
    """The keystore cannot be used; the text says why."""


def _cipher(salt: bytes) -> Fernet:
    password = os.environ.get("LOGSTASH_KEYSTORE_PASS", "").encode()
    return Fernet(base64.urlsafe_b64encode(hashlib.pbkdf2_hmac("sha256", password, salt, ITERATIONS)))


def read(directory: Path) -> dict[str, str]:
    """Return the secrets by name; none if there is no keystore.

    Raises:
        KeystoreError: It cannot be read, or the password is wrong.
    """
    file = directory / FILE
    if not file.exists():
        return {}
    try:
        salt, _, sealed = file.read_bytes().partition(b"\n")
        content = _cipher(base64.b64decode(salt)).decrypt(sealed)
    except (OSError, ValueError, InvalidToken) as error:
        raise KeystoreError(
            f"Can not access Logstash keystore at {file}. Please verify correct file permissions and keystore password."
        ) from error
    return dict(json.loads(content))


def write(directory: Path, secrets: dict[str, str]) -> None:
    """Replace the keystore."""
    salt = os.urandom(16)
    sealed = _cipher(salt).encrypt(json.dumps(secrets).encode())
    descriptor = os.open(directory / FILE, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as stream:
        stream.write(base64.b64encode(salt) + b"\n" + sealed)


def main() -> None:
    """Run one command; a value to add comes by standard input."""
    words = sys.argv[1:]
    if len(words) < 3 or words[0] != "--path.settings":
        sys.exit(USAGE)
    directory, command, keys = Path(words[1]), words[2], words[3:]
    try:
        secrets = read(directory)
        if command == "create":
            write(directory, {})
            print(f"Created Logstash keystore at {directory / FILE}")
        elif not (directory / FILE).exists():
            sys.exit(f"ERROR: Logstash keystore not found at {directory / FILE}. Use 'create' command to create one.")
        elif command == "list":
            print("\n".join(sorted(secrets)))
        elif command == "add" and keys:
            value = sys.stdin.readline().rstrip("\n")
            if not value:
                sys.exit("ERROR: Value cannot be empty")
            if not value.isascii():
                sys.exit("ERROR: Value must contain only ASCII characters")
            write(directory, secrets | {keys[0].lower(): value})
            print(f"Added '{keys[0].lower()}' to the Logstash keystore.")
        elif command == "remove" and keys:
            secrets.pop(keys[0].lower(), None)
            write(directory, secrets)
        else:
            sys.exit(USAGE)
    except (KeystoreError, OSError) as error:
        sys.exit(f"ERROR: {error}")
