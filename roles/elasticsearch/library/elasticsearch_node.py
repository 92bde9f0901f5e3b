#!/usr/bin/python
"""Starts or restarts one node of Elasticsearch such that the cluster keeps serving, each step with proof."""

from __future__ import annotations

import contextlib
import time
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.rest_api import ACCESS, Api, ApiError, api_of, path_of

DOCUMENTATION = r"""
module: elasticsearch_node
short_description: Start or restart a node of Elasticsearch and prove that it is in its cluster
description:
  - A restart first waits until every shard has its copies, holds the allocation of shards, restarts, waits until the
    node is back, lets shards move again and waits until every shard has its copies again.
  - A node that is alone, or that does not run, is only started.
  - Another release takes the same way in two steps, around its installation.
  - In a cluster of several releases, in the middle of an upgrade, copies that no node may hold yet are not waited for.
options:
  state:
    description:
      - C(started) starts the unit if it does not run, waits until the node is in a cluster, and ends a hold.
      - C(restarted) restarts it.
      - C(stopped) waits until the cluster can do without the node, holds the allocation of shards and stops the
        unit, so that its program can be replaced.
    type: str
    choices: [started, restarted, stopped]
    default: started
  heal:
    description: Whether to restart also while shards lack copies, because this node may be the reason.
    type: bool
    default: false
  node:
    description: The node and what it may take.
    type: dict
    required: true
    suboptions:
      name:
        description: Name of the node.
        type: str
        required: true
      unit:
        description: Unit of systemd.
        type: str
        default: elasticsearch.service
      peers:
        description: Addresses of the other nodes, asked while this one is away.
        type: list
        elements: str
        default: []
      start_seconds:
        description: Seconds until the node must be in the cluster.
        type: int
        default: 300
      recovery_seconds:
        description: Seconds until every shard must have its copies, before and after a restart.
        type: int
        default: 600
      bootstrap_password:
        description: Password in the keystore of a new cluster. The user gets the wanted password in its place.
        type: str
        default: ""
extends_documentation_fragment: rest_access
attributes:
  check_mode:
    support: full
author:
  - Bank platform team
"""

EXAMPLES = r"""
- name: Restart the node
  elasticsearch_node:
    state: restarted
    node:
      name: es1
      peers: ["https://es2.example.com:{{ elasticsearch_http_port }}"]
    access:
      urls: ["https://es1.example.com:{{ elasticsearch_http_port }}"]
      ca_path: /etc/elasticsearch/certs/ca.crt
      user: elastic
      password: "{{ elasticsearch_elastic_password }}"
"""

RETURN = r"""
health:
  description: Health of the cluster at the end.
  returned: success, not in check mode
  type: dict
started:
  description: Whether the unit was started or restarted.
  returned: always
  type: bool
"""

HOLD = "cluster.routing.allocation.enable"
PAUSE = 0.5
# For so long a refused log-in may be that of a node that is not ready yet.
REFUSED_SECONDS = 90


class NodeError(Exception):
    """The node or its cluster is not as it must be; the text is one sentence."""


class Node:
    """One node, its unit and its cluster."""

    def __init__(self, module: AnsibleModule) -> None:
        """Take everything from the arguments."""
        self.module, self.params = module, module.params["node"]
        self.api = api_of(module.params)
        self.name, self.unit = self.params["name"], self.params["unit"]
        self.heal = module.params["heal"]
        self.started = self.stopped = False
        self.restarts = 0
        self.password_set = False

    def systemctl(self, *words: str) -> str:
        """Run systemctl and return what it prints.

        Raises:
            NodeError: it failed.
        """
        code, output, errors = self.module.run_command(["systemctl", *words])
        if code:
            raise NodeError(f"systemctl {' '.join(words)} failed: {(errors or output).strip()}")
        return output

    def unit_state(self) -> dict[str, str]:
        """Return how systemd sees the unit."""
        shown = self.systemctl("show", self.unit, "--property=ActiveState,SubState,Result,ExecMainStatus,NRestarts")
        return dict(line.split("=", 1) for line in shown.splitlines())

    def active(self) -> bool:
        """Return whether the unit runs or is about to."""
        return self.unit_state()["ActiveState"] in ("active", "activating", "reloading")

    def stop(self) -> None:
        """Stop the unit, which has no limit of its own.

        Raises:
            NodeError: it does not stop.
        """
        self.systemctl("--no-block", "stop", self.unit)
        deadline = time.monotonic() + self.params["start_seconds"]
        while self.unit_state()["ActiveState"] not in ("inactive", "failed"):
            if time.monotonic() > deadline:
                raise NodeError(f"{self.unit} did not stop within {self.params['start_seconds']} s")
            time.sleep(PAUSE)

    def bring_up(self) -> None:
        """Start the unit.

        Raises:
            NodeError: it ends at once.
        """
        self.started = True
        self.systemctl("daemon-reload")
        self.systemctl("reset-failed", self.unit)
        self.restarts = int(self.unit_state()["NRestarts"])
        try:
            self.systemctl("start", self.unit)
        except NodeError:
            self.refuse_ended()
            raise

    def refuse_ended(self) -> None:
        """Stop waiting for a unit that has ended, and systemd from starting it again.

        Raises:
            NodeError: it has.
        """
        state = self.unit_state()
        # Counted from our own start: what happened before is not ours to judge.
        again = self.started and (state["SubState"] == "auto-restart" or int(state["NRestarts"]) > self.restarts)
        if again:
            self.stop()
        if again or state["ActiveState"] in ("failed", "inactive"):
            raise NodeError(
                f"{self.unit} ended while it started (result {state['Result']}, status {state['ExecMainStatus']})"
            )

    def set_password(self) -> bool:
        """Give the user of a new cluster the wanted password; return whether the server took it."""
        bootstrap = self.params["bootstrap_password"]
        if not bootstrap:
            return False
        api = self.api.as_user(self.api.user, bootstrap)
        try:
            api.ask("POST", path_of("_security", "user", self.api.user, "_password"), {"password": self.api.password})
        except ApiError as error:
            if error.status in (400, 403, 422):
                raise NodeError(f"The password of {self.api.user} was not accepted: {error}") from error
            # Another node set it first, or the cluster is not ready for it yet.
            return False
        self.password_set = True
        return True

    def wait_until_joined(self) -> None:
        """Wait until the node is in a cluster with a master and lets the user in.

        Raises:
            NodeError: it is not, in the time given.
        """
        begun = time.monotonic()
        deadline = begun + self.params["start_seconds"]
        while True:
            try:
                found = self.api.ask("GET", "/_nodes/_local?filter_path=nodes.*.name", timeout=10)
                self.api.ask("GET", "/_cluster/health?timeout=5s&wait_for_status=yellow", timeout=10)
                if self.name in [node["name"] for node in found.get("nodes", {}).values()]:
                    return
                last = f"another node answers there: {found}"
            except ApiError as error:
                last = str(error)
                if error.status == 401 and self.set_password():
                    continue
                # Until the index of users is read, nobody is let in.
                if error.status == 401 and time.monotonic() > begun + REFUSED_SECONDS:
                    break
            self.refuse_ended()
            if time.monotonic() > deadline:
                break
            time.sleep(PAUSE)
        raise NodeError(f"{self.name} is in no cluster that lets {self.api.user} in: {last}")

    def cluster(self, *apis: Api) -> Api:
        """Return the first of the nodes that answers.

        Raises:
            NodeError: none does.
        """
        problems = []
        for api in apis:
            try:
                self.health(api)
            except ApiError as error:
                problems.append(str(error))
            else:
                return api
        raise NodeError(f"No node of the cluster answers: {'; '.join(problems)}")

    def health(self, api: Api) -> dict[str, Any]:
        """Return the health of the cluster."""
        return api.ask("GET", "/_cluster/health?timeout=5s", timeout=10)

    def waits_for_upgrades(self, leaving: bool) -> bool:
        """Return whether shards lack only copies that no node may hold yet.

        A copy never goes to an older release than that of its primary. An index made between the first and the second
        node of an upgrade therefore has its copy after the second. A node that holds such a primary must not leave.
        """
        releases = {
            node["name"]: tuple(int(part) for part in node["version"].partition("-")[0].split("."))
            for node in self.api.ask("GET", "/_cat/nodes?format=json&h=name,version")
        }
        shards = self.api.ask("GET", "/_cat/shards?format=json&h=index,shard,prirep,state,node")
        holders: dict[tuple[str, str], set[str]] = {}
        primaries: dict[tuple[str, str], str] = {}
        for shard in shards:
            key = (shard["index"], shard["shard"])
            if shard["state"] in ("STARTED", "RELOCATING"):
                # One that moves is shown as "from -> address id to".
                holders.setdefault(key, set()).update({shard["node"].split()[0], shard["node"].split()[-1]})
                if shard["prirep"] == "p":
                    primaries[key] = shard["node"].split()[0]
        for shard in shards:
            if shard["state"] in ("STARTED", "RELOCATING"):
                continue
            key = (shard["index"], shard["shard"])
            primary = primaries.get(key, "")
            if shard["state"] != "UNASSIGNED" or primary not in releases or (leaving and primary == self.name):
                return False
            if any(releases[name] >= releases[primary] for name in releases if name not in holders[key]):
                return False
        return len(set(releases.values())) > 1

    def wait_for_copies(self, moment: str, nodes: int = 0, *, leaving: bool) -> dict[str, Any]:
        """Wait until every shard has the copies that it can have.

        Raises:
            NodeError: some do not, in the time given.
        """
        deadline = time.monotonic() + self.params["recovery_seconds"]
        problem, health = "", {}
        while time.monotonic() < deadline:
            try:
                health = self.health(self.api)
                whole = health["status"] == "green" or (
                    health["status"] == "yellow" and self.waits_for_upgrades(leaving)
                )
                if whole and health["number_of_nodes"] >= nodes:
                    return health
                problem = (
                    f"it is {health['status']} with {health['number_of_nodes']} nodes and "
                    f"{health['unassigned_shards']} shards without a place"
                )
            except ApiError as error:
                problem = str(error)
            time.sleep(PAUSE)
        raise NodeError(
            f"The cluster did not become green within {self.params['recovery_seconds']} s {moment}: {problem}. "
            f"Ask GET /_cluster/allocation/explain why, mend it, and run again"
        )

    def hold(self, api: Api, value: str | None) -> None:
        """Hold the allocation of copies, or release it."""
        api.ask("PUT", "/_cluster/settings", {"persistent": {HOLD: value}})

    def held(self) -> bool:
        """Return whether copies must stay unassigned until a node is back."""
        settings = self.api.ask("GET", "/_cluster/settings?flat_settings=true")["persistent"]
        return settings.get(HOLD) == "primaries"

    def release(self) -> None:
        """Let shards move again, by whichever node answers."""
        peers = [self.api.at(url) for url in self.params["peers"]]
        self.hold(self.cluster(self.api, *peers), None)

    def leave(self, purpose: str) -> int:
        """Stop the unit such that the cluster can do without the node for a while; return how many nodes there were."""
        nodes = self.health(self.api)["number_of_nodes"]
        if nodes < 2:
            self.stop()
            return nodes
        self.wait_for_copies(f"before {self.name} was {purpose}, so it was not", leaving=True)
        self.hold(self.api, "primaries")
        try:
            # Less to read again afterwards; a shard that cannot be flushed now is read in full.
            self.flush()
            self.stop()
        except NodeError:
            self.release()
            raise
        return nodes

    def take_out(self) -> dict[str, Any]:
        """Stop the unit if it runs, and leave the allocation held until the node is started again."""
        if self.active():
            self.leave("upgraded")
            self.stopped = True
        return {}

    def start(self) -> dict[str, Any]:
        """Start the unit if it does not run, wait for the node, and end what was held while it was away."""
        try:
            if not self.active():
                self.bring_up()
            self.wait_until_joined()
        except NodeError:
            # The others must be free to make new copies. Before there is a cluster, nobody answers.
            with contextlib.suppress(NodeError, ApiError):
                self.release()
            raise
        if not self.held():
            return self.health(self.api)
        self.release()
        return self.wait_for_copies(f"after {self.name} was started", leaving=False)

    def restart(self) -> dict[str, Any]:
        """Restart the node and keep the cluster's data available meanwhile."""
        if not self.active():
            return self.start()
        nodes = 0
        if self.heal:
            self.stop()
        else:
            nodes = self.leave("restarted")
        try:
            self.bring_up()
            self.wait_until_joined()
        finally:
            # Also when the node stays away: the others must be free to make new copies.
            if nodes > 1:
                self.release()
        if nodes > 1:
            return self.wait_for_copies(f"after {self.name} was restarted", nodes, leaving=False)
        return self.health(self.api)

    def flush(self) -> None:
        """Write what is in memory to the shards' files, as far as that works."""
        try:
            self.api.ask("POST", "/_flush?wait_if_ongoing=true", timeout=60)
        except ApiError:
            return


def main() -> None:
    """Run the module."""
    node_options = {
        "name": {"type": "str", "required": True},
        "unit": {"type": "str", "default": "elasticsearch.service"},
        "peers": {"type": "list", "elements": "str", "default": []},
        "start_seconds": {"type": "int", "default": 300},
        "recovery_seconds": {"type": "int", "default": 600},
        "bootstrap_password": {"type": "str", "default": "", "no_log": True},
    }
    module = AnsibleModule(
        argument_spec={
            "access": ACCESS,
            "state": {"type": "str", "choices": ["started", "restarted", "stopped"], "default": "started"},
            "heal": {"type": "bool", "default": False},
            "node": {"type": "dict", "required": True, "options": node_options},
        },
        supports_check_mode=True,
    )
    node = Node(module)
    state = module.params["state"]
    try:
        if module.check_mode:
            changed = state == "restarted" or node.active() == (state == "stopped")
            module.exit_json(changed=changed, started=False)
        health = {"started": node.start, "restarted": node.restart, "stopped": node.take_out}[state]()
    except (NodeError, ApiError) as error:
        module.fail_json(msg=f"{str(error).rstrip('.')}.", started=node.started)
    module.exit_json(changed=node.started or node.stopped or node.password_set, health=health, started=node.started)


if __name__ == "__main__":
    main()
