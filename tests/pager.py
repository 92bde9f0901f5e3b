"""A pager for the lab: a program on the host of Alertmanager that is told of P1 and P2 while it is needed."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lab import hosts
from tests.site_client import run_playbook

RECEIVER = Path(__file__).with_name("alert_receiver.py")
PORT = 9099
NOTIFICATIONS = "/root/notifications.ndjson"
SETTINGS = {
    "alertmanager_receivers": [{"name": "pager", "webhook_configs": [{"url": f"http://127.0.0.1:{PORT}/"}]}],
    "alertmanager_severity_receivers": {"p1": ["pager"], "p2": ["pager"], "p3": [], "p4": []},
}

# Kills an instance of the bank and keeps it down: systemd's own restart may come between a kill and a stop.
HALT = (
    "systemctl kill --signal=KILL bank.service;"
    " until systemctl stop bank.service && ! systemctl --quiet is-active bank.service; do sleep 0.2; done"
)

Execute = Callable[..., tuple[int, str]]
# The notifications since a moment, in order.
Pages = Callable[[float], list[dict[str, Any]]]


class PagerError(Exception):
    """The pager could not be set up or taken away; the text has the last words of what failed."""


def apply(members: list[str], **values: object) -> None:
    """Run the monitoring playbook on some hosts.

    Raises:
        PagerError: it failed.
    """
    run = run_playbook("playbooks/monitoring.yml", "--limit", ",".join(members), "--extra-vars", json.dumps(values))
    if run.failed:
        raise PagerError(run.output[-4000:])


@contextmanager
def pager(lab_hosts: dict[str, hosts.Host], on: Execute) -> Iterator[Pages]:
    """Have the pager told of P1 and P2 during the block; give a function that returns what it was told.

    Args:
        lab_hosts: The hosts of the lab by name.
        on: Runs a command on a host: its exit code and output.

    Raises:
        PagerError: the program did not start, or the playbook failed.
    """
    members = [name for name, host in lab_hosts.items() if "alertmanager" in host.groups]
    command = ["python3", "-c", RECEIVER.read_text(encoding="utf-8"), str(PORT), NOTIFICATIONS]
    code, output = on(members[0], "systemd-run", "--unit=pager", "--collect", *command)
    if code:
        raise PagerError(output)

    def pages(since: float) -> list[dict[str, Any]]:
        entries = [json.loads(line) for line in on(members[0], "cat", NOTIFICATIONS)[1].splitlines()]
        return [entry for entry in entries if entry["at"] >= since]

    try:
        apply(members, **SETTINGS)
        yield pages
    finally:
        try:
            apply(members)
        finally:
            on(members[0], "systemctl", "stop", "pager.service")
