"""Names, folders and versions that the lab's modules share."""

import os
import re
from pathlib import Path
from typing import Any

import yaml

PROJECT = Path(__file__).parents[1]
# A second lab beside the first needs a name and an inventory of its own.
DEFAULT_NAME = "bank-lab"
NAME = os.environ.get("LAB_NAME", DEFAULT_NAME)
INVENTORY = Path(os.environ.get("LAB_INVENTORY", PROJECT / "inventories" / "lab"))
STATE = PROJECT / ".lab"
LOGS = STATE / "logs" if NAME == DEFAULT_NAME else STATE / "logs" / NAME
SSH_KEY = STATE / "ssh-key"
KNOWN_HOSTS = STATE / "known-hosts"
ADDRESSES = STATE / "addresses.yml"
AUTHORITY = STATE / "pki"
SECRETS = STATE / "secrets.yml"
MOLECULE_SECRETS = STATE / "molecule-secrets.yml"
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "bank-lab"

# "standin" builds everything offline; "el9" runs any EL9 image with systemd against the upstream repositories.
PLATFORM = os.environ.get("LAB_PLATFORM", "standin")
EL9_IMAGE = os.environ.get("LAB_EL9_IMAGE", "docker.io/rockylinux/rockylinux:9-ubi-init")

HOST_IMAGE = "bank-lab/host:current" if PLATFORM == "standin" else EL9_IMAGE
MIRROR = "bank-lab-mirror"
MIRROR_PORT = 8080
# The bank's hosts share one network; the monitoring hosts have a second one of their own.
BANK_NETWORK = f"{NAME}-banknet"
MONITORING_NETWORK = f"{NAME}-monitoring"
MOLECULE_NETWORK = "bank-molecule"
LABEL = "bank.lab"
REFERENCE = re.compile(r"\{\{ platform_version_(\w+) \}\}")
HOST_LABEL = f"host of {NAME}"
NETWORK_LABEL = f"network of {NAME}"


class LabError(Exception):
    """A failure that the user can mend; its text says what is wrong, where, and the next step."""


def versions() -> dict[str, str]:
    """Return the product versions of the lab: those of every site, with the lab's own on top."""
    merged: dict[str, Any] = {}
    for file in (PROJECT / "group_vars/all/versions.yml", PROJECT / "inventories/lab/group_vars/all/lab.yml"):
        merged |= yaml.safe_load(file.read_text(encoding="utf-8"))
    prefix = "platform_version_"
    found = {key.removeprefix(prefix): str(value) for key, value in merged.items() if key.startswith(prefix)}
    # A product may follow another's version.
    followed = {name: REFERENCE.fullmatch(value) for name, value in found.items()}
    return {name: found[match[1]] if (match := followed[name]) else value for name, value in found.items()}


def platform_roles() -> dict[str, dict[str, Any]]:
    """Return the table of roles: whose hosts get each, and what it brings there."""
    file = PROJECT / "group_vars/all/platform_roles.yml"
    return yaml.safe_load(file.read_text(encoding="utf-8"))["platform_roles"]


def roles_of(groups: set[str] | None = None) -> set[str]:
    """Return the roles that hosts in the given inventory groups get, or every role of the platform."""
    table = platform_roles()
    return {role for role, entry in table.items() if groups is None or {"all", *groups} & set(entry["groups"])}
