"""Every role is complete, and says the same thing in its defaults and in its specification."""

from __future__ import annotations

import re
from typing import Any

import pytest

from tests.content.conftest import PROJECT, ROLES, read_yaml, tasks_of, text_files

PYTHON_TYPES = {"str": str, "path": str, "int": int, "bool": bool, "list": list, "dict": dict, "float": (int, float)}
# Prefixes of variables that several roles share.
SHARED = ("platform_", "package_")
TASK_FILES = ("tasks", "handlers")
# Ansible runs a command line through /bin/sh in these.
SHELLS = {"ansible.builtin.shell", "ansible.builtin.raw", "shell", "raw"}


def options(role: str) -> dict[str, Any]:
    entries = read_yaml(PROJECT / "roles" / role / "meta/argument_specs.yml")["argument_specs"]
    return {name: spec for entry in entries.values() for name, spec in (entry.get("options") or {}).items()}


def defaults(role: str) -> dict[str, Any]:
    path = PROJECT / "roles" / role / "defaults/main.yml"
    return (read_yaml(path) or {}) if path.exists() else {}


def test_there_are_roles() -> None:
    assert ROLES


@pytest.mark.parametrize("role", ROLES)
def test_role_is_complete(role: str) -> None:
    folder = PROJECT / "roles" / role
    needed = ("README.md", "meta/main.yml", "meta/argument_specs.yml", "tasks/main.yml")
    missing = [name for name in needed if not (folder / name).is_file()]
    assert not missing, f"role {role} lacks {missing}"
    assert (PROJECT / "molecule" / role / "molecule.yml").is_file(), f"role {role} has no scenario in molecule/{role}"
    assert len((folder / "README.md").read_text(encoding="utf-8").splitlines()) <= 80, "a README is one screen"
    info = read_yaml(folder / "meta/main.yml")["galaxy_info"]
    assert info["license"] == "MIT"
    assert {platform["name"] for platform in info["platforms"]} == {"EL"}


@pytest.mark.parametrize("role", ROLES)
def test_defaults_equal_the_specification(role: str) -> None:
    declared, given = options(role), defaults(role)
    with_default = {name: spec["default"] for name, spec in declared.items() if "default" in spec}
    assert set(with_default) == set(given), (
        "defaults/main.yml and the defaults of meta/argument_specs.yml name different variables"
    )
    different = {
        name: (given[name], value)
        for name, value in with_default.items()
        if given[name] != value or type(given[name]) is not type(value)
    }
    assert not different, f"(defaults/main.yml, argument_specs.yml) differ: {different}"
    # Variables that several roles share have no default in one of them.
    neither = [
        name
        for name, spec in declared.items()
        if "default" not in spec and not spec.get("required") and name.startswith(f"{role}_")
    ]
    assert not neither, f"neither required nor with a default: {neither}"
    both = [name for name, spec in declared.items() if "default" in spec and spec.get("required")]
    assert not both, f"required, and with a default: {both}"


@pytest.mark.parametrize("role", ROLES)
def test_specification_is_plausible(role: str) -> None:
    for name, spec in options(role).items():
        assert name.startswith((f"{role}_", *SHARED)) or name == role, f"{name} lacks the prefix of role {role}"
        assert spec.get("description"), f"{name} has no description"
        assert spec.get("type"), f"{name} has no type"
        default = spec.get("default")
        if default is not None and not (isinstance(default, str) and "{{" in default) and spec["type"] in PYTHON_TYPES:
            expected = PYTHON_TYPES[spec["type"]]
            assert isinstance(default, expected), f"default of {name} is not of type {spec['type']}"
            assert spec["type"] != "int" or not isinstance(default, bool), name
        if spec["type"] == "list":
            assert spec.get("elements"), f"{name} does not say what its elements are"
        if spec.get("choices") and default is not None and "{{" not in str(default):
            assert set(default if isinstance(default, list) else [default]) <= set(spec["choices"]), name


@pytest.mark.parametrize("role", ROLES)
def test_names_carry_the_prefix(role: str) -> None:
    folder = PROJECT / "roles" / role
    allowed = (f"{role}_", f"__{role}_")
    for path in folder.glob("vars/*.yml"):
        wrong = [name for name in (read_yaml(path) or {}) if not name.startswith(allowed)]
        assert not wrong, f"{path.relative_to(PROJECT)}: {wrong}"
    for kind in TASK_FILES:
        for path in folder.glob(f"{kind}/*.yml"):
            for task in tasks_of(read_yaml(path)):
                names = [task["register"]] if "register" in task else []
                names += [name for name in task.get("ansible.builtin.set_fact") or {} if name != "cacheable"]
                wrong = [name for name in names if not name.startswith(allowed)]
                assert not wrong, f"{path.relative_to(PROJECT)}: {wrong}"


@pytest.mark.parametrize("role", ROLES)
def test_tasks_use_full_names_and_no_shell(role: str) -> None:
    words = {
        "name",
        "when",
        "vars",
        "register",
        "loop",
        "loop_control",
        "notify",
        "listen",
        "tags",
        "block",
        "rescue",
        "always",
    }
    for kind in TASK_FILES:
        for path in (PROJECT / "roles" / role).glob(f"{kind}/*.yml"):
            for task in tasks_of(read_yaml(path)):
                modules = [
                    key
                    for key, value in task.items()
                    if key not in words and ("." in key or key in SHELLS or key.startswith("with_"))
                ]
                assert not set(modules) & SHELLS, f"{path.relative_to(PROJECT)}: {task.get('name')} uses a shell"
                assert not [key for key in modules if key.startswith("with_")], (
                    f"{path.relative_to(PROJECT)}: {task.get('name')}"
                )
                assert task.get("name") or "import_tasks" in str(task), (
                    f"{path.relative_to(PROJECT)} has a task without a name"
                )


def test_table_of_roles_is_complete() -> None:
    table = read_yaml(PROJECT / "group_vars/all/platform_roles.yml")
    assert set(table["platform_roles"]) == set(ROLES), (
        "group_vars/all/platform_roles.yml and roles/ name different roles"
    )
    groups = set(table["platform_groups"]) | {"all"}
    for role, row in table["platform_roles"].items():
        assert set(row) <= {"groups", "called", "secrets", "ports", "units", "replaces", "remove", "keep"}, role
        assert set(row["groups"]) <= groups, f"{role} names a group that platform_groups lacks"
        unknown = set(row.get("ports", {})) - set(options(role))
        assert not unknown, f"{role} has no such port variable: {unknown}"
        for name, value in row.get("ports", {}).items():
            assert defaults(role)[name] == value, f"{name} has another default in role {role}"


def test_preflight_knows_every_secret() -> None:
    """A secret that a role reads is one that preflight asks for on the hosts of that role."""
    table = read_yaml(PROJECT / "group_vars/all/platform_roles.yml")
    known = {name for row in table["platform_roles"].values() for name in row.get("secrets", [])} | set(
        table["platform_optional_secrets"]
    )
    pattern = re.compile(r"\bvault_[a-z0-9_]+\b")
    for role in ROLES:
        for path, text in text_files(
            f"roles/{role}/defaults", f"roles/{role}/tasks", f"roles/{role}/templates", f"roles/{role}/vars"
        ):
            unknown = set(pattern.findall(text)) - known
            assert not unknown, (
                f"{path.relative_to(PROJECT)} reads {unknown}, which group_vars/all/platform_roles.yml lacks"
            )
            own = set(table["platform_roles"][role].get("secrets", [])) | set(table["platform_optional_secrets"])
            assert set(pattern.findall(text)) <= own, (
                f"the row of {role} in platform_roles lacks {set(pattern.findall(text)) - own}"
            )
    used: set[str] = set()
    for path, text in text_files("group_vars", "playbooks", "site.yml", "roles"):
        found = set(pattern.findall(text))
        if path.name != "platform_roles.yml":
            used |= found
        if path.suffix == ".yml" and "roles" not in path.parts:
            assert found <= known, f"{path.relative_to(PROJECT)} reads {found - known}, which platform_roles.yml lacks"
    assert known - set(table["platform_optional_secrets"]) <= used, f"nothing reads {known - used}"


def test_example_lists_every_secret() -> None:
    table = read_yaml(PROJECT / "group_vars/all/platform_roles.yml")
    known = {name for row in table["platform_roles"].values() for name in row.get("secrets", [])} | set(
        table["platform_optional_secrets"]
    )
    text = (PROJECT / "inventories/example/vault.example.txt").read_text(encoding="utf-8")
    assert set(re.findall(r"^(?:# )?(vault_\w+):", text, re.MULTILINE)) == known
    assert not re.search(r"^(?:# )?vault_\w+: *\S", text, re.MULTILINE), "the example must hold no values"
