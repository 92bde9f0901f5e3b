#!/usr/bin/python
"""Keep secrets in the keystore of Filebeat."""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import secrets
import tempfile
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule

DOCUMENTATION = r"""
module: filebeat_keystore
short_description: Keep secrets in the keystore of Filebeat
description:
  - The secrets are the whole content; one that left them is removed.
  - >-
    Filebeat does not show what its keystore holds. A seal beside it, readable by root alone, holds a sum over the
    keystore and salted sums over the secrets, so that a second run changes nothing, and a change by hand is put right.
options:
  path:
    description: The keystore.
    type: path
    required: true
  program:
    description: The command of Filebeat, which gets each secret by standard input.
    type: path
    required: true
  secrets:
    description: The secrets by their names.
    type: dict
    required: true
"""

EXAMPLES = r"""
- name: Keep the password in the keystore
  filebeat_keystore:
    path: /var/lib/filebeat/filebeat.keystore
    program: /usr/bin/filebeat
    secrets:
      ELASTICSEARCH_PASSWORD: "{{ vault_filebeat_elasticsearch_password }}"
"""

RETURN = r"""
backup_file:
  description: Copy of the keystore before the change.
  returned: when there was one
  type: str
"""

# Enough for random secrets that root alone can read the sums of.
ROUNDS = 50_000


class Failed(Exception):
    """The keystore cannot be kept; the text says why."""


def sum_of(secret: str, salt: str) -> str:
    """Return a slow salted sum over a secret."""
    return hashlib.pbkdf2_hmac("sha256", secret.encode(), bytes.fromhex(salt), ROUNDS).hex()


def file_sum(path: Path) -> str:
    """Return a sum over a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def sealed(path: Path, seal: Path, wanted: dict[str, str]) -> bool:
    """Tell whether the keystore holds these secrets and nothing else."""
    try:
        known = json.loads(seal.read_text(encoding="utf-8"))
        return (
            path.exists()
            and known["keystore"] == file_sum(path)
            and set(known["secrets"]) == set(wanted)
            and all(
                hmac.compare_digest(known["secrets"][name], sum_of(secret, known["salt"]))
                for name, secret in wanted.items()
            )
        )
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return False


def write_seal(path: Path, seal: Path, wanted: dict[str, str]) -> None:
    """Write down what the keystore holds."""
    salt = secrets.token_hex(16)
    content = {
        "keystore": file_sum(path),
        "salt": salt,
        "secrets": {name: sum_of(secret, salt) for name, secret in wanted.items()},
    }
    descriptor = os.open(f"{seal}.new", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
        json.dump(content, stream)
    Path(f"{seal}.new").replace(seal)


def store(module: AnsibleModule, path: Path, wanted: dict[str, str]) -> None:
    """Make a new keystore of the secrets and put it in the place of the old one.

    Raises:
        Failed: Filebeat refused.
    """
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        # A configuration of its own, because the one in force may need a secret that is not there yet.
        configuration, candidate = Path(folder) / "filebeat.yml", Path(folder) / path.name
        configuration.touch(mode=0o600)
        options = ["-c", str(configuration), "-E", f"keystore.path={candidate}"]
        commands: list[tuple[list[str], str | None]] = [(["create", "--force"], None)]
        commands += [(["add", name, "--stdin", "--force"], secret) for name, secret in wanted.items()]
        for words, secret in commands:
            code, output, errors = module.run_command(
                [module.params["program"], "keystore", *words, *options], data=secret, binary_data=True
            )
            if code:
                raise Failed(f"Filebeat could not {words[0]} its keystore: {(errors or output).strip()}")
        # Filebeat starts with no keystore that others may read.
        candidate.chmod(0o600)
        candidate.replace(path)


def run(module: AnsibleModule) -> dict[str, Any]:
    """Bring the keystore to the wanted content."""
    path = Path(module.params["path"])
    seal = Path(f"{path}.seal")
    wanted = {name: str(secret) for name, secret in module.params["secrets"].items()}
    if sealed(path, seal, wanted):
        return {"changed": False}
    result: dict[str, Any] = {"changed": True, "dest": str(path), "owner": "root", "group": "root", "mode": "0600"}
    if module.check_mode:
        return result
    if path.exists():
        result["backup_file"] = module.backup_local(str(path))
    store(module, path, wanted)
    write_seal(path, seal, wanted)
    return result


def main() -> None:
    """Run as an Ansible module."""
    module = AnsibleModule(
        argument_spec={
            "path": {"type": "path", "required": True},
            "program": {"type": "path", "required": True},
            "secrets": {"type": "dict", "required": True, "no_log": True},
        },
        supports_check_mode=True,
    )
    try:
        module.exit_json(**run(module))
    except (Failed, OSError) as error:
        module.fail_json(msg=str(error))


if __name__ == "__main__":
    main()
