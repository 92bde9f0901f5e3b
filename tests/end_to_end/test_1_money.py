"""A customer's money moves through the load balancer into PostgreSQL, and Prometheus sees every host."""

import re
import uuid
from decimal import Decimal

import requests

from tests.site_client import AUTHORITY_CERTIFICATE, BANK, TOKEN, Customer

from .conftest import Execute, prometheus_query, wait_until

KEY = re.compile(r'name="key"[^>]*value="([^"]+)"')
OPTION = re.compile(r'<option[^>]*value="([0-9a-f-]{36})"')
NUMBER = re.compile(r'<option value="(BK[0-9A-Z ]+)"')
# Books that do not balance, postings that do not match a balance, and the money in all customers' accounts.
LEDGER = """
select (select count(*) from (select 1 from postings group by entry_id having sum(amount_minor) <> 0) unbalanced),
       (select count(*) from balances join (select account_id, sum(amount_minor) as total from postings group by 1) p
          using (account_id) where balance_minor <> total),
       (select sum(amount_minor) from postings)
"""
PSQL = ("runuser", "-u", "postgres", "--", "psql", "-XAtd", "bank", "-c")


def balances(on: Execute) -> dict[str, int]:
    """Return the balance of every account in minor units, by its identifier."""
    code, output = on("db1", *PSQL, "select account_id, balance_minor from balances")
    assert code == 0, output
    return {line.split("|")[0]: int(line.split("|")[1]) for line in output.split()}


def transfer_form(customer: Customer) -> tuple[dict[str, str], str, str]:
    """Return the fields of a filled-in transfer between the customer's first two accounts, and both identifiers."""
    page = customer.page("/transfer").text
    own = OPTION.findall(page)
    numbers = [number.replace(" ", "") for number in NUMBER.findall(page)]
    assert len(own) >= 2, "the demonstration customer needs two accounts"
    key = KEY.search(page)
    assert key
    fields = {"key": key[1], "from_account": own[0], "to_number": numbers[1], "amount": "12.34", "reference": "rent"}
    return fields, own[0], own[1]


def test_money_moves_once_however_often_the_form_is_sent(customer: Customer, on: Execute) -> None:
    fields, source, target = transfer_form(customer)
    before = balances(on)
    first = customer.submit("/transfer", **fields)
    second = customer.submit("/transfer", **fields)
    after = balances(on)

    assert first.status_code == 200 and second.status_code == 200
    moved = int(Decimal(fields["amount"]) * 100)
    assert after[source] - before[source] == -moved
    assert after[target] - before[target] == moved
    assert sum(after.values()) == sum(before.values())
    assert on("db1", *PSQL, LEDGER) == (0, "0|0|0\n")
    assert "rent" in customer.page(f"/accounts/{source}").text


def test_a_key_used_for_another_amount_is_refused(customer: Customer, on: Execute) -> None:
    fields, source, _ = transfer_form(customer)
    customer.submit("/transfer", **fields)
    before = balances(on)[source]
    answer = customer.submit("/transfer", **(fields | {"amount": "99.00"}))
    assert answer.status_code in (409, 422)
    assert balances(on)[source] == before


def test_an_overdraft_is_refused_and_changes_nothing(customer: Customer, on: Execute) -> None:
    fields, _, _ = transfer_form(customer)
    before = balances(on)
    answer = customer.submit("/transfer", **(fields | {"amount": "99999999.00"}))
    assert answer.status_code >= 400
    assert balances(on) == before


def test_a_session_holds_on_every_instance_and_ends_at_log_out(customer: Customer) -> None:
    # More requests than instances, so that the load balancer has used each of them.
    assert {customer.page("/accounts").status_code for _ in range(9)} == {200}
    cookies = customer.cookies.copy()
    token = TOKEN.search(customer.page("/accounts").text)
    assert token, "no page offers log-out"
    customer.post(f"{BANK}/logout", data={"csrf_token": token[1]}, timeout=10)
    customer.cookies.update(cookies)
    for _ in range(6):
        assert customer.page("/accounts").url.split("?")[0].endswith("/login")


def test_a_wrong_password_is_refused() -> None:
    with Customer() as stranger:
        answer = stranger.log_in("user@demo.local", f"wrong {uuid.uuid4()}")
        assert answer.status_code >= 400 or "/login" in answer.url
        assert stranger.page("/accounts").url.split("?")[0].endswith("/login")


def test_the_public_sees_neither_metrics_nor_the_reason_of_a_failure() -> None:
    assert requests.get(f"{BANK}/metrics", verify=AUTHORITY_CERTIFICATE, timeout=10).status_code == 404
    answer = requests.get(f"{BANK}/health", verify=AUTHORITY_CERTIFICATE, timeout=10)
    assert answer.status_code == 200
    assert "postgresql" not in answer.text.lower()


def test_prometheus_sees_every_host_and_every_instance(secret: dict[str, str], lab_hosts: dict) -> None:
    expected = {("node", name) for name in lab_hosts}
    expected |= {("bank", name) for name, host in lab_hosts.items() if "bank_app" in host.groups}
    expected |= {("haproxy", name) for name, host in lab_hosts.items() if "load_balancer" in host.groups}
    expected |= {
        (job, name)
        for job in ("elasticsearch", "postgresql", "redis")
        for name in lab_hosts
        if job in lab_hosts[name].groups
    }

    def every_target_is_up() -> bool:
        samples = prometheus_query("up", secret["vault_prometheus_web_password"])
        state = {(sample["metric"]["job"], sample["metric"]["instance"]): sample["value"][1] for sample in samples}
        return expected <= set(state) and set(state.values()) == {"1"}

    # A server that has just started scrapes each target for the first time within one interval.
    wait_until(every_target_is_up, "Prometheus sees every host and every instance up")


def test_services_answer_as_their_clients_see_them(secret: dict[str, str], lab_hosts: dict) -> None:
    groups = {"bank": "load_balancer", "postgresql": "postgresql", "redis": "redis"}
    expected = {
        (probe, name) for probe, group in groups.items() for name in lab_hosts if group in lab_hosts[name].groups
    }

    def every_probe_succeeds() -> bool:
        samples = prometheus_query("probe_success", secret["vault_prometheus_web_password"])
        state = {(sample["metric"]["probe"], sample["metric"]["instance"]): sample["value"][1] for sample in samples}
        return set(state) == expected and set(state.values()) == {"1"}

    wait_until(every_probe_succeeds, "Prometheus sees every service from outside")


def test_prometheus_counts_the_transfers(customer: Customer, secret: dict[str, str]) -> None:
    fields, _, _ = transfer_form(customer)
    customer.submit("/transfer", **fields)
    query = 'sum(bank_transfers_total{outcome="completed"})'
    password = secret["vault_prometheus_web_password"]
    wait_until(lambda: float(prometheus_query(query, password)[0]["value"][1]) >= 1, "Prometheus counts a transfer")
