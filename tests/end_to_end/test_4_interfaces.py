"""Programs use the bank through the load balancer: the API moves money, Alertmanager reports, operators reconcile.

So does its staff, who sees there how the platform is.
"""

import base64
import hashlib
import hmac
import html
import re
import secrets as random
import struct
import time
import uuid
from collections.abc import Iterator
from typing import Any

import pytest

from lab import hosts
from tests.site_client import Customer

from .conftest import Execute, call, prometheus_query, wait_until

BANK_PROGRAM = ("runuser", "-u", "bank", "--", "/opt/bank/current/bin/bank")


def test_a_program_moves_money_once_however_often_it_asks(token: str, accounts: list[dict[str, Any]]) -> None:
    before = {account["id"]: account for account in call("GET", "/api/v1/accounts", bearer=token).json()["items"]}
    source, target = (before[account["id"]] for account in accounts)
    order = {
        "from_account": source["id"],
        "to_number": target["number"],
        "amount_minor": 321,
        "currency": "EUR",
        "reference": "by a program",
    }
    key = {"Idempotency-Key": f'"{uuid.uuid4()}"'}
    # One connection for each request, so that the load balancer gives them to different instances.
    answers = [call("POST", "/api/v1/transfers", bearer=token, headers=key, json=order) for _ in range(3)]
    assert {answer.status_code for answer in answers} == {201}, answers[0].text
    assert len({answer.json()["id"] for answer in answers}) == 1
    assert ["Idempotency-Replayed" in answer.headers for answer in answers] == [False, True, True]
    after = {account["id"]: account for account in call("GET", "/api/v1/accounts", bearer=token).json()["items"]}
    assert after[source["id"]]["balance_minor"] == source["balance_minor"] - 321
    assert after[target["id"]]["balance_minor"] == target["balance_minor"] + 321
    other = call("POST", "/api/v1/transfers", bearer=token, headers=key, json=order | {"amount_minor": 322})
    assert (other.status_code, other.headers["Content-Type"]) == (422, "application/problem+json")


def test_monitoring_reports_an_alert_once_and_nobody_else_does(secret: dict[str, str]) -> None:
    alert = {
        "status": "firing",
        "labels": {"alertname": "EndToEndTest", "severity": "p4"},
        "annotations": {"summary": "sent by a test"},
        "startsAt": "2026-01-02T03:04:05Z",
        "endsAt": "0001-01-01T00:00:00Z",
        "fingerprint": uuid.uuid4().hex[:16],
    }
    path, right = "/api/webhook/alert", secret["vault_bank_webhook_secret"]
    assert call("POST", path, bearer=f"{right}x", json={"version": "4", "alerts": [alert]}).status_code == 401
    taken = [call("POST", path, bearer=right, json={"version": "4", "alerts": [alert]}) for _ in range(2)]
    assert [answer.json() for answer in taken] == [{"opened": 1, "closed": 0}, {"opened": 0, "closed": 0}]
    over = alert | {"status": "resolved", "endsAt": "2026-01-02T03:14:05Z"}
    answer = call("POST", path, bearer=right, json={"version": "4", "alerts": [over]})
    assert answer.json() == {"opened": 0, "closed": 1}


def test_the_books_are_in_order(on: Execute) -> None:
    code, output = on("app1", *BANK_PROGRAM, "reconcile")
    assert code == 0, output


def test_every_host_of_the_bank_works_by_the_clock(on: Execute) -> None:
    for host in ("app1", "app2", "app3"):
        code, output = on(host, "systemctl", "is-active", "bank-scheduler.service")
        assert (code, output.strip()) == (0, "active"), host


def one_time_code(seed: str) -> str:
    """Return what an authenticator app shows now (RFC 6238)."""
    digest = hmac.digest(base64.b32decode(seed), struct.pack(">Q", int(time.time()) // 30), hashlib.sha1)
    (number,) = struct.unpack_from(">I", digest, digest[-1] & 15)
    return f"{(number & 0x7FFFFFFF) % 10**6:06}"


@pytest.fixture
def auditor(on: Execute) -> Iterator[Customer]:
    """Return the browser of an auditor who was added for this test and has set a second factor up."""
    email, password = f"auditor-{random.token_hex(6)}@demo.local", random.token_urlsafe(24)
    program = " ".join((*BANK_PROGRAM, "create-admin", "--role", "auditor", "--email", email))
    code, output = on("app1", "sh", "-c", f"echo {password} | {program}")
    assert code == 0, output
    with Customer() as session:
        page = session.log_in(email, password)
        seed = re.search(r"<code>([A-Z2-7 ]+)</code>", page.text)
        assert seed, page.text
        own = {"code": one_time_code(seed[1].replace(" ", "")), "password": password}
        assert session.submit("/security/second-factor", **own).status_code == 200
        yield session


def test_staff_sees_the_platform(
    auditor: Customer, lab_hosts: dict[str, hosts.Host], secret: dict[str, str], on: Execute
) -> None:
    instances = [name for name, host in lab_hosts.items() if "bank_app" in host.groups]

    def seen() -> tuple[str, dict[str, str], dict[str, str]]:
        page = auditor.page("/staff/platform")
        assert page.status_code == 200, page.text
        shown = re.findall(r"badge[^>]*>(\w+)</span> ([\w.-]+)</li>", page.text)
        tiles = re.findall(r'class="muted">([^<]+)</span> <span class="tile-value">([^<]+)<', page.text)
        return page.text, {name: state for state, name in shown}, dict(tiles)

    # An earlier test may have stopped a host a moment ago.
    whole = dict.fromkeys(lab_hosts, "up")
    wait_until(lambda: seen()[1] == whole, "every host up on the page")
    text, _, tiles = seen()
    assert tiles["Hosts up"] == f"{len(lab_hosts)}/{len(lab_hosts)}"
    assert tiles["Bank instances up"] == f"{len(instances)}/{len(instances)}"
    targets = prometheus_query("count(up)", secret["vault_prometheus_web_password"])[0]["value"][1]
    assert tiles["Targets up"].endswith(f"/{targets}")
    facts = dict(re.findall(r"<dt>([^<]+)</dt>\s*<dd>(.*?)</dd>", text, re.DOTALL))
    assert re.sub(r"<[^>]*>", "", facts["Books out of balance, in minor units"]) == "0"
    assert 'role="alert"' not in text, html.unescape(text)

    # It follows: an exporter that stops is a host that does not answer.
    name = next(name for name, host in lab_hosts.items() if "redis" in host.groups)
    on(name, "systemctl", "stop", "node_exporter.service")
    try:
        # Each instance remembers its own answers for some seconds, so only one page can be compared with itself.
        found: list[tuple[str, dict[str, str], dict[str, str]]] = []

        def is_down() -> bool:
            found.append(seen())
            return found[-1][1].get(name) == "down"

        wait_until(is_down, f"{name} down on the page")
        assert found[-1][2]["Hosts up"] == f"{len(lab_hosts) - 1}/{len(lab_hosts)}"
    finally:
        on(name, "systemctl", "start", "node_exporter.service")
    wait_until(lambda: seen()[1] == whole, f"{name} up again on the page")
