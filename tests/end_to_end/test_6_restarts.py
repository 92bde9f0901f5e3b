"""Every host of the platform is restarted in turn while customers move money: it comes back, and no line is lost."""

import secrets as random
import threading
import time
from typing import Any

import docker
import requests

from lab import hosts

from .conftest import Execute, Search, call, send_cent, wait_until

# Below the limit on writes of one customer (writes_per_minute).
PAUSE_SECONDS = 0.6
STOP_SECONDS = 60


class Transfers(threading.Thread):
    """Moves a cent again and again, and remembers the traces of those that the bank confirmed."""

    def __init__(self, token: str, accounts: list[dict[str, Any]]) -> None:
        super().__init__(daemon=True)
        self._order = (token, accounts)
        self._ended = threading.Event()
        self.confirmed: list[str] = []
        self.refused = 0

    def run(self) -> None:
        """Order transfers until told to end."""
        while not self._ended.wait(PAUSE_SECONDS):
            trace = random.token_hex(16)
            try:
                answer = send_cent(*self._order, trace)
            except requests.RequestException:
                self.refused += 1
                continue
            if answer.status_code == requests.codes.created:
                self.confirmed.append(trace)
            else:
                self.refused += 1

    def end(self) -> None:
        """Stop ordering, and wait for the last answer."""
        self._ended.set()
        self.join()


def booked(search: Search, traces: list[str]) -> list[str]:
    """Return the traces of these whose transfer is found, once for each document."""
    filters = [{"terms": {"trace.id": traces}}, {"term": {"event.dataset": "bank.transaction"}}]
    body = {"size": 10_000, "_source": ["trace.id"], "query": {"bool": {"filter": filters}}}
    hits = search("/app-logs-2*/_search", body)["hits"]["hits"]
    return sorted(hit["_source"]["trace"]["id"] for hit in hits)


def test_a_restart_of_every_host_in_turn_loses_no_transfer_and_no_line(
    client: docker.DockerClient,
    on: Execute,
    search: Search,
    token: str,
    accounts: list[dict[str, Any]],
    lab_hosts: dict[str, hosts.Host],
) -> None:
    def balance() -> int:
        items = call("GET", "/api/v1/accounts", bearer=token).json()["items"]
        return next(item["balance_minor"] for item in items if item["id"] == accounts[1]["id"])

    before = balance()
    transfers = Transfers(token, accounts)
    transfers.start()
    try:
        for host in lab_hosts.values():
            client.containers.get(host.container).restart(timeout=STOP_SECONDS)
            hosts.wait_for_boot(client, host)
            confirmed = len(transfers.confirmed)
            wait_until(
                lambda confirmed=confirmed: len(transfers.confirmed) >= confirmed + 2,
                f"transfers are confirmed after the restart of {host.name}",
            )
    finally:
        transfers.end()
    print(f"{len(transfers.confirmed)} transfers confirmed and {transfers.refused} refused during the restarts")
    # A confirmation that was lost on its way is money that was moved all the same.
    assert len(transfers.confirmed) <= balance() - before <= len(transfers.confirmed) + transfers.refused

    def settled() -> bool:
        # A unit that waits for another host may try again for a while.
        states = {name: on(name, "systemctl", "is-system-running")[1].strip() for name in lab_hosts}
        return set(states.values()) == {"running"}

    def found() -> bool:
        # For some seconds after its start, Elasticsearch knows no user.
        try:
            return len(booked(search, transfers.confirmed)) >= len(transfers.confirmed)
        except (AssertionError, requests.RequestException):
            return False

    wait_until(settled, "every unit of every host is up again")
    wait_until(found, "every line is found")
    # Twice sent is stored once.
    time.sleep(2)
    assert booked(search, transfers.confirmed) == sorted(transfers.confirmed)
