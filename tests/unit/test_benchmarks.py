"""The benchmarks measure sites that the platform accepts."""

from pathlib import Path

import pytest
import yaml

from benchmarks import converge
from lab import hosts
from lab.settings import PROJECT


def test_measured_site_has_every_group_that_a_site_needs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(converge, "STATE", tmp_path)
    site = hosts.inventory(converge.inventory(4))
    table = yaml.safe_load((PROJECT / "group_vars" / "all" / "platform_roles.yml").read_text(encoding="utf-8"))
    needed = {group for group, entry in table["platform_groups"].items() if entry["minimum"]}
    assert needed <= {group for host in site for group in host.groups}
    assert sum("bank_app" in host.groups for host in site) == 4
    assert all(not host.published for host in site)
