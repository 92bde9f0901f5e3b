"""The load generator, against an instance as a host runs it."""

import os

import pytest
from click.testing import CliRunner

from bank import load
from bank.cli import main
from bank.services import seed
from conftest import free_port

DEMO = "demonstration 1"


def run(*arguments, password=DEMO):
    return CliRunner().invoke(main, ["load", *arguments], env={"BANK_DEMO_PASSWORD": password})


def test_load_uses_pages_and_api_and_says_how_fast(engine, start_instance, owner, monkeypatch):
    monkeypatch.setenv("BANK_CONFIRMATION__NEW_PAYEES", "true")
    seed.seed(engine, customers=3, seed_number=1, password=DEMO)
    instance = start_instance(server="workers = 1\nthreads = 4")
    url = f"http://127.0.0.1:{instance.port}"
    found = run(url, "--customers", "3", "--seconds", "20", "--requests", "60", "--pause", "0")
    assert found.exit_code == 0, found.output
    lines = {line[:16].strip(): line[16:].split() for line in found.stdout.splitlines() if line[16:].split()}
    for name in ("api log-in", "page log-in", "api accounts", "api transfer", "page transfer"):
        count, errors, _, p50, p95, p99 = map(float, lines[name])
        assert (count > 0, errors) == (True, 0)
        assert 0 < p50 <= p95 <= p99
    with owner.connect() as connection:
        from sqlalchemy import text

        moved = connection.execute(text("SELECT count(*) FROM journal_entries WHERE reference = 'load'")).scalar_one()
    assert moved >= 2
    # Pages alone know the way as well; a wrong password is an error that the exit status tells.
    assert (
        run(url, "--customers", "2", "--seconds", "5", "--requests", "14", "--pause", "0", "--via", "pages").exit_code
        == 0
    )
    refused = run(url, "--customers", "2", "--seconds", "1", "--via", "api", password="wrong one")
    assert refused.exit_code == 1
    assert "requests failed" in refused.output


def test_load_stays_away_from_the_public():
    for url, sentence in (
        ("https://8.8.8.8", "neither loopback nor private"), ("ftp://127.0.0.1", "no http(s) address"),
        ("https://nowhere.invalid", "has no address"),
    ):  # fmt: skip
        found = run(url)
        assert found.exit_code == 1
        assert sentence in found.output
    load.require_private("http://127.0.0.1:1")
    load.require_private("https://10.1.2.3")


def test_load_that_reaches_nobody_fails():
    found = run(f"http://127.0.0.1:{free_port()}", "--seconds", "1", "--customers", "2")
    assert found.exit_code == 1
    assert "ConnectionRefusedError" in found.output


@pytest.mark.parametrize(("share", "expected"), [(0.5, 50), (0.95, 95), (0.99, 99)])
def test_percentiles(share, expected):
    assert load.Operation(latencies=[float(number) for number in range(100)]).percentile(share) == expected


def test_without_password_nothing_starts():
    assert os.environ.get("BANK_DEMO_PASSWORD") is None
    found = CliRunner().invoke(main, ["load", "http://127.0.0.1"])
    assert "BANK_DEMO_PASSWORD" in found.output
