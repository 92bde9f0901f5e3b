"""Takes an instance of the bank out of HAProxy's rotation and brings it back, each with proof."""

from __future__ import annotations

import csv
import socket as sockets
import time

from ansible.module_utils.basic import AnsibleModule

DOCUMENTATION = r"""
module: bank_app_rotation
short_description: Drain a server of HAProxy, or make it ready again, and prove it
description:
  - Runs on a load balancer and speaks to HAProxy's admin socket.
  - A load balancer on which HAProxy does not run, or does not know the server, has nothing to drain.
options:
  socket:
    description: Admin socket of HAProxy.
    type: path
    required: true
  backend:
    description: Backend that the server belongs to.
    type: str
    required: true
  server:
    description: Name of the server.
    type: str
    required: true
  state:
    description:
      - C(drained) gives the server no new requests and waits until its last one has ended.
      - C(ready) waits until HAProxy's own checks pass, gives it requests again and waits until HAProxy calls it UP.
    type: str
    choices: [drained, ready]
    required: true
  timeout:
    description: Seconds to wait for the proof.
    type: int
    default: 60
  last:
    description: Whether to drain also the only server that serves. One that is alone in its backend is drained anyway.
    type: bool
    default: false
  settle:
    description: Seconds for which the checks must pass without a break before the server gets requests.
    type: float
    default: 3
author: Bank platform team
"""

EXAMPLES = r"""
- name: Take the instance out of rotation
  bank_app_rotation:
    socket: /var/lib/haproxy/stats
    backend: bank
    server: app1
    state: drained
"""

RETURN = r"""
was:
  description: State before, one of C(ready), C(drain), C(maint), or C(absent) if HAProxy does not know the server.
  type: str
  returned: always
"""

MAINTENANCE, DRAIN = 0x01 | 0x02 | 0x04 | 0x20, 0x08 | 0x10


class RotationError(Exception):
    """HAProxy did not do what was asked; the text is one sentence."""


class Server:
    """One server as HAProxy sees it."""

    def __init__(self, socket: str, backend: str, name: str) -> None:
        """Take the names from the task."""
        self.socket, self.backend, self.name = socket, backend, name

    def ask(self, command: str) -> str:
        """Send one command and return the answer."""
        with sockets.socket(sockets.AF_UNIX, sockets.SOCK_STREAM) as connection:
            connection.settimeout(10)
            connection.connect(self.socket)
            connection.sendall(f"{command}\n".encode())
            parts = []
            while part := connection.recv(65536):
                parts.append(part)
        return b"".join(parts).decode()

    def administrative(self) -> str:
        """Return what operators asked of the server: ready, drain, maint or absent."""
        try:
            answer = self.ask(f"show servers state {self.backend}")
        except (FileNotFoundError, ConnectionRefusedError):
            return "absent"
        lines = [line.lstrip("# ").split() for line in answer.splitlines()[1:] if line.strip()]
        for line in lines[1:]:
            row = {name: line[index] for index, name in enumerate(lines[0])}
            if row["srv_name"] == self.name:
                bits = int(row["srv_admin_state"])
                return "maint" if bits & MAINTENANCE else "drain" if bits & DRAIN else "ready"
        return "absent"

    def all_statistics(self) -> dict[str, dict[str, str]]:
        """Return the rows of the backend's servers in HAProxy's statistics."""
        rows = csv.DictReader(self.ask("show stat -1 4 -1").lstrip("# ").splitlines())
        return {row["svname"]: row for row in rows if row["pxname"] == self.backend}

    def statistics(self) -> dict[str, str]:
        """Return the row of the server in HAProxy's statistics."""
        if row := self.all_statistics().get(self.name):
            return row
        raise RotationError(f"HAProxy does not know server {self.name} of backend {self.backend} any more.")

    def refuse_the_last(self) -> None:
        """Stop if customers would be left without any server; one that is alone in its backend is exempt."""
        states = {name: row["status"] for name, row in self.all_statistics().items()}
        others = {name: state for name, state in states.items() if name != self.name}
        if not others or not states.get(self.name, "").startswith(("UP", "no check")):
            return
        if not any(state.startswith(("UP", "no check")) for state in others.values()):
            found = ", ".join(f"{name} is {state}" for name, state in sorted(others.items()))
            raise RotationError(
                f"Server {self.name} is the only one that serves, and was not drained: {found}. Bring another one back "
                f"first (on the load balancer: echo 'set server {self.backend}/NAME state ready' | socat stdio "
                f"{self.socket}), or set bank_app_drain_last to accept that customers are not served meanwhile."
            )

    def set(self, state: str) -> None:
        """Ask for an administrative state."""
        if answer := self.ask(f"set server {self.backend}/{self.name} state {state}").strip():
            raise RotationError(f"HAProxy refused to set {self.name} to {state}: {answer}")

    def drain(self, deadline: float) -> None:
        """Take the server out and wait for its last session."""
        self.set("drain")
        while (sessions := int(self.statistics()["scur"] or 0)) > 0:
            if time.monotonic() > deadline:
                raise RotationError(f"Server {self.name} still has {sessions} sessions after it was drained.")
            time.sleep(0.25)
        if self.administrative() != "drain":
            raise RotationError(f"HAProxy did not keep {self.name} drained.")

    def return_to_service(self, deadline: float, settle: float) -> None:
        """Wait for passing checks, make the server ready and wait until it is UP."""
        since: float | None = None
        while since is None or time.monotonic() < since + settle:
            status = self.statistics()["check_status"].lstrip("* ")
            if status not in {"L7OK", "L6OK", "L4OK", ""}:
                since = None
            elif since is None:
                since = time.monotonic()
            if since is None and time.monotonic() > deadline:
                raise RotationError(f"HAProxy's checks of {self.name} do not pass: {status}.")
            time.sleep(0.25)
        self.set("ready")
        while not (status := self.statistics()["status"]).startswith(("UP", "no check")):
            if time.monotonic() > deadline:
                raise RotationError(f"HAProxy calls {self.name} {status}, not UP.")
            time.sleep(0.25)


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "socket": {"type": "path", "required": True},
            "backend": {"type": "str", "required": True},
            "server": {"type": "str", "required": True},
            "state": {"type": "str", "choices": ["drained", "ready"], "required": True},
            "timeout": {"type": "int", "default": 60},
            "last": {"type": "bool", "default": False},
            "settle": {"type": "float", "default": 3},
        },
        supports_check_mode=True,
    )
    options = module.params
    server = Server(options["socket"], options["backend"], options["server"])
    was = ""
    try:
        was = server.administrative()
        wanted = {"drained": "drain", "ready": "ready"}[options["state"]]
        if was != "absent" and not module.check_mode:
            deadline = time.monotonic() + options["timeout"]
            if options["state"] == "ready":
                server.return_to_service(deadline, options["settle"])
            # Maintenance is further out than drained: it stays.
            elif was != "maint":
                if not options["last"]:
                    server.refuse_the_last()
                server.drain(deadline)
        changed = was not in {"absent", wanted} and not (was == "maint" and wanted == "drain")
        module.exit_json(changed=changed, was=was)
    except (OSError, RotationError) as error:
        module.fail_json(msg=str(error), was=was)


if __name__ == "__main__":
    main()
