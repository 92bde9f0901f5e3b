"""The benchmarks measure sites that the platform accepts, and count as they say."""

import json
from pathlib import Path

import pytest
import yaml

from benchmarks import converge, metrics
from lab import hosts
from lab.settings import PROJECT, LabError


def test_measured_site_has_every_group_that_a_site_needs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(converge, "STATE", tmp_path)
    site = hosts.inventory(converge.inventory(4))
    table = yaml.safe_load((PROJECT / "group_vars" / "all" / "platform_roles.yml").read_text(encoding="utf-8"))
    needed = {group for group, entry in table["platform_groups"].items() if entry["minimum"]}
    assert needed <= {group for host in site for group in host.groups}
    assert sum("bank_app" in host.groups for host in site) == 4
    assert all(not host.published for host in site)


def test_p95_is_one_of_the_values() -> None:
    assert metrics.middle_and_high([float(n) for n in range(1, 11)]) == {"p50": 5.5, "p95": 10.0, "max": 10.0}
    assert metrics.middle_and_high([float(n) for n in range(1, 101)])["p95"] == 95.0


def test_expressions_of_dashboards_are_asked_once_without_their_variables(tmp_path: Path) -> None:
    def panel(kind: str, *asked: str) -> dict[str, object]:
        return {"targets": [{"datasource": {"type": kind}, "expr": text} for text in asked]}

    rate = 'rate(x{site=~"$site", host=~"${host:regex}"}[$__rate_interval])'
    board = {"panels": [panel("prometheus", rate, "up"), panel("prometheus", "up"), panel("elasticsearch", "*"), {}]}
    (tmp_path / "board.json").write_text(json.dumps(board), encoding="utf-8")
    assert metrics.expressions(tmp_path) == ['rate(x{site=~".*", host=~".*"}[1m])', "up"]


def test_folder_without_dashboards_is_refused(tmp_path: Path) -> None:
    with pytest.raises(LabError, match="has no dashboard that asks Prometheus"):
        metrics.expressions(tmp_path)
