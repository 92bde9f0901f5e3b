"""Every playbook is sound with every inventory, and sees the same variables wherever it is started."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest
import yaml

from tests.content.conftest import INVENTORIES, PLAYBOOKS, PROJECT, read_yaml, tasks_of

QUIET = {"ANSIBLE_NOCOLOR": "1", "ANSIBLE_FORCE_COLOR": "0", "ANSIBLE_LOCALHOST_WARNING": "false"}


def ansible(*command: str, **environment: str) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, **QUIET, **environment}
    return subprocess.run(command, cwd=PROJECT, env=env, capture_output=True, text=True, check=False, timeout=120)


@pytest.mark.parametrize("inventory", INVENTORIES, ids=str)
def test_syntax(inventory: Path) -> None:
    done = ansible("ansible-playbook", "--syntax-check", "-i", str(inventory), *map(str, PLAYBOOKS))
    assert done.returncode == 0, done.stderr
    assert "Unable to parse" not in done.stderr, done.stderr
    assert all(f"playbook: {playbook}" in done.stdout for playbook in PLAYBOOKS)


def test_site_starts_with_preflight() -> None:
    imported = [
        play.get("ansible.builtin.import_playbook") or play.get("import_playbook")
        for play in read_yaml(PROJECT / "site.yml")
    ]
    assert imported[0] == "playbooks/preflight.yml", "nothing may be changed before preflight has agreed"


@pytest.mark.parametrize("playbook", PLAYBOOKS, ids=str)
def test_playbook_gathers_no_facts_by_itself(playbook: Path) -> None:
    """Facts are gathered once, by playbooks/facts.yml or preflight; every further time costs each run seconds."""
    for play in read_yaml(PROJECT / playbook):
        if "hosts" in play:
            assert play.get("gather_facts") is False, f"{playbook}: {play.get('name')}"
        for task in tasks_of(play.get("tasks")):
            assert not {"ansible.builtin.shell", "ansible.builtin.raw"} & set(task), f"{playbook}: {task.get('name')}"


def plain_variables() -> list[str]:
    """Shared variables of every host whose values hold no template."""
    found = []
    for path in sorted((PROJECT / "group_vars/all").rglob("*.yml")):
        found += [name for name, value in (read_yaml(path) or {}).items() if "{{" not in json.dumps(value)]
    return found


def variables(playbook_folder: str, inventory: Path) -> dict[str, object]:
    """Return what a play that was started from a folder sees on a host."""
    names = ", ".join(f"'{name}': {name} | default('missing')" for name in [*plain_variables(), "postgresql_users"])
    expression = json.dumps({"ansible_connection": "local", "seen": "{{ {" + names + "} }}"})
    command = ["ansible", "all", "-i", str(inventory), "--playbook-dir", playbook_folder, "-e", expression]
    output = {"ANSIBLE_LOAD_CALLBACK_PLUGINS": "true", "ANSIBLE_STDOUT_CALLBACK": "ansible.posix.json"}
    done = ansible(*command, "-m", "ansible.builtin.debug", "-a", "var=seen", **output)
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(done.stdout[done.stdout.index("{") :])["plays"][0]["tasks"][0]["hosts"]["one"]["seen"]


@pytest.fixture
def inventory(tmp_path: Path) -> Path:
    folder = tmp_path / "inventory"
    (folder / "group_vars").mkdir(parents=True)
    (folder / "hosts.yml").write_text(yaml.safe_dump({"postgresql": {"hosts": {"one": {}}}}), encoding="utf-8")
    own = {"platform_domain": "site.example.com", "platform_port_redis": 16379, "postgresql_users": []}
    (folder / "group_vars/all.yml").write_text(yaml.safe_dump(own), encoding="utf-8")
    return folder


def test_group_vars_are_the_same_everywhere(inventory: Path) -> None:
    """Ansible reads group_vars beside the playbook: playbooks/ must see what site.yml sees."""
    from_site = variables(".", inventory)
    assert (
        from_site["platform_port_postgresql"]
        == read_yaml(PROJECT / "group_vars/all/ports.yml")["platform_port_postgresql"]
    )
    assert "missing" not in from_site.values()
    assert variables("playbooks", inventory) == from_site


def test_inventory_wins_over_group_vars_of_the_project(inventory: Path) -> None:
    seen = variables("playbooks", inventory)
    assert seen["platform_domain"] == "site.example.com"
    assert seen["platform_port_redis"] == 16379
    assert seen["postgresql_users"] == [], "also over what the project says about one group"
