#!/usr/bin/python
"""What one host knows about its Elasticsearch node, running or not; nothing is changed."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.rest_api import ACCESS, ApiError, api_of

DOCUMENTATION = r"""
module: elasticsearch_survey
short_description: Look at the Elasticsearch node of a host
description:
  - Reads the version of the installed program, the settings that the role wrote, to which cluster the data belongs, and
    what the node says about itself if it answers.
  - A host without any of them gets an empty answer, never an error.
options:
  host:
    description: Name of the host, given back in the answer.
    type: str
    required: true
  home:
    description: Folder of the program.
    type: path
    default: /usr/share/elasticsearch
  configuration:
    description: Folder of the configuration.
    type: path
    default: /etc/elasticsearch
  data:
    description: Folder of the data.
    type: path
    required: true
  unit:
    description: Unit of systemd.
    type: str
    default: elasticsearch.service
extends_documentation_fragment: rest_access
attributes:
  check_mode:
    support: full
author:
  - Bank platform team
"""

EXAMPLES = r"""
- name: Look at the node
  elasticsearch_survey:
    host: es1
    data: /var/lib/elasticsearch
    access:
      urls: ["https://es1.example.com:{{ elasticsearch_http_port }}"]
      ca_path: /etc/elasticsearch/certs/ca.crt
      user: elastic
      password: "{{ elasticsearch_elastic_password }}"
  register: survey
"""

RETURN = r"""
host:
  description: Name of the host.
  returned: always
  type: str
installed:
  description: Version of the installed program; empty without one.
  returned: always
  type: str
settings:
  description: Settings in the file of the role, by name.
  returned: always
  type: dict
data_cluster:
  description: UUID of the cluster that the data belongs to; empty without data, or before its first cluster.
  returned: always
  type: str
data_version:
  description: Version of Elasticsearch that wrote the data; empty without data.
  returned: always
  type: str
max_map_count:
  description: The kernel's vm.max_map_count.
  returned: always
  type: int
active:
  description: Whether the unit runs.
  returned: always
  type: bool
login:
  description: What the node said to the user and password; C(ok), C(refused), or C(unknown) if it does not answer.
  returned: always
  type: str
elected:
  description: Whether the node is the elected master.
  returned: always
  type: bool
"""

JAR = re.compile(r"elasticsearch-(\d+\.\d+\.\d+)(?:-[A-Za-z0-9.]+)?\.jar$")
# So often is a refused log-in tried, a second apart.
REFUSALS = 5
ANSWER_SECONDS = 5
UNKNOWN_CLUSTER = "_na_"


def installed(home: Path) -> str:
    """Return the version of the program on disk, which the next start runs."""
    found = [match.group(1) for path in (home / "lib").glob("elasticsearch-*.jar") if (match := JAR.match(path.name))]
    return found[0] if len(found) == 1 else ""


def settings(configuration: Path) -> dict[str, Any]:
    """Return the settings that the role wrote, one a line as JSON; other lines are not ours."""
    found = {}
    try:
        lines = (configuration / "elasticsearch.yml").read_text(encoding="utf-8", errors="replace").splitlines()
    except FileNotFoundError:
        return {}
    for line in lines:
        name, separator, value = line.partition(": ")
        if separator and not line.startswith(("#", " ")):
            try:
                found[name] = json.loads(value)
            except ValueError:
                continue
    return found


def commit_value(content: bytes, name: str) -> str:
    """Return a value of the user data of a Lucene commit: names and values each follow their length in one byte."""
    key = bytes([len(name)]) + name.encode()
    at = content.find(key)
    if at < 0:
        return ""
    at += len(key)
    return content[at + 1 : at + 1 + content[at]].decode("utf-8", "replace")


def version_of(number: str) -> str:
    """Return a version from its number, such as 8190899."""
    value = int(number) if number.isdigit() else 0
    return f"{value // 1000000}.{value // 10000 % 100}.{value // 100 % 100}" if value else ""


def data(folder: Path) -> tuple[str, str]:
    """Return cluster and version of the data, from the last commit of the node's own index."""
    commits = sorted(folder.glob("_state/segments_*"), key=lambda path: int(path.name.rpartition("_")[2], 36))
    if not commits:
        return "", ""
    content = commits[-1].read_bytes()
    cluster = commit_value(content, "cluster_uuid")
    return "" if cluster == UNKNOWN_CLUSTER else cluster, version_of(commit_value(content, "node_version"))


def ask(params: dict[str, Any]) -> dict[str, Any]:
    """Return what a running node says."""
    unknown = {"login": "unknown", "elected": False}
    if not Path(params["access"]["ca_path"]).exists():
        return unknown
    api = api_of(params)
    # A node that has just started refuses everybody until it has read the index of users.
    for _ in range(REFUSALS):
        try:
            api.ask("GET", "/_security/_authenticate", timeout=ANSWER_SECONDS)
            break
        except ApiError as error:
            if error.status != 401:
                return unknown
            time.sleep(1)
    else:
        return {**unknown, "login": "refused"}
    try:
        found = api.ask("GET", "/_nodes/_local?filter_path=nodes.*.name", timeout=ANSWER_SECONDS)
        own = next(iter(found["nodes"]))
        path = "/_cluster/state/master_node?filter_path=master_node"
        master = api.ask("GET", path, timeout=ANSWER_SECONDS).get("master_node")
    except (ApiError, KeyError, StopIteration):
        return {"login": "ok", "elected": False}
    return {"login": "ok", "elected": own == master}


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "access": ACCESS,
            "host": {"type": "str", "required": True},
            "home": {"type": "path", "default": "/usr/share/elasticsearch"},
            "configuration": {"type": "path", "default": "/etc/elasticsearch"},
            "data": {"type": "path", "required": True},
            "unit": {"type": "str", "default": "elasticsearch.service"},
        },
        supports_check_mode=True,
    )
    params = module.params
    cluster, version = data(Path(params["data"]))
    active = module.run_command(["systemctl", "is-active", "--quiet", params["unit"]])[0] == 0
    maps = Path("/proc/sys/vm/max_map_count").read_text(encoding="ascii")
    module.exit_json(
        changed=False,
        host=params["host"],
        installed=installed(Path(params["home"])),
        settings=settings(Path(params["configuration"])),
        data_cluster=cluster,
        data_version=version,
        max_map_count=int(maps),
        active=active,
        **(ask(params) if active else {"login": "unknown", "elected": False}),
    )


if __name__ == "__main__":
    main()
