#!/usr/bin/python
"""Waits until Kibana serves, and says why it does not."""

from __future__ import annotations

import time
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.rest_api import ACCESS, Api, ApiError, api_of

DOCUMENTATION = r"""
module: kibana_status
short_description: Wait until Kibana serves
description:
  - Asks for the state as a user, who alone is told the version. Ends early where the service ends again and again.
options:
  version:
    description: Release that must answer.
    type: str
    required: true
  unit:
    description: Unit of systemd.
    type: str
    default: kibana.service
  seconds:
    description: How long to wait.
    type: int
    default: 600
extends_documentation_fragment: rest_access
attributes:
  check_mode:
    support: none
author:
  - Bank platform team
"""

EXAMPLES = r"""
- name: Wait for Kibana
  kibana_status:
    version: 8.19.8
    access:
      urls: ["https://kibana1.example.com:{{ kibana_port }}"]
      ca_path: /etc/pki/bank/kibana/ca.crt
      user: kibana_setup
      password: "{{ kibana_setup_password }}"
"""

RETURN = r""" # """

PAUSE = 1
# A service that has ended as often as that since this module looked first does not come up by waiting.
ENDS = 3


def problem_with(api: Api, version: str) -> str:
    """Return why Kibana does not serve yet, or nothing."""
    try:
        answer: dict[str, Any] = api.ask("GET", "/api/status")
    except ApiError as error:
        return str(error)
    found = answer.get("version", {}).get("number")
    overall = answer.get("status", {}).get("overall", {})
    if found is None:
        return f"Kibana does not accept the user {api.user}: check the user and its password in Elasticsearch"
    if found != version:
        return f"Kibana {found} answers instead of {version}"
    if overall.get("level") not in ("available", "degraded"):
        return f"Kibana calls itself {overall.get('level')}: {overall.get('summary')}"
    return ""


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "access": ACCESS,
            "version": {"type": "str", "required": True},
            "unit": {"type": "str", "default": "kibana.service"},
            "seconds": {"type": "int", "default": 600},
        },
    )
    api = api_of(module.params)

    def ends() -> int:
        _, output, _ = module.run_command(
            ["systemctl", "show", "--value", "--property=NRestarts", module.params["unit"]]
        )
        return int(output.strip() or 0)

    before, deadline = ends(), time.monotonic() + module.params["seconds"]
    while problem := problem_with(api, module.params["version"]):
        if ends() - before >= ENDS:
            module.fail_json(msg="The service ends again and again; its last messages say why.")
        if time.monotonic() > deadline:
            module.fail_json(msg=f"Kibana does not serve after {module.params['seconds']} s: {problem}.")
        time.sleep(PAUSE)
    module.exit_json(changed=False)


if __name__ == "__main__":
    main()
