"""A worker dies in the middle of transfers, again and again: no half transfer, no double one, none lost."""

import http.client
import os
import re
import signal
import threading
import time
import urllib.parse
import uuid
from pathlib import Path

import pytest
from sqlalchemy import text

from bank.services import reconcile
from conftest import PASSWORD

KILLS = 6
SECONDS = 15
CLIENTS = 4


class Client:
    """One customer's browser; the answer None means that nobody knows what happened."""

    def __init__(self, port, cookies=None):
        self.port, self.cookies = port, dict(cookies or {})

    def send(self, method, path, form=None):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        cookies = "; ".join(f"{name}={value}" for name, value in self.cookies.items())
        headers = {"Cookie": cookies, "Content-Type": "application/x-www-form-urlencoded"}
        try:
            connection.request(method, path, urllib.parse.urlencode(form or {}), headers)
            response = connection.getresponse()
            body = response.read().decode()
        except (OSError, http.client.HTTPException):
            return None, ""
        finally:
            connection.close()
        for cookie in response.headers.get_all("Set-Cookie", []):
            name, _, value = cookie.split(";")[0].partition("=")
            self.cookies[name] = value
        return response.status, body

    def token(self, path):
        return re.search(r'name="csrf_token"[^>]* value="([^"]+)"', self.send("GET", path)[1])[1]


def workers_of(process):
    return [int(pid) for pid in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()]


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="needs Linux's /proc")
def test_killed_workers_lose_and_double_nothing(start_instance, owner, engine, make_customer, balance_of):
    payer, payee = make_customer(10_000_000), make_customer()
    instance = start_instance()
    browser = Client(instance.port)
    status, _ = browser.send(
        "POST", "/login", {"csrf_token": browser.token("/login"), "email": payer.email, "password": PASSWORD}
    )
    assert status == 303
    form = {
        "csrf_token": browser.token("/transfer"), "from_account": str(payer.account), "to_number": payee.number,
        "reference": "",
    }  # fmt: skip
    done, amounts, acknowledged, unknown = threading.Event(), {}, set(), set()

    def order(client, key):
        return client.send("POST", "/transfer", {**form, "key": key, "amount": f"0.{amounts[key]:02d}"})[0]

    def pay():
        client = Client(instance.port, browser.cookies)
        while not done.is_set():
            key = uuid.uuid4().hex
            amounts[key] = 1 + len(amounts) % 99
            (acknowledged if order(client, key) == 303 else unknown).add(key)

    threads = [threading.Thread(target=pay) for _ in range(CLIENTS)]
    for thread in threads:
        thread.start()
    kills, deadline = 0, time.monotonic() + SECONDS
    while kills < KILLS and time.monotonic() < deadline:
        before = len(acknowledged)
        while len(acknowledged) < before + 5 and time.monotonic() < deadline:
            time.sleep(0.01)
        if found := workers_of(instance.process):
            os.kill(found[kills % len(found)], signal.SIGKILL)
            kills += 1
    done.set()
    for thread in threads:
        thread.join()
    assert kills >= KILLS // 2
    assert acknowledged
    assert unknown, "every answer arrived, so nothing was tried"

    retrying, deadline = Client(instance.port, browser.cookies), time.monotonic() + 30
    left = set(unknown)
    while left and time.monotonic() < deadline:
        left = {key for key in left if order(retrying, key) != 303}
    assert not left
    with owner.connect() as connection:
        booked = dict(
            map(
                tuple,
                connection.execute(
                    text("SELECT k.key, -p.amount_minor FROM idempotency_keys k JOIN postings p USING (entry_id) "
                         "WHERE k.user_id = :id AND p.account_id = :account"),
                    {"id": payer.id, "account": payer.account},
                ),
            )
        )  # fmt: skip
        entries = connection.execute(
            text("SELECT count(*) FROM journal_entries WHERE created_by = :id"), {"id": payer.id}
        ).scalar()
    assert booked == amounts
    assert entries == len(amounts)
    assert balance_of(payee.account) == sum(amounts.values())
    assert reconcile.reconcile(engine).count == 0
