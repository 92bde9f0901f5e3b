"""Looks at a host without changing it: ports in use, room on disk, and whether a URL answers."""

from __future__ import annotations

import os
import re
from http.client import HTTPException
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.urls import open_url

DOCUMENTATION = r"""
module: preflight_probe
short_description: Look at a host before anything is changed on it
description:
  - Lists the listening TCP sockets with their owners, the size of the file systems below some paths,
    and whether a URL answers. Everything in one task, because preflight runs before every site run.
options:
  paths:
    description: Paths whose file systems are measured; a path that does not exist yet counts for its nearest parent.
    type: list
    elements: str
    default: []
  url:
    description: URL that must answer a HEAD request. Empty means that nothing is asked.
    type: str
    default: ""
  timeout:
    description: Seconds to wait for the URL.
    type: int
    default: 5
author: Bank platform team
"""

EXAMPLES = r"""
- name: Look at the host
  preflight_probe:
    paths: [/var]
    url: http://mirror.example.com/rpms/repodata/repomd.xml
"""

RETURN = r"""
listeners:
  description: Port, process, pid and systemd unit of each listening TCP socket.
  type: list
  returned: always
filesystems:
  description: For each path its device, mount point, size and free space in MiB.
  type: dict
  returned: always
url_error:
  description: Why the URL did not answer; empty if it did.
  type: str
  returned: always
uid:
  description: User id under which tasks run on the host.
  type: int
  returned: always
"""


def unit_in(text: str) -> str:
    """Return the systemd unit that the path of a control group names."""
    found = re.findall(r"([^/\s]+\.(?:service|socket|scope))", text)
    return found[-1] if found else ""


def unit_of(pid: str) -> str:
    """Return the systemd unit of a process."""
    try:
        return unit_in(Path("/proc", pid, "cgroup").read_text(encoding="ascii", errors="replace"))
    except OSError:
        # The process has ended since.
        return ""


def socket_units(module: AnsibleModule) -> dict[str, str]:
    """Return the socket unit of each port that systemd itself holds."""
    text = module.run_command(["systemctl", "list-sockets", "--no-legend", "--no-pager"])[1]
    return {line.split()[0].rpartition(":")[2]: line.split()[1] for line in text.splitlines() if len(line.split()) > 1}


def parse_listeners(module: AnsibleModule, text: str) -> list[dict[str, object]]:
    """Return the output of `ss -Hlntpe` as a list, one entry for each owner of a port.

    Where root may not trace the processes of other users, as in a container, no process is told; then the control group
    of the socket itself tells the unit.
    """
    sockets = socket_units(module) if ",pid=1," in text else {}
    found = {}
    for line in text.splitlines():
        fields = line.split(None, 5)
        if len(fields) < 5:
            continue
        port = fields[3].rpartition(":")[2]
        if not port.isdigit():
            continue
        details = fields[5] if len(fields) > 5 else ""
        group = re.search(r"\bcgroup:(/\S*)", details)
        for process, pid in re.findall(r'\("([^"]*)",pid=(\d+)', details) or [("", "")]:
            unit = sockets.get(port, "") if pid == "1" else unit_of(pid) if pid else unit_in(group[1] if group else "")
            entry = {"port": int(port), "process": process, "pid": pid, "unit": unit}
            found.setdefault((int(port), process, unit), entry)
    return [found[key] for key in sorted(found)]


def measure(wanted: str) -> dict[str, object]:
    """Return size and free space of the file system that holds a path, or will hold it."""
    path = Path(wanted)
    while not path.exists():
        path = path.parent
    device = path.stat().st_dev
    mount = path
    while mount != mount.parent and mount.parent.stat().st_dev == device:
        mount = mount.parent
    room = os.statvfs(path)
    return {
        "device": str(device),
        "mount": str(mount),
        "size_mb": room.f_blocks * room.f_frsize // 1048576,
        "free_mb": room.f_bavail * room.f_frsize // 1048576,
    }


def main() -> None:
    """Look, and hand back what was seen."""
    module = AnsibleModule(
        argument_spec={
            "paths": {"type": "list", "elements": "str", "default": []},
            "url": {"type": "str", "default": ""},
            "timeout": {"type": "int", "default": 5},
        },
        supports_check_mode=True,
    )
    listening = module.run_command(["ss", "-Hlntpe"], check_rc=True)[1]
    url_error = ""
    if module.params["url"]:
        try:
            open_url(module.params["url"], method="HEAD", timeout=module.params["timeout"]).close()
        except (OSError, ValueError, HTTPException) as error:
            url_error = str(error)
    module.exit_json(
        changed=False,
        listeners=parse_listeners(module, listening),
        filesystems={path: measure(path) for path in module.params["paths"]},
        url_error=url_error,
        uid=os.geteuid(),
    )


if __name__ == "__main__":
    main()
