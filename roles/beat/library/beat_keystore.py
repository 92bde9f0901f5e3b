#!/usr/bin/python
"""Keep secrets in the keystore of a Beat."""

from __future__ import annotations

from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.keystores import Failed, keep

DOCUMENTATION = r"""
module: beat_keystore
short_description: Keep secrets in the keystore of a Beat
description:
  - The secrets are the whole content; one that left them is removed.
  - >-
    A Beat does not show what its keystore holds. A seal beside it, readable by root alone, holds a sum over the
    keystore and salted sums over the secrets, so that a second run changes nothing, and a change by hand is put right.
options:
  path:
    description: The keystore.
    type: path
    required: true
  program:
    description: The command of the Beat, which gets each secret by standard input.
    type: path
    required: true
  secrets:
    description: The secrets by their names.
    type: dict
    required: true
  owner:
    description: Account that the Beat runs as, which alone may read its keystore.
    type: str
    default: root
"""

EXAMPLES = r"""
- name: Keep the password in the keystore
  beat_keystore:
    path: /var/lib/filebeat/filebeat.keystore
    program: /usr/bin/filebeat
    secrets:
      ELASTICSEARCH_API_KEY: "{{ elasticsearch_key.api_key }}"
"""

RETURN = r"""
backup_file:
  description: Copy of the keystore before the change.
  returned: when there was one
  type: str
"""


def store(module: AnsibleModule, wanted: dict[str, str], folder: Path) -> None:
    """Make a new keystore of the secrets in a folder.

    Raises:
        Failed: the Beat refused.
    """
    program = Path(module.params["program"])
    # A configuration of its own, because the one in force may need a secret that is not there yet.
    configuration, candidate = folder / "beat.yml", folder / Path(module.params["path"]).name
    configuration.touch(mode=0o600)
    options = ["-c", str(configuration), "-E", f"keystore.path={candidate}"]
    commands: list[tuple[list[str], str | None]] = [(["create", "--force"], None)]
    commands += [(["add", name, "--stdin", "--force"], secret) for name, secret in wanted.items()]
    for words, secret in commands:
        code, output, errors = module.run_command(
            [str(program), "keystore", *words, *options], data=secret, binary_data=True
        )
        if code:
            raise Failed(f"{program.name} could not {words[0]} its keystore: {(errors or output).strip()}")


def main() -> None:
    """Run as an Ansible module."""
    module = AnsibleModule(
        argument_spec={
            "path": {"type": "path", "required": True},
            "program": {"type": "path", "required": True},
            "secrets": {"type": "dict", "required": True, "no_log": True},
            "owner": {"type": "str", "default": "root"},
        },
        supports_check_mode=True,
    )
    wanted = {name: str(secret) for name, secret in module.params["secrets"].items()}
    owner = module.params["owner"]
    try:
        result = keep(
            module,
            Path(module.params["path"]),
            wanted,
            lambda folder: store(module, wanted, folder),
            owner=owner,
            group=owner,
        )
    except (Failed, OSError) as error:
        module.fail_json(msg=str(error))
    module.exit_json(**result)


if __name__ == "__main__":
    main()
