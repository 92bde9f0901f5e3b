"""Nothing secret and nothing stray is in the repository."""

from __future__ import annotations

import re

from tests.content.conftest import PROJECT, Value, read_yaml, repository, text_files

SECRET_KEY = re.compile(r"(password|passphrase|secret|token|secret_key|api_key|private_key)$")
# Options of modules and programs that end like a secret but hold none, words that describe one, names in a keystore.
NO_SECRET = re.compile(
    r"^($|/|!|\{\{|\$\{[A-Z_]+}$|true$|false$|yes$|no$|always$|on_create$|str$|path$|scram-sha-256$)"
)
CREDENTIALS = re.compile(
    r"-----BEGIN [A-Z ]*PRIVATE KEY-----|\bAKIA[0-9A-Z]{16}\b|\bgh[pousr]_[A-Za-z0-9]{36}\b|\bglsa_[A-Za-z0-9_]{32,}|"
    r"\bxox[baprs]-[A-Za-z0-9-]{10,}|[a-z]+://[^/\s:@{}$<>\"']+:[^/\s@{}$<>\"']{6,}@[a-z0-9]"
)
STRAY = re.compile(r"(\.(orig|rej|bak|swp|pyc|log|retry|tar|gz|rpm|pem|key|crt|p12)|~|\.DS_Store)$")


def literals(value: Value, path: tuple[str, ...] = ()) -> list[tuple[tuple[str, ...], str]]:
    """Every string of a document with the keys that lead to it."""
    if isinstance(value, dict):
        return [found for key, inner in value.items() for found in literals(inner, (*path, str(key)))]
    if isinstance(value, list):
        return [found for inner in value for found in literals(inner, path)]
    return [(path, value)] if isinstance(value, str) else []


def test_no_credentials() -> None:
    # Tests make secrets up, and so do the examples of lines out of which Logstash takes them.
    invented = ("tests/", "files/logstash/examples/")
    found = [
        f"{path.relative_to(PROJECT)}: {match.group()[:30]}"
        for path, text in text_files()
        for match in CREDENTIALS.finditer(text)
        if not any(folder in str(path.relative_to(PROJECT)) for folder in invented)
    ]
    assert not found


def test_no_secret_has_a_value() -> None:
    """In roles, playbooks and inventories a secret is a reference, never a literal."""
    found = []
    for path in repository():
        relative = path.relative_to(PROJECT)
        if path.suffix not in (".yml", ".yaml") or relative.parts[0] not in (
            "roles",
            "playbooks",
            "group_vars",
            "inventories",
            "site.yml",
        ):
            continue
        if path.name in ("argument_specs.yml", "platform_roles.yml"):
            continue
        document = read_yaml(path)
        found += [
            f"{relative}: {'.'.join(keys)}"
            for keys, value in literals(document)
            if keys and SECRET_KEY.search(keys[-1]) and not NO_SECRET.match(value)
        ]
    assert not found, f"write these as references to vault variables: {found}"


def test_vault_files_are_encrypted() -> None:
    for path in repository():
        if path.name in ("vault.yml", "vault.yaml", "secrets.yml"):
            assert path.read_text(encoding="utf-8").startswith("$ANSIBLE_VAULT;"), (
                f"{path.relative_to(PROJECT)} is not encrypted"
            )


def test_no_stray_files() -> None:
    stray = [str(path.relative_to(PROJECT)) for path in repository() if STRAY.search(path.name)]
    assert not stray


def test_a_port_has_one_place() -> None:
    """Numbers are in group_vars/all/ports.yml; everything else uses their names.

    Specifications are left out: their defaults equal defaults/main.yml, and their texts may give examples.
    """
    ports = {str(value) for value in read_yaml(PROJECT / "group_vars/all/ports.yml").values()}
    assert ports
    # Short numbers mean many things; only behind a colon or a word for port are they surely ports.
    long = "|".join(sorted(port for port in ports if len(port) > 3))
    short = "|".join(sorted(port for port in ports if len(port) <= 3))
    pattern = re.compile(rf"(?<![\d.\w])({long})(?![\d.\w])|(?:port[ :=]+|:)({short})(?!\w)")
    # What SELinux's policy or another product says about a number is no choice of the platform.
    comparison = re.compile(r"_port \| int (==|!=|in|not in) ")
    found = []
    for path, text in text_files("roles", "playbooks", "site.yml", "group_vars", "inventories/example"):
        relative = path.relative_to(PROJECT)
        if path.name in ("README.md", "ports.yml", "argument_specs.yml"):
            continue
        for number, line in enumerate(text.splitlines(), 1):
            if line.lstrip().startswith(("#", "- name:")) or comparison.search(line):
                continue
            if match := pattern.search(line):
                found.append(f"{relative}:{number}: {match.group().strip()}")
    assert not found, "use the names of group_vars/all/ports.yml:\n" + "\n".join(found)
