"""What an operator is told when the bank goes away: one page, in time, and its end."""

import time
from collections.abc import Iterator
from datetime import datetime
from typing import Any

import pytest

from lab import hosts
from tests import pager as alert_pager

from .conftest import Execute, wait_until

# A P2 is collected for 30 s before it is told.
LESS_URGENT_SECONDS = 45
# A scrape, an evaluation, the minute for which the alert stays, and that after which Alertmanager tells a group again.
OVER_SECONDS = 180


@pytest.fixture(scope="module")
def pages(lab_hosts: dict[str, hosts.Host], on: Execute) -> Iterator[alert_pager.Pages]:
    """Have a program be told of P1 and P2; return a function that lists what it was told since a moment."""
    with alert_pager.pager(lab_hosts, on) as told:
        yield told


def test_a_bank_that_is_down_is_one_page_and_its_return_another(
    on: Execute, pages: alert_pager.Pages, lab_hosts: dict[str, hosts.Host]
) -> None:
    instances = [name for name, host in lab_hosts.items() if "bank_app" in host.groups]

    def told(status: str) -> list[dict[str, Any]]:
        return [entry for entry in pages(begun) if entry["body"]["status"] == status]

    def new(entry: dict[str, Any]) -> bool:
        # What was wrong before, such as a backup that fell due during a restart, is told to the new pager, too.
        return any(datetime.fromisoformat(alert["startsAt"]).timestamp() >= begun for alert in entry["body"]["alerts"])

    begun = time.time()
    try:
        for name in instances:
            on(name, "sh", "-c", alert_pager.HALT)
        wait_until(lambda: bool(told("firing")), "the page that no instance answers")
        print(f"told after {told('firing')[0]['at'] - begun:.0f} s")
        # Long enough for what is less urgent to be told, too.
        time.sleep(LESS_URGENT_SECONDS)
        # One page for the whole: neither the single instances nor what fails besides is told.
        assert [entry["body"]["groupLabels"]["alertname"] for entry in pages(begun) if new(entry)] == ["AllApiDown"]
    finally:
        for name in instances:
            on(name, "systemctl", "start", "bank.service")

    def over() -> bool:
        return "AllApiDown" in {entry["body"]["groupLabels"]["alertname"] for entry in told("resolved")}

    wait_until(over, "the page that instances answer again", OVER_SECONDS)

    def listed() -> bool:
        # The bank was away when it was told, so Alertmanager tells it again.
        query = "SELECT status FROM alerts WHERE name = 'AllApiDown' ORDER BY starts_at DESC LIMIT 1"
        command = ["runuser", "-u", "postgres", "--", "psql", "-XAtd", "bank", "-c", query]
        return on("db1", *command)[1].strip() == "resolved"

    wait_until(listed, "the bank's own list has the alert and its end")
