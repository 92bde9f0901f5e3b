"""One event's life: a transfer made through the load balancer is found in Elasticsearch, typed and without secrets."""

import json
import re
import secrets as random
import statistics
import time
from typing import Any

import pytest

from .conftest import Search, send_cent

TRANSFERS = 20
SECONDS = 10
# An account's number, as people write it and as programs do.
ACCOUNT_NUMBER = re.compile(r"\bBK ?\d{2}[ 0-9A-Z]{8,}|\b[A-Z]{2}\d{2}[0-9A-Z]{11,30}\b")


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


def test_transfer_is_found_by_its_trace_in_seconds(
    search: Search, token: str, accounts: list[dict[str, Any]], secret: dict[str, str]
) -> None:
    lags, lines = [], []
    for _ in range(TRANSFERS):
        trace = random.token_hex(16)
        answer = send_cent(token, accounts, trace)
        answered = time.monotonic()
        assert answer.status_code == 201, answer.text
        found = wait_for_trace(search, trace)
        lags.append(time.monotonic() - answered)
        lines += found
        booked = [
            source for source in found if source.get("bank", {}).get("transfer", {}).get("id") == answer.json()["id"]
        ]
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
