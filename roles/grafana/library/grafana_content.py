#!/usr/bin/python
"""Proves that Grafana serves exactly the declared data sources and dashboards."""

from __future__ import annotations

import json
import os
import tempfile
import time
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.rest_api import ACCESS, ApiError, api_of

DOCUMENTATION = r"""
module: grafana_content
short_description: Prove that Grafana serves the declared data sources and dashboards, and no others
description:
  - Grafana reads both from files. Releases before 11.1 keep data sources whose files are gone, so they are removed
    here, by a file that lasts as long as that takes.
  - Makes Grafana read the folder of dashboards at once, and waits until it serves what is in it.
options:
  data_sources:
    description: The uid of every data source of the platform.
    type: list
    elements: str
    required: true
  provisioning_directory:
    description: Folder of the files with data sources.
    type: path
    required: true
  dashboards:
    description: The uid of every dashboard of the platform.
    type: list
    elements: str
    required: true
  folder:
    description: Title of the folder that holds them in Grafana.
    type: str
    required: true
  reload:
    description: Whether files of dashboards have changed since Grafana read them.
    type: bool
    default: false
  seconds:
    description: How long to wait.
    type: int
    default: 60
extends_documentation_fragment: rest_access
attributes:
  check_mode:
    support: full
  diff_mode:
    support: full
author:
  - Bank platform team
"""

EXAMPLES = r"""
- name: Prove that the dashboards are there
  grafana_content:
    data_sources: [prometheus]
    provisioning_directory: /etc/grafana/provisioning/datasources
    dashboards: [overview]
    folder: Platform
    access:
      urls: ["https://grafana1.example.com:{{ grafana_port }}"]
      ca_path: /etc/pki/bank/grafana/ca.crt
      user: platform_admin
      password: "{{ grafana_admin_password }}"
"""

RETURN = r""" # """

PAUSE = 1
LIMIT = 1000
READABLE = 0o640


class Content:
    """What Grafana serves of the platform."""

    def __init__(self, module: AnsibleModule) -> None:
        """Take everything from the arguments."""
        self.module, self.params = module, module.params
        self.api = api_of(module.params)

    def stale_data_sources(self) -> list[str]:
        """Return the names of data sources that a file brought which no longer does."""
        declared = set(self.params["data_sources"])
        found = self.api.ask("GET", "/api/datasources")
        return sorted(source["name"] for source in found if source["readOnly"] and source["uid"] not in declared)

    def remove_data_sources(self, names: list[str]) -> None:
        """Remove data sources in the one way that Grafana allows for those of files."""
        document = {"apiVersion": 1, "deleteDatasources": [{"name": name, "orgId": 1} for name in names]}
        folder = Path(self.params["provisioning_directory"])
        handle, path = tempfile.mkstemp(dir=folder, prefix="removal-", suffix=".yml")
        with os.fdopen(handle, "w", encoding="utf-8") as stream:
            # Every document of JSON is one of YAML.
            json.dump(document, stream)
            os.fchmod(stream.fileno(), READABLE)
            os.fchown(stream.fileno(), 0, folder.stat().st_gid)
        try:
            self.api.ask("POST", "/api/admin/provisioning/datasources/reload")
        finally:
            Path(path).unlink()

    def served_dashboards(self) -> set[str]:
        """Return the uid of every dashboard in the platform's folder."""
        found = self.api.ask("GET", f"/api/search?type=dash-db&limit={LIMIT}")
        return {entry["uid"] for entry in found if entry.get("folderTitle") == self.params["folder"]}

    def problem(self) -> str:
        """Return what Grafana does not serve as declared, or nothing."""
        declared, served = set(self.params["dashboards"]), self.served_dashboards()
        if missing := sorted(declared - served):
            return f"Grafana does not serve the dashboards {', '.join(missing)}"
        if left := sorted(served - declared):
            return f"Grafana still serves the dashboards {', '.join(left)}, which left the repository"
        known = {source["uid"] for source in self.api.ask("GET", "/api/datasources")}
        if missing := sorted(set(self.params["data_sources"]) - known):
            return f"Grafana does not know the data sources {', '.join(missing)}"
        return ""


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "access": ACCESS,
            "data_sources": {"type": "list", "elements": "str", "required": True},
            "provisioning_directory": {"type": "path", "required": True},
            "dashboards": {"type": "list", "elements": "str", "required": True},
            "folder": {"type": "str", "required": True},
            "reload": {"type": "bool", "default": False},
            "seconds": {"type": "int", "default": 60},
        },
        supports_check_mode=True,
    )
    content = Content(module)
    try:
        stale = content.stale_data_sources()
        if module.check_mode:
            module.exit_json(changed=bool(stale))
        if stale:
            content.remove_data_sources(stale)
        if module.params["reload"]:
            content.api.ask("POST", "/api/admin/provisioning/dashboards/reload")
        deadline = time.monotonic() + module.params["seconds"]
        while problem := content.problem():
            if time.monotonic() > deadline:
                module.fail_json(msg=f"{problem}: the service's last messages say why.")
            time.sleep(PAUSE)
    except ApiError as error:
        module.fail_json(msg=f"Grafana could not be asked for its content: {error}.")
    before = "".join(f"{name}\n" for name in stale)
    module.exit_json(changed=bool(stale), diff={"before_header": "data sources", "before": before, "after": ""})


if __name__ == "__main__":
    main()
