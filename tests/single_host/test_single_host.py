"""The smallest site, from its untouched host on: one host in every group."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from lab import engine, secrets
from lab.settings import INVENTORY, PROJECT
from tests.site_client import CUSTOMER, Customer, run_playbook

LAB = "bank-single"
FIXTURE = PROJECT / "tests" / "inventories" / "single_host" / "hosts.yml"


def lab(inventory: Path, command: str) -> None:
    """Run a command of the lab for the second lab."""
    environment = {**os.environ, "LAB_NAME": LAB, "LAB_INVENTORY": str(inventory)}
    words = [sys.executable, "-m", "lab", command]
    answer = subprocess.run(words, cwd=PROJECT, env=environment, capture_output=True, text=True, check=False)
    assert answer.returncode == 0, answer.stdout[-6000:] + answer.stderr[-2000:]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Start the one host of the site, with the lab's way of reaching hosts; nothing is installed on it yet."""
    inventory = tmp_path_factory.mktemp("single-host")
    (inventory / "hosts.yml").write_text(FIXTURE.read_text(encoding="utf-8"), encoding="utf-8")
    (inventory / "group_vars").symlink_to(INVENTORY / "group_vars")
    # Another site, another authority. Elasticsearch starts in half the time when its compiler stops early.
    values = {
        "certificates_authority_directory": f"{inventory}/pki",
        "elasticsearch_jvm_options": ["-XX:TieredStopAtLevel=1"],
    }
    (inventory / "host_vars").mkdir()
    (inventory / "host_vars/single1.yml").write_text(yaml.safe_dump(values), encoding="utf-8")
    try:
        lab(inventory, "start")
        yield inventory
    finally:
        lab(inventory, "clean")


def test_check_mode_on_an_untouched_host_previews_the_whole_site(site: Path) -> None:
    run = run_playbook("site.yml", "--check", inventory=(site,), lab=LAB)
    assert not run.failed, run.output[-4000:]
    assert "package_source : Declare the mirror to dnf" in run.changed_tasks("single1")


def test_one_host_in_every_group_serves_customers(site: Path) -> None:
    lab(site, "up")
    address = engine.ensure().containers.get(f"{LAB}-single1").labels["bank.lab.address"]
    with Customer(f"https://{address}", site / "pki/ca.crt") as session:
        answer = session.log_in(CUSTOMER, secrets.ensure()["vault_bank_demo_password"])
        assert answer.url.endswith("/accounts"), answer.text


def test_a_second_run_on_one_host_changes_nothing(site: Path) -> None:
    run = run_playbook("site.yml", inventory=(site,), lab=LAB)
    assert not run.failed, run.output[-4000:]
    assert run.changed == {"single1": 0}, run.changed_tasks("single1")
