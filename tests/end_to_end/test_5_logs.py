"""One event's life: a transfer made through the load balancer is found in Elasticsearch, typed and without secrets."""

import json
import re
import secrets as random
import statistics
import time
from collections.abc import Callable
from typing import Any

import pytest
import requests

from tests.site_client import AUTHORITY_CERTIFICATE, BANK, CUSTOMER

ELASTICSEARCH = "https://localhost:9200"
TRANSFERS = 20
SECONDS = 10
# An account's number, as people write it and as programs do.
ACCOUNT_NUMBER = re.compile(r"\bBK ?\d{2}[ 0-9A-Z]{8,}|\b[A-Z]{2}\d{2}[0-9A-Z]{11,30}\b")

Search = Callable[[str, dict[str, Any]], dict[str, Any]]


@pytest.fixture(scope="module")
def search(secret: dict[str, str]) -> Search:
    """Return a function that asks Elasticsearch."""
    session = requests.Session()
    session.trust_env = False
    session.auth = (b"elastic", secret["vault_elasticsearch_elastic_password"].encode())
    session.verify = str(AUTHORITY_CERTIFICATE)

    def ask(path: str, body: dict[str, Any]) -> dict[str, Any]:
        answer = session.post(f"{ELASTICSEARCH}{path}", json=body, timeout=10)
        assert answer.status_code == 200, answer.text
        return answer.json()

    return ask


@pytest.fixture(scope="module")
def token(secret: dict[str, str]) -> str:
    """Return an access token of the demonstration customer."""
    log_in = {"email": CUSTOMER, "password": secret["vault_bank_demo_password"]}
    order = log_in | {"scopes": ["accounts:read", "transfers:write"]}
    answer = requests.post(f"{BANK}/api/v1/token", json=order, verify=AUTHORITY_CERTIFICATE, timeout=10)
    assert answer.status_code == 201, answer.text
    return answer.json()["access_token"]


def transfer(token: str, accounts: list[dict[str, Any]], trace: str) -> str:
    """Move a cent as part of a trace; return the transfer's id."""
    order = {
        "from_account": accounts[0]["id"],
        "to_number": accounts[1]["number"],
        "amount_minor": 1,
        "currency": "EUR",
        "reference": "private reference",
    }
    headers = {
        "Authorization": f"Bearer {token}",
        "Idempotency-Key": f'"{random.token_hex(16)}"',
        "traceparent": f"00-{trace}-{random.token_hex(8)}-01",
    }
    url = f"{BANK}/api/v1/transfers"
    answer = requests.post(url, json=order, headers=headers, verify=AUTHORITY_CERTIFICATE, timeout=10)
    assert answer.status_code == 201, answer.text
    return answer.json()["id"]


def wait_for_trace(search: Search, trace: str) -> list[dict[str, Any]]:
    """Return the lines of a trace, as soon as that of the transfer is among them."""
    query = {"size": 50, "query": {"term": {"trace.id": trace}}}
    end = time.monotonic() + SECONDS
    while time.monotonic() < end:
        found = [hit["_source"] for hit in search("/app-logs-2*/_search", query)["hits"]["hits"]]
        if any(source["event"]["dataset"] == "bank.transaction" for source in found):
            return found
        time.sleep(0.1)
    pytest.fail(f"the transfer of trace {trace} was not found within {SECONDS} s")


def test_transfer_is_found_by_its_trace_in_seconds(search: Search, token: str, secret: dict[str, str]) -> None:
    headers = {"Authorization": f"Bearer {token}"}
    url = f"{BANK}/api/v1/accounts"
    answer = requests.get(url, headers=headers, verify=AUTHORITY_CERTIFICATE, timeout=10)
    accounts = [account for account in answer.json()["items"] if account["currency"] == "EUR"][:2]
    lags, lines = [], []
    for _ in range(TRANSFERS):
        trace = random.token_hex(16)
        identifier = transfer(token, accounts, trace)
        answered = time.monotonic()
        found = wait_for_trace(search, trace)
        lags.append(time.monotonic() - answered)
        lines += found
        booked = [source for source in found if source.get("bank", {}).get("transfer", {}).get("id") == identifier]
        assert [source["event"]["outcome"] for source in booked] == ["success"]
        assert booked[0]["bank"]["amount_minor"] == 1
        assert booked[0]["service"]["name"] == "bank"
        assert booked[0]["labels"]["site"] == "lab"
    lags.sort()
    middle, late = statistics.median(lags), lags[int(TRANSFERS * 0.95) - 1]
    print(f"lag of {TRANSFERS} transfers: p50 {middle:.2f} s, p95 {late:.2f} s")

    text = json.dumps(lines)
    assert "private reference" not in text
    assert token not in text
    assert [name for name, value in secret.items() if value[:16] in text] == []
    assert [account["number"] for account in accounts if account["number"] in text] == []
    assert ACCOUNT_NUMBER.findall(text) == []


def test_fields_have_the_types_of_the_template(search: Search) -> None:
    """Asked of the running index, with queries that only the right types answer."""
    filters = [
        {"term": {"event.dataset": "bank.transaction"}},
        {"range": {"bank.amount_minor": {"gte": 1, "lt": 2}}},
        {"range": {"@timestamp": {"gte": "now-10m"}}},
    ]
    assert search("/app-logs-2*/_search", {"query": {"bool": {"filter": filters}}})["hits"]["total"]["value"] > 0
    addresses = {"query": {"term": {"source.ip": "0.0.0.0/0"}}}
    assert search("/app-logs-2*/_search", addresses)["hits"]["total"]["value"] > 0


def test_every_host_ships_its_journal(search: Search, lab_hosts: dict[str, object]) -> None:
    body = {"size": 0, "aggs": {"hosts": {"terms": {"field": "host.name", "size": 100}}}}
    buckets = search("/app-logs-2*/_search", body)["aggregations"]["hosts"]["buckets"]
    assert {bucket["key"] for bucket in buckets} >= set(lab_hosts)


def test_the_platform_writes_no_line_that_is_refused(search: Search) -> None:
    hits = search("/app-logs-rejected-*/_search?ignore_unavailable=true", {"size": 5})["hits"]
    assert hits["total"]["value"] == 0, json.dumps(hits["hits"])[:2000]
