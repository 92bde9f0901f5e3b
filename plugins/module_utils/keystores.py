"""Keystores of Elastic's products, which never show what they hold.

A seal beside the keystore, readable by root alone, holds a sum over it and salted sums over its secrets. So a second
run changes nothing, and a change by hand is put right.
"""

from __future__ import annotations

import grp
import hashlib
import hmac
import json
import os
import pwd
import secrets as randomness
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    from ansible.module_utils.basic import AnsibleModule

# Enough for random secrets that root alone can read the sums of.
ROUNDS = 50_000


class Failed(Exception):
    """The keystore cannot be kept; the text says why."""


def seal_of(path: Path) -> Path:
    """Return the seal of a keystore."""
    return Path(f"{path}.seal")


def sum_of(secret: str, salt: str) -> str:
    """Return a slow salted sum over a secret."""
    return hashlib.pbkdf2_hmac("sha256", secret.encode(), bytes.fromhex(salt), ROUNDS).hex()


def file_sum(path: Path) -> str:
    """Return a sum over a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def is_sealed(path: Path, wanted: dict[str, str]) -> bool:
    """Tell whether the keystore holds these secrets and nothing else."""
    try:
        known = json.loads(seal_of(path).read_text(encoding="utf-8"))
        return (
            known["keystore"] == file_sum(path)
            and set(known["secrets"]) == set(wanted)
            and all(
                hmac.compare_digest(known["secrets"][name], sum_of(secret, known["salt"]))
                for name, secret in wanted.items()
            )
        )
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return False


def write_seal(path: Path, wanted: dict[str, str]) -> None:
    """Write down what the keystore holds."""
    salt = randomness.token_hex(16)
    content = {
        "keystore": file_sum(path),
        "salt": salt,
        "secrets": {name: sum_of(secret, salt) for name, secret in wanted.items()},
    }
    seal = seal_of(path)
    descriptor = os.open(f"{seal}.new", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
        json.dump(content, stream)
    Path(f"{seal}.new").replace(seal)


def rights_are(path: Path, owner: int, group: int, mode: int) -> bool:
    """Tell whether a file belongs to these and has this mode."""
    state = path.stat()
    return (state.st_uid, state.st_gid, state.st_mode & 0o7777) == (owner, group, mode)


def keep(
    module: AnsibleModule,
    path: Path,
    wanted: dict[str, str],
    make: Callable[[Path], None],
    *,
    owner: str = "root",
    group: str = "root",
    mode: int = 0o600,
) -> dict[str, Any]:
    """Bring a keystore to the wanted content and rights; return what the module answers.

    ``make`` writes a new keystore of the same name into a folder beside the old one, which it replaces whole.

    Raises:
        Failed: the product's tool refused; the old keystore is in its place.
    """
    sealed = is_sealed(path, wanted)
    try:
        owner_id, group_id = pwd.getpwnam(owner).pw_uid, grp.getgrnam(group).gr_gid
    except KeyError as error:
        if not module.check_mode:
            raise Failed(f"The keystore {path} cannot be given to {owner}:{group}: {error}.") from error
        # The account comes with what check mode did not install.
        return {"changed": True}
    if sealed and rights_are(path, owner_id, group_id, mode):
        return {"changed": False}
    result: dict[str, Any] = {"changed": True, "dest": str(path), "owner": owner, "group": group, "mode": f"0{mode:o}"}
    if module.check_mode:
        return result
    if sealed:
        os.chown(path, owner_id, group_id)
        path.chmod(mode)
        return result
    if path.exists():
        result["backup_file"] = module.backup_local(str(path))
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        candidate = Path(folder) / path.name
        make(Path(folder))
        os.chown(candidate, owner_id, group_id)
        candidate.chmod(mode)
        candidate.replace(path)
    write_seal(path, wanted)
    return result
