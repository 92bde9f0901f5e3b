"""The lab's secrets: generated once, readable by this user alone."""

import os
import secrets
import string
from pathlib import Path

import yaml

from lab.settings import MOLECULE_SECRETS, PROJECT, SECRETS

# Typed by people into a browser or a terminal, so made of letters and digits only.
TYPED_BY_PEOPLE = {
    "vault_alertmanager_web_password",
    "vault_bank_demo_password",
    "vault_elasticsearch_operator_password",
    "vault_grafana_operator_password",
    "vault_haproxy_stats_password",
    "vault_prometheus_web_password",
}
# Characters that break careless quoting in shells, URLs, INI, YAML, SQL and format strings.
HOSTILE = " '\"$HOME`id`%d%%\\{{é#&:@/?"
# An HTTP header carries printable ASCII without blanks, Grafana's log-in at PostgreSQL no blanks, and keystores of the
# Elastic stack nothing but ASCII.
PRINTABLE_ASCII = {
    "vault_apm_server_secret_token",
    "vault_bank_webhook_secret",
    "vault_grafana_postgresql_password",
    "vault_kibana_reporting_encryption_key",
    "vault_kibana_saved_objects_encryption_key",
    "vault_kibana_security_encryption_key",
    "vault_logstash_elasticsearch_password",
    "vault_logstash_keystore_password",
}
HOSTILE_ASCII = "".join(character for character in HOSTILE if "!" <= character <= "~")
LENGTH = 32


def names() -> list[str]:
    """Return the names of all secrets, from the table that preflight checks."""
    table = yaml.safe_load((PROJECT / "group_vars/all/platform_roles.yml").read_text(encoding="utf-8"))
    required = {name for role in table["platform_roles"].values() for name in role.get("secrets", [])}
    return sorted(required | set(table["platform_optional_secrets"]))


def generate(name: str, *, hostile: bool) -> str:
    """Return a new random secret; a hostile one ends with characters that break careless quoting."""
    value = "".join(secrets.choice(string.ascii_letters + string.digits) for _ in range(LENGTH))
    if not hostile:
        return value
    return value + (HOSTILE_ASCII if name in PRINTABLE_ASCII else HOSTILE)


def ensure_file(path: Path, typed: set[str]) -> dict[str, str]:
    """Add the secrets that ``path`` lacks, keep those it has, and return all.

    The file is marked unsafe for templating, because a secret may hold template characters.
    """
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    known: dict[str, str] = {}
    if path.exists():
        loader = yaml.SafeLoader(path.read_text(encoding="utf-8"))
        loader.yaml_constructors = {**yaml.SafeLoader.yaml_constructors, "!unsafe": construct_unsafe}
        known = loader.get_single_data() or {}
    merged = {name: known.get(name) or generate(name, hostile=name not in typed) for name in names()}
    if merged != known:
        lines = ["---", *(f"{name}: !unsafe {quoted(value)}" for name, value in merged.items()), ""]
        descriptor = os.open(path.with_suffix(".new"), os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
            stream.write("\n".join(lines))
        path.with_suffix(".new").replace(path)
    return merged


def construct_unsafe(loader: yaml.SafeLoader, node: yaml.ScalarNode) -> str:
    """Read Ansible's ``!unsafe`` scalar as a plain string."""
    return str(loader.construct_scalar(node))


def quoted(value: str) -> str:
    """Return a YAML single-quoted scalar."""
    return "'" + value.replace("'", "''") + "'"


def ensure() -> dict[str, str]:
    """Make the secrets of the lab and of the role tests; return the lab's."""
    ensure_file(MOLECULE_SECRETS, set())
    return ensure_file(SECRETS, TYPED_BY_PEOPLE)
