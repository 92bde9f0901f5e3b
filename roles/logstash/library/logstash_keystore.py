#!/usr/bin/python
"""The keystore of Logstash: made anew whenever it does not hold exactly the wanted secrets."""

from __future__ import annotations

import os
import pwd
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.keystores import Failed, keep

DOCUMENTATION = r"""
module: logstash_keystore
short_description: Keep exactly these secrets in the keystore of Logstash
description:
  - >-
    The keystore does not show what it holds. A seal beside it, readable by root alone, holds a sum over the keystore
    and salted sums over the secrets and the keystore's password, so that a second run changes nothing, and a change by
    hand is put right.
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
      ELASTICSEARCH_API_KEY: "{{ elasticsearch_key.api_key }}"
"""

RETURN = r"""
backup_file:
  description: Copy of the keystore before the change.
  returned: when there was one
  type: str
"""

KEYSTORE = "logstash.keystore"
# Logstash's own name for the password of the keystore.
PASSWORD = "LOGSTASH_KEYSTORE_PASS"


def make(module: AnsibleModule, secrets: dict[str, str], folder: Path) -> None:
    """Make a new keystore of the secrets in a folder.

    Raises:
        Failed: Logstash's tool refused.
    """
    account = pwd.getpwnam(module.params["user"])
    os.chown(folder, account.pw_uid, account.pw_gid)
    if (Path(module.params["directory"]) / "logstash.yml").exists():
        # The tool reads the settings beside the keystore; these need no secret.
        (folder / "logstash.yml").touch()
    words = ["runuser", "--user", module.params["user"], "--", module.params["program"], "--path.settings", str(folder)]
    # Ansible ends each with a line break.
    steps = [(["create"], None), *((["add", key], value) for key, value in sorted(secrets.items()))]
    environment = {PASSWORD: module.params["password"], "LC_ALL": "C.UTF-8"}
    for step, data in steps:
        code, output, errors = module.run_command([*words, *step], data=data, environ_update=environment, cwd="/")
        if code:
            reason = (errors or output).strip()
            raise Failed(f"Logstash's keystore could not be made ({step[0]}): {reason}. The old one is in place.")


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
    secrets = {name: str(secret) for name, secret in module.params["secrets"].items()}
    try:
        result = keep(
            module,
            Path(module.params["directory"]) / KEYSTORE,
            {**secrets, PASSWORD: module.params["password"]},
            lambda folder: make(module, secrets, folder),
            group=module.params["user"],
            mode=0o640,
        )
    except (Failed, OSError) as error:
        module.fail_json(msg=str(error))
    module.exit_json(**result)


if __name__ == "__main__":
    main()
