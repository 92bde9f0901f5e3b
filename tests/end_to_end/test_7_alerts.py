"""What an operator is told when the bank goes away: one page, in time, and its end."""

import json
import time
from collections.abc import Iterator
from typing import Any

import pytest

from lab import hosts
from lab.settings import PROJECT
from tests.site_client import run_playbook

from .conftest import Execute, wait_until

RECEIVER = PROJECT / "tests" / "alert_receiver.py"
PORT = 9099
NOTIFICATIONS = "/root/notifications.ndjson"
# A P2 is collected for 30 s before it is told.
LESS_URGENT_SECONDS = 45
PAGER = {
    "alertmanager_receivers": [{"name": "pager", "webhook_configs": [{"url": f"http://127.0.0.1:{PORT}/"}]}],
    "alertmanager_severity_receivers": {"p1": ["pager"], "p2": ["pager"], "p3": [], "p4": []},
}


def apply(lab_hosts: dict[str, hosts.Host], **values: object) -> None:
    """Run the monitoring playbook on the hosts of Alertmanager."""
    limit = ",".join(name for name, host in lab_hosts.items() if "alertmanager" in host.groups)
    run = run_playbook("playbooks/monitoring.yml", "--limit", limit, "--extra-vars", json.dumps(values))
    assert not run.failed, run.output[-4000:]


@pytest.fixture(scope="module")
def pager(lab_hosts: dict[str, hosts.Host], on: Execute) -> Iterator[str]:
    """Have a program be told of P1 and P2 on the host of Alertmanager; return the host's name."""
    host = next(host for host in lab_hosts.values() if "alertmanager" in host.groups)
    command = ["python3", "-c", RECEIVER.read_text(encoding="utf-8"), str(PORT), NOTIFICATIONS]
    code, output = on(host.name, "systemd-run", "--unit=pager", "--collect", *command)
    assert code == 0, output
    try:
        apply(lab_hosts, **PAGER)
        yield host.name
    finally:
        apply(lab_hosts)
        on(host.name, "systemctl", "stop", "pager.service")


def pages(on: Execute, host: str, since: float) -> list[dict[str, Any]]:
    """Return the notifications since a moment, in order."""
    entries = [json.loads(line) for line in on(host, "cat", NOTIFICATIONS)[1].splitlines()]
    return [entry for entry in entries if entry["at"] >= since]


def test_a_bank_that_is_down_is_one_page_and_its_return_another(
    on: Execute, pager: str, lab_hosts: dict[str, hosts.Host]
) -> None:
    instances = [name for name, host in lab_hosts.items() if "bank_app" in host.groups]

    def told(status: str) -> list[dict[str, Any]]:
        return [entry for entry in pages(on, pager, begun) if entry["body"]["status"] == status]

    begun = time.time()
    try:
        for name in instances:
            on(name, "systemctl", "kill", "--signal=KILL", "bank.service")
            on(name, "systemctl", "stop", "bank.service")
        wait_until(lambda: bool(told("firing")), "the page that no instance answers")
        print(f"told after {told('firing')[0]['at'] - begun:.0f} s")
        # Long enough for what is less urgent to be told, too.
        time.sleep(LESS_URGENT_SECONDS)
        # One page for the whole: neither the single instances nor what fails besides is told.
        assert [entry["body"]["groupLabels"]["alertname"] for entry in pages(on, pager, begun)] == ["AllApiDown"]
    finally:
        for name in instances:
            on(name, "systemctl", "start", "bank.service")

    def over() -> bool:
        return "AllApiDown" in {entry["body"]["groupLabels"]["alertname"] for entry in told("resolved")}

    wait_until(over, "the page that instances answer again")

    def listed() -> bool:
        # The bank was away when it was told, so Alertmanager tells it again.
        query = "SELECT status FROM alerts WHERE name = 'AllApiDown' ORDER BY starts_at DESC LIMIT 1"
        command = ["runuser", "-u", "postgres", "--", "psql", "-XAtd", "bank", "-c", query]
        return on("db1", *command)[1].strip() == "resolved"

    wait_until(listed, "the bank's own list has the alert and its end")
