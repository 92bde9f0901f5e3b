"""Programs use the bank through the load balancer: the API moves money, Alertmanager reports, operators reconcile."""

import uuid
from typing import Any

from .conftest import Execute, call

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
