"""Every test that was written is run: none hides behind a wrong name."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests import runner
from tests.content.conftest import PROJECT, ROLES, read_yaml, repository

NO_SCENARIOS = {"shared", "__pycache__"}
SCENARIOS = sorted(
    path.name for path in (PROJECT / "molecule").iterdir() if path.is_dir() and path.name not in NO_SCENARIOS
)


def functions(path: Path) -> list[str]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return [node.name for node in ast.walk(tree) if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))]


def test_every_role_has_a_scenario_and_every_scenario_a_role() -> None:
    # A role may have more than one: postgresql, and postgresql_replicas for example.
    owners = {scenario: [role for role in ROLES if f"{scenario}_".startswith(f"{role}_")] for scenario in SCENARIOS}
    assert {role for found in owners.values() for role in found} == set(ROLES)
    assert not [scenario for scenario, found in owners.items() if not found]


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_scenario_is_named_and_filled(scenario: str) -> None:
    folder = PROJECT / "molecule" / scenario
    assert (folder / "molecule.yml").is_file(), "Molecule finds scenarios by molecule.yml alone"
    tests = sorted(folder.glob("tests/test_*.py"))
    assert tests, f"molecule/{scenario}/tests has no test_*.py"
    for path in tests:
        assert any(name.startswith("test_") for name in functions(path)), (
            f"{path.relative_to(PROJECT)} has no test function"
        )
    settings = read_yaml(folder / "molecule.yml") or {}
    assert "scenario" not in settings, (
        f"molecule/{scenario} must not change the sequence: check, converge, idempotence, verify"
    )
    assert "verifier" not in settings, f"molecule/{scenario} must not change the verifier"


def test_base_keeps_the_whole_sequence() -> None:
    sequence = read_yaml(PROJECT / ".config/molecule/config.yml")["scenario"]["test_sequence"]
    wanted = ["check", "converge", "idempotence", "verify"]
    assert [step for step in sequence if step in wanted] == wanted


def test_no_test_function_is_outside_a_test_file() -> None:
    hidden = []
    for path in repository():
        if (
            path.suffix == ".py"
            and not path.name.startswith("test_")
            and {"tests", "molecule"} & set(path.relative_to(PROJECT).parts)
        ):
            hidden += [f"{path.relative_to(PROJECT)}: {name}" for name in functions(path) if name.startswith("test_")]
    assert not hidden, "pytest collects test_*.py only"


def test_pytest_collects_every_file(tmp_path: Path) -> None:
    """Compares what pytest collects with what is on disk, scenarios and platform tests alike."""
    on_disk = {
        str(path.relative_to(PROJECT))
        for path in repository()
        if path.name.startswith("test_")
        and path.suffix == ".py"
        and path.relative_to(PROJECT).parts[0] in ("tests", "molecule")
    }
    command = [
        sys.executable,
        "-m",
        "pytest",
        "--collect-only",
        "-q",
        "--import-mode=importlib",
        "-p",
        "no:cacheprovider",
        "tests",
        "molecule",
    ]
    # What Molecule tells the tests of a scenario; some read it while they are imported.
    told = {
        "MOLECULE_EPHEMERAL_DIRECTORY": str(tmp_path),
        "MOLECULE_INVENTORY_FILE": str(PROJECT / "tests/inventories/single_host/hosts.yml"),
        "MOLECULE_PROJECT_DIRECTORY": str(PROJECT),
        "MOLECULE_SCENARIO_NAME": "collection",
    }
    env = {**os.environ, **told}
    done = subprocess.run(command, cwd=PROJECT, env=env, capture_output=True, text=True, check=False)
    collected = {line.split("::")[0] for line in done.stdout.splitlines() if "::" in line}
    assert done.returncode == 0, done.stdout[-3000:]
    assert collected == on_disk


def test_runner_runs_every_scenario_and_folder() -> None:
    names = {check.name for check in runner.all_checks()}
    folders = {path.parent.name for path in (PROJECT / "tests").glob("*/test_*.py")}
    assert {f"molecule {scenario}" for scenario in SCENARIOS} | folders <= names
