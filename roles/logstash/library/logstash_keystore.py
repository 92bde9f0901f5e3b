#!/usr/bin/python
"""The keystore of Logstash: made anew whenever it does not hold exactly the wanted secrets."""

from __future__ import annotations

import hashlib
import json
import os
import pwd
import shutil
import tempfile
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule

DOCUMENTATION = r"""
module: logstash_keystore
short_description: Keep exactly these secrets in the keystore of Logstash
description:
  - The keystore does not show what it holds. A salted sum beside it tells whether it was made from the wanted secrets.
  - A new keystore is made beside the old one and replaces it whole.
  - Passwords and secrets reach Logstash's tool by its environment and standard input, never as arguments.
options:
  directory:
    description: Folder of the settings, which holds the keystore.
    type: path
    default: /etc/logstash
  program:
    description: Logstash's tool for keystores.
    type: path
    default: /usr/share/logstash/bin/logstash-keystore
  user:
    description: User as which the service runs.
    type: str
    default: logstash
  password:
    description: Seals the keystore.
    type: str
    required: true
  secrets:
    description: Every secret by its name.
    type: dict
    required: true
attributes:
  check_mode:
    support: full
author:
  - Bank platform team
"""

EXAMPLES = r"""
- name: Keep the secrets
  logstash_keystore:
    password: "{{ logstash_keystore_password }}"
    secrets:
      ELASTICSEARCH_PASSWORD: "{{ logstash_elasticsearch_password }}"
"""

RETURN = r""" # """

KEYSTORE = "logstash.keystore"
SUM = "logstash.keystore.sum"
SALT_BYTES = 16
ITERATIONS = 100_000


def sum_of(salt: bytes, password: str, secrets: dict[str, Any]) -> str:
    """Return the line that stands for a keystore of these secrets."""
    text = json.dumps([password, secrets], sort_keys=True).encode()
    return f"{salt.hex()} {hashlib.pbkdf2_hmac('sha256', text, salt, ITERATIONS).hex()}\n"


def is_current(directory: Path, password: str, secrets: dict[str, Any]) -> bool:
    """Return whether the keystore was made from these secrets."""
    try:
        line = (directory / SUM).read_text(encoding="ascii")
        salt = bytes.fromhex(line.split()[0])
    except (OSError, ValueError, IndexError):
        return False
    return (directory / KEYSTORE).exists() and line == sum_of(salt, password, secrets)


def place(source: Path, target: Path, mode: int, group: int) -> None:
    """Move a file into its place with its rights."""
    os.chown(source, 0, group)
    source.chmod(mode)
    # Beside the target first: the folders may lie on different file systems.
    beside = target.with_name(f".{target.name}.new")
    shutil.copy2(source, beside)
    os.chown(beside, 0, group)
    beside.replace(target)


def make(module: AnsibleModule) -> None:
    """Make the keystore and put it into its place."""
    directory, user = Path(module.params["directory"]), module.params["user"]
    password, secrets = module.params["password"], module.params["secrets"]
    account = pwd.getpwnam(user)
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        os.chown(work, account.pw_uid, account.pw_gid)
        if (directory / "logstash.yml").exists():
            # The tool reads the settings beside the keystore; these need no secret.
            (work / "logstash.yml").write_text("", encoding="utf-8")
        command = ["runuser", "--user", user, "--", module.params["program"], "--path.settings", name]
        steps = [(["create"], None), *((["add", key], f"{value}\n") for key, value in sorted(secrets.items()))]
        environment = {"LOGSTASH_KEYSTORE_PASS": password, "LC_ALL": "C.UTF-8"}
        for words, data in steps:
            arguments = [*command, *words]
            code, output, errors = module.run_command(arguments, data=data, environ_update=environment, cwd="/")
            if code:
                reason = (errors or output).strip()
                module.fail_json(
                    msg=f"Logstash's keystore could not be made ({words[0]}): {reason}. The old one is in place."
                )
        place(work / KEYSTORE, directory / KEYSTORE, 0o640, account.pw_gid)
        (work / SUM).write_text(sum_of(os.urandom(SALT_BYTES), password, secrets), encoding="ascii")
        place(work / SUM, directory / SUM, 0o600, 0)


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "directory": {"type": "path", "default": "/etc/logstash"},
            "program": {"type": "path", "default": "/usr/share/logstash/bin/logstash-keystore"},
            "user": {"type": "str", "default": "logstash"},
            "password": {"type": "str", "required": True, "no_log": True},
            "secrets": {"type": "dict", "required": True, "no_log": True},
        },
        supports_check_mode=True,
    )
    directory = Path(module.params["directory"])
    current = is_current(directory, module.params["password"], module.params["secrets"])
    if not current and not module.check_mode:
        make(module)
    module.exit_json(changed=not current)


if __name__ == "__main__":
    main()
