"""Looks at a host without changing it: ports in use, room on disk, and whether a URL answers."""

from __future__ import annotations

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

import os
import re
from http.client import HTTPException

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.urls import open_url


def unit_of(pid):
    """The systemd unit of a process, read from its control group."""
    try:
        with open(f"/proc/{pid}/cgroup", encoding="ascii", errors="replace") as handle:
            for line in handle:
                found = re.findall(r"([^/\n]+\.(?:service|socket|scope))", line)
                if found:
                    return found[-1]
    except OSError:
        pass
    return ""


def parse_listeners(text):
    """The output of `ss -Hlntp` as a list, one entry for each owner of a port."""
    found = {}
    for line in text.splitlines():
        fields = line.split(None, 5)
        if len(fields) < 5:
            continue
        port = fields[3].rpartition(":")[2]
        if not port.isdigit():
            continue
        owners = re.findall(r'\("([^"]*)",pid=(\d+)', fields[5] if len(fields) > 5 else "")
        for process, pid in owners or [("", "")]:
            unit = unit_of(pid) if pid else ""
            found.setdefault((int(port), process, unit), {"port": int(port), "process": process, "pid": pid, "unit": unit})
    return [found[key] for key in sorted(found)]


def measure(path):
    """Size and free space of the file system that holds a path, or will hold it."""
    while not os.path.exists(path):
        path = os.path.dirname(path) or "/"
    device = os.stat(path).st_dev
    mount = path
    while mount != "/" and os.stat(os.path.dirname(mount)).st_dev == device:
        mount = os.path.dirname(mount)
    room = os.statvfs(path)
    return {
        "device": str(device),
        "mount": mount,
        "size_mb": room.f_blocks * room.f_frsize // 1048576,
        "free_mb": room.f_bavail * room.f_frsize // 1048576,
    }


def main():
    module = AnsibleModule(
        argument_spec={
            "paths": {"type": "list", "elements": "str", "default": []},
            "url": {"type": "str", "default": ""},
            "timeout": {"type": "int", "default": 5},
        },
        supports_check_mode=True,
    )
    listening = module.run_command(["ss", "-Hlntp"], check_rc=True)[1]
    url_error = ""
    if module.params["url"]:
        try:
            open_url(module.params["url"], method="HEAD", timeout=module.params["timeout"]).close()
        except (OSError, ValueError, HTTPException) as error:
            url_error = str(error)
    module.exit_json(
        changed=False,
        listeners=parse_listeners(listening),
        filesystems={path: measure(path) for path in module.params["paths"]},
        url_error=url_error,
        uid=os.geteuid(),
    )


if __name__ == "__main__":
    main()
