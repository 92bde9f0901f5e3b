"""Runs the bank's database migrations as the owner of the database."""

from __future__ import annotations

from ansible.module_utils.basic import AnsibleModule

DOCUMENTATION = r"""
module: bank_app_migrate
short_description: Bring the bank's database schema to that of a release
description:
  - Runs C(bank migrate) with the credentials of the database's owner, which are not stored on the host.
  - They reach the command by its environment, set here, because the environment of a task is part of the command
    line that starts the task and every user of the host can read that.
options:
  program:
    description: The C(bank) command of the release.
    type: path
    required: true
  config:
    description: Configuration to run it with.
    type: path
    required: true
  user:
    description: Owner of the database.
    type: str
    required: true
  password:
    description: The owner's password.
    type: str
    required: true
  group:
    description: Group that may read the configuration.
    type: str
    default: bank
author: Bank platform team
"""

EXAMPLES = r"""
- name: Bring the schema up to date
  bank_app_migrate:
    program: /opt/bank/releases/1.4.0/bin/bank
    config: /etc/bank/staged/bank.toml
    user: bank_owner
    password: "{{ vault_bank_database_owner_password }}"
"""

RETURN = r"""
message:
  description: What the command said.
  type: str
  returned: always
"""


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "program": {"type": "path", "required": True},
            "config": {"type": "path", "required": True},
            "user": {"type": "str", "required": True},
            "password": {"type": "str", "required": True, "no_log": True},
            "group": {"type": "str", "default": "bank"},
        },
    )
    options = module.params
    # Not as the bank's own user: its processes could read the owner's password from the environment.
    identity = ["setpriv", "--reuid=nobody", f"--regid={options['group']}", "--clear-groups", "--no-new-privs"]
    environment = {
        "BANK_CONFIG": options["config"],
        "BANK_DATABASE__USER": options["user"],
        "BANK_DATABASE__PASSWORD": options["password"],
        "BANK_DATABASE__POOL_SIZE": "1",
        "BANK_LOGGING__PATH": "",
        "HOME": "/",
    }
    command = [*identity, options["program"], "migrate"]
    code, out, error = module.run_command(command, environ_update=environment, cwd="/")
    message = (out.strip() or error.strip()) if code == 0 else (error.strip() or out.strip())
    if code:
        module.fail_json(
            msg=message[-2000:] or f"{options['program']} migrate ended with {code}", message=message[-2000:]
        )
    module.exit_json(changed="nothing to do" not in message, message=message)


if __name__ == "__main__":
    main()
