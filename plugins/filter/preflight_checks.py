"""Finds what is wrong with an inventory and its hosts, as sentences that name the culprit and the remedy."""

from __future__ import annotations

import datetime
import difflib
import importlib.util
import re
import sys
from collections import defaultdict
from collections.abc import Iterable, Mapping
from functools import lru_cache
from pathlib import Path
from types import ModuleType
from typing import Any
from urllib.parse import urlsplit

import yaml
from ansible.errors import AnsibleError

# Shared names of the platform that belong to no role.
SHARED_PREFIXES = ("platform_", "package_", "vault_")
# What people type when asked for a password. A secret that is little more than such words is refused.
PLACEHOLDER_WORDS = (
    "administrator",
    "placeholder",
    "changethis",
    "elasticsearch",
    "postgresql",
    "correcthorsebatterystaple",
    "changeme",
    "password",
    "passwort",
    "motdepasse",
    "postgres",
    "replace",
    "example",
    "default",
    "prometheus",
    "haproxy",
    "qwertyuiop",
    "qwerty",
    "azerty",
    "letmein",
    "welcome",
    "platform",
    "database",
    "testing",
    "master",
    "please",
    "secret",
    "change",
    "monkey",
    "dragon",
    "redis",
    "vault",
    "admin",
    "user",
    "root",
    "toor",
    "bank",
    "demo",
    "test",
    "pass",
    "todo",
    "this",
    "here",
    "your",
    "key",
    "fix",
    "now",
    "me",
    "my",
    "abcdefghijklmnop",
    "abcdefgh",
    "abcdef",
    "abc",
    "1234567890",
    "0123456789",
    "123456789",
    "12345678",
    "123456",
    "12345",
    "1234",
    "123",
)
# A secret must keep at least this much once such words are taken out, and use this many different characters.
SECRET_REST = 8
SECRET_DISTINCT = 6
DOMAIN = re.compile(
    r"^(?=.{1,253}$)([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\.)*[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$", re.IGNORECASE
)
BOOLEAN_WORDS = ("yes", "no", "on", "off", "true", "false", "1", "0", "y", "n", "t", "f")
DISTRIBUTIONS = ("RedHat", "AlmaLinux", "Rocky", "CentOS")
MISSING = object()
# Whatever YAML can hold.
Value = Any


class Findings:
    """Sentences by host; a sentence that holds for every host is said once."""

    def __init__(self) -> None:
        self._hosts: dict[str, list[str]] = defaultdict(list)

    def add(self, sentence: str, host: str = "") -> None:
        """Note a sentence for a host, or for the inventory as a whole."""
        if host not in self._hosts[sentence]:
            self._hosts[sentence].append(host)

    def render(self, play_hosts: list[str]) -> str:
        """Return the text that the run ends with."""
        if not self._hosts:
            return ""
        sections: dict[str, list[str]] = defaultdict(list)
        for sentence, hosts in self._hosts.items():
            sections[self._title(hosts, play_hosts)].append(sentence)
        count = len(self._hosts)
        lines = [f"{count} finding{'s' if count > 1 else ''}, nothing was changed on any host."]
        for title in sorted(sections, key=lambda name: (name != "inventory", name)):
            lines.append(f"{title}:")
            lines += [f"- {sentence}" for sentence in sections[title]]
        return "\n".join(lines)

    @staticmethod
    def _title(hosts: list[str], play_hosts: list[str]) -> str:
        if "" in hosts:
            return "inventory"
        if len(hosts) > 1 and set(hosts) >= set(play_hosts):
            return f"all {len(hosts)} hosts"
        return ", ".join(sorted(hosts))


class Project:
    """What the repository declares: the options of every role and the shared variables."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.options: dict[str, dict[str, Any]] = {}
        self.required: dict[str, dict[str, Any]] = defaultdict(dict)
        self.shared: dict[str, Any] = {}
        self.roles = sorted(path.name for path in (root / "roles").iterdir() if path.is_dir())
        for role in self.roles:
            for entry in (
                read_yaml(root / "roles" / role / "meta" / "argument_specs.yml").get("argument_specs") or {}
            ).values():
                for name, spec in (entry.get("options") or {}).items():
                    self.options[name] = spec
                    if spec.get("required"):
                        self.required[role][name] = spec
        for path in sorted((root / "group_vars").rglob("*.yml")):
            self.shared.update(read_yaml(path))


def read_yaml(path: Path) -> dict[str, Any]:
    """Return what a YAML file of the project holds; nothing if there is no such file."""
    if not path.is_file():
        return {}
    with path.open(encoding="utf-8") as handle:
        return yaml.load(handle, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)) or {}


@lru_cache(maxsize=4)
def project_at(root: str) -> Project:
    """Return the project in a folder, read once for each process."""
    return Project(Path(root).resolve())


def closest(word: str, choices: Iterable[str]) -> str:
    """Return a question that suggests the most similar of the choices, if there is one."""
    found = difflib.get_close_matches(word, list(choices), n=1, cutoff=0.75)
    return f'; did you mean "{found[0]}"?' if found else ""


def listing(items: Iterable[str]) -> str:
    """Return items in one order, separated by commas."""
    return ", ".join(sorted(items))


# --- groups ---------------------------------------------------------------------------------------------------------


def check_groups(findings: Findings, groups: dict[str, list[str]], table: dict[str, Any]) -> None:
    """Report groups with too few or too many hosts, and names that look misspelt."""
    for name, rule in table.items():
        hosts = list(groups.get(name, []))
        minimum, maximum = rule.get("minimum", 0), rule.get("maximum")
        if len(hosts) < minimum:
            findings.add(
                f'Group "{name}" is empty, but the platform needs a {rule["purpose"]}; put a host into it in the '
                "inventory."
            )
        elif maximum is not None and len(hosts) > maximum:
            findings.add(
                f'Group "{name}" has {len(hosts)} hosts ({listing(hosts)}), but this release runs exactly {maximum} '
                f"{rule['purpose']}; "
                f"keep {maximum} in the group and take the others out."
            )
    known = set(table) | {"all", "ungrouped"}
    for name in groups:
        if name not in known and (hint := closest(name, known)):
            findings.add(
                f'Group "{name}" is unknown{hint} Rename it in the inventory, or give it a name less like a group of '
                "the platform."
            )


# --- variables ------------------------------------------------------------------------------------------------------


def where(name: str, sources: list[str]) -> str:
    """Return the inventory file that sets a variable, if it can be read as plain text."""
    pattern = re.compile(rf"(?<![\w-]){re.escape(name)}['\"]?\s*[:=]")
    for source in sources:
        top = Path(source)
        if top.is_file() and not top.name.endswith((".yml", ".yaml", ".ini", "hosts")):
            continue
        base = top if top.is_dir() else top.parent
        files = [top] if top.is_file() else []
        files += [
            path
            for path in sorted(base.rglob("*"))
            if path.is_file()
            and path.suffix in ("", ".yml", ".yaml", ".ini", ".json")
            and path.stat().st_size < 1_000_000
        ]
        for path in files:
            for number, line in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), 1):
                if pattern.search(line) and not line.lstrip().startswith("#"):
                    return f" ({path.parent.name}/{path.name}, line {number})"
    return ""


def type_problem(value: object, spec: dict[str, Any], label: str, secret: bool) -> str:
    """Return why a value does not fit its specification, or an empty string."""
    shown = "" if secret else f", but is {describe(value)}"
    kind = spec.get("type", "str")
    if value is None:
        return "" if not spec.get("required") else f"{label} must not be empty"
    if not fits(value, kind):
        return f"{label} must be {TYPE_NAMES.get(kind, kind)}{shown}"
    choices = spec.get("choices")
    if choices and any(item not in choices for item in (value if kind == "list" else [value])):
        return f"{label} must be one of {', '.join(str(item) for item in choices)}{shown}"
    nested = spec.get("options")
    if kind == "list":
        for index, item in enumerate(value):
            element = {"type": spec.get("elements", "raw"), "options": nested}
            if problem := type_problem(item, element, f"{label}[{index}]", secret):
                return problem
    elif kind == "dict" and nested:
        for key in value:
            if key not in nested:
                return f'{label} has no key "{key}"{closest(str(key), nested).rstrip("?")}'
        for key, inner in nested.items():
            if key in value:
                if problem := type_problem(value[key], inner, f"{label}.{key}", secret or bool(inner.get("no_log"))):
                    return problem
            elif inner.get("required"):
                return f'{label} lacks the key "{key}"'
    return ""


TYPE_NAMES = {
    "str": "a string",
    "path": "a path",
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "list": "a list",
    "dict": "a mapping",
}


def describe(value: object) -> str:
    """Return a value in words."""
    if isinstance(value, bool):
        return f"the boolean {str(value).lower()}"
    if isinstance(value, str):
        return f'the string "{value if len(value) <= 40 else value[:37] + "..."}"'
    if isinstance(value, (int, float)):
        return f"the number {value}"
    return (
        "a mapping"
        if isinstance(value, dict)
        else "a list"
        if isinstance(value, (list, tuple))
        else type(value).__name__
    )


def fits(value: object, kind: str) -> bool:
    """Return whether a value is of a type, or is text that says the same."""
    if kind in ("str", "path"):
        return isinstance(value, (str, int, float)) and not isinstance(value, bool)
    if kind == "int":
        return not isinstance(value, bool) and (
            isinstance(value, int) or (isinstance(value, str) and re.fullmatch(r"-?\d+", value) is not None)
        )
    if kind == "float":
        return not isinstance(value, bool) and (
            isinstance(value, (int, float))
            or (isinstance(value, str) and re.fullmatch(r"-?\d+(\.\d+)?", value) is not None)
        )
    if kind == "bool":
        return isinstance(value, bool) or str(value).lower() in BOOLEAN_WORDS
    if kind == "list":
        return isinstance(value, (list, tuple))
    if kind == "dict":
        return isinstance(value, dict)
    return True


def type_of_default(default: object) -> str:
    """Return the type of a shared variable, from the value that the project gives it; templates say nothing."""
    for kind, name in ((bool, "bool"), (int, "int"), (list, "list"), (dict, "dict")):
        if isinstance(default, kind):
            return name
    return "raw" if isinstance(default, str) and "{{" in default else "str" if isinstance(default, str) else "raw"


def look_up(variables: Mapping[str, Any], name: str) -> tuple[Any, str]:
    """Return the value of a variable on its host, or why it has none."""
    try:
        value = variables[name]
    except (AnsibleError, KeyError) as error:
        return MISSING, str(error).splitlines()[0].rstrip(".")
    # Some releases of ansible-core hand out undefined values as markers instead of raising.
    return (MISSING, "it is undefined") if type(value).__name__.endswith(("Undefined", "Marker")) else (value, "")


class Host:
    """One host of the inventory, with its variables evaluated on demand."""

    def __init__(
        self, name: str, raw: Mapping[str, Any], variables: Mapping[str, Any], groups: dict[str, list[str]]
    ) -> None:
        self.name = name
        self.raw = raw
        self.variables = variables
        self.groups = [group for group, hosts in groups.items() if name in hosts]
        facts = look_up(variables, "ansible_facts")[0]
        self.facts: dict[str, Any] = facts if isinstance(facts, dict) else {}
        self.table = self.get("platform_roles", {})
        self.roles = {role: row for role, row in self.table.items() if set(row["groups"]) & {*self.groups, "all"}}

    def get(self, name: str, default: Value = None) -> Value:
        """Return the value of a variable, or the default if it has none that can be used."""
        value = look_up(self.variables, name)[0]
        return default if value is MISSING else value

    def result(self, name: str) -> dict[str, Any]:
        """Return what a task registered on this host."""
        value = self.get(name, {})
        return value if isinstance(value, dict) else {}


def check_variables(findings: Findings, project: Project, host: Host, sources: list[str], secrets: set[str]) -> None:
    """Report names that nobody reads, and values of the wrong type."""
    known = set(project.options) | set(project.shared) | secrets
    prefixes = tuple(f"{role}_" for role in project.roles) + SHARED_PREFIXES
    for name, raw in host.raw.items():
        if name in secrets:
            continue
        if name in known:
            if name in project.shared and raw == project.shared[name]:
                continue
            spec = project.options.get(name) or {"type": type_of_default(project.shared[name])}
            value, problem = look_up(host.variables, name)
            label = f'Variable "{name}"'
            if value is not MISSING:
                problem = type_problem(value, spec, label, bool(spec.get("no_log")))
            elif not host.facts or any(secret in problem for secret in secrets):
                # Without facts many values cannot be known; a missing secret is reported under its own name.
                continue
            else:
                problem = f"{label} cannot be evaluated: {problem}"
            if problem:
                findings.add(
                    f"{problem.replace(label, label + where(name, sources), 1)}; correct it in the inventory.",
                    host.name,
                )
        elif name.startswith(prefixes):
            findings.add(
                f'Variable "{name}"{where(name, sources)} is unknown{closest(name, known) or "; nothing reads it."} '
                "Rename it or take it out of the inventory.",
                host.name,
            )
    for role, row in host.roles.items():
        for name in project.required[role]:
            if name not in host.raw and not row.get("called"):
                findings.add(
                    f'Variable "{name}" is missing, but role {role} needs it; set it in the inventory.', host.name
                )


def check_domains(findings: Findings, host: Host) -> None:
    """Report the first that is wrong: the others are usually made from it."""
    for name in ("platform_domain", "platform_bank_domain", "platform_fqdn"):
        value = host.get(name)
        if value is not None and (not isinstance(value, str) or not DOMAIN.match(value)):
            findings.add(
                f'Variable "{name}" must be a domain name, but is {describe(value)}; correct it in the inventory.',
                host.name,
            )
            return


def check_addresses(findings: Findings, hosts: list[Host]) -> None:
    """Report hosts that share an address."""
    owners: dict[str, list[str]] = defaultdict(list)
    for host in hosts:
        if host.facts and (address := host.get("platform_address")):
            owners[str(address)].append(host.name)
    for address, names in owners.items():
        if len(names) > 1:
            findings.add(
                f"Hosts {listing(names)} have the same platform_address {address}; correct their ansible_host or "
                "platform_address "
                "in the inventory, or keep one name and put it into several groups."
            )


# --- secrets --------------------------------------------------------------------------------------------------------


def weakness(value: str, minimum: int) -> str:
    """Return why a secret is too weak, or an empty string. Never shows the secret."""
    if len(value) < minimum:
        return f"has {len(value)} characters, but needs at least {minimum}"
    rest = re.sub(r"[^a-z0-9]", "", value.lower()) if value.isascii() else value.lower()
    for word in PLACEHOLDER_WORDS:
        rest = rest.replace(word, "")
    if len(rest) < SECRET_REST:
        return "is a well-known default"
    if len(set(value)) < SECRET_DISTINCT:
        return "repeats the same few characters"
    return ""


def roles_need(roles: set[str]) -> str:
    """Return the roles that need something, as the subject of a sentence."""
    return f"roles {' and '.join(sorted(roles))} need" if len(roles) > 1 else f"role {next(iter(roles))} needs"


def check_secrets(findings: Findings, project: Project, host: Host) -> None:
    """Report secrets that are missing, weak or used twice."""
    own = {name for row in host.roles.values() for name in row.get("secrets", [])}
    # The sentence names every role that reads the secret, so that it is the same for all hosts and is said once.
    needed: dict[str, set[str]] = defaultdict(set)
    for role, row in host.table.items():
        for name in own & set(row.get("secrets", [])):
            needed[name].add(role)
    seen: dict[str, str] = {}
    for name in sorted(needed) + sorted(set(host.get("platform_optional_secrets", {})) - set(needed)):
        remedy = "set a random one with ansible-vault edit on the inventory's vault file"
        if name not in host.raw:
            if name in needed:
                findings.add(f'Secret "{name}" is missing, but {roles_need(needed[name])} it; {remedy}.', host.name)
            continue
        value, problem = look_up(host.variables, name)
        if value is MISSING:
            findings.add(
                f'Secret "{name}" cannot be evaluated; {remedy} (mark it !unsafe if it holds braces).', host.name
            )
            continue
        if not isinstance(value, str):
            findings.add(
                f'Secret "{name}" must be a string, but is {describe(value).split()[0]} {type(value).__name__}; put '
                "quotes around it.",
                host.name,
            )
            continue
        if name in needed:
            kind = (
                "preflight_minimum_secret_key_length"
                if name.endswith("_secret_key")
                else "preflight_minimum_secret_length"
            )
            if problem := weakness(str(value), int(setting(project, host, kind))):
                findings.add(f'Secret "{name}" {problem}; {remedy}.', host.name)
        if value and str(value) in seen:
            findings.add(
                f'Secrets "{seen[str(value)]}" and "{name}" have the same value; {remedy}, a different one for each.',
                host.name,
            )
        seen.setdefault(str(value), name)


# --- hosts ----------------------------------------------------------------------------------------------------------


def setting(project: Project, host: Host, name: str) -> Value:
    """Return a variable of the role itself: the inventory's value if it has the right type, or the default."""
    spec = project.options[name]
    value = host.get(name, spec["default"])
    return spec["default"] if type_problem(value, spec, name, secret=False) else value


def asked_by_groups(table: dict[str, Any], groups: list[str]) -> dict[str, Any]:
    """Return the part of a table that concerns the groups of a host."""
    return {group: table[group] for group in table if group in {*groups, "all"}}


def paths_of(table: dict[str, dict[str, int]], groups: list[str]) -> list[str]:
    """Return the paths on whose file systems the groups of a host need room."""
    if not isinstance(table, dict):
        # The report says so; looking at the host should not fail because of it.
        return []
    return sorted({path for wanted in asked_by_groups(table, groups).values() for path in wanted})


def check_reached(findings: Findings, host: Host, live_hosts: list[str]) -> bool:
    """Return whether the host could be looked at."""
    address = host.get("ansible_host", host.name)
    for name in ("__preflight_facts", "__preflight_probe"):
        result = host.result(name)
        reason = " ".join(str(result.get("msg", "")).split()).rpartition("over ssh: ")[2]
        reason = reason.removeprefix("Task failed: ")[-200:].rstrip(".")
        if result.get("unreachable"):
            findings.add(
                f'Host "{host.name}" ({address}) cannot be reached ({reason}); start it or correct ansible_host, '
                "ansible_user or its key; "
                f"if it is gone for good, run playbooks/decommission.yml -e decommission_host={host.name} and delete "
                "its line.",
                host.name,
            )
            return False
        if result.get("failed") or (
            name == "__preflight_facts" and not host.facts and result and not result.get("skipped")
        ):
            reason = reason or " ".join(str(result.get("module_stderr", "")).split())[-200:]
            findings.add(
                f'Host "{host.name}" could not be looked at ({reason}); it needs /usr/bin/python3, the ss command and '
                "root rights "
                "(ansible_become).",
                host.name,
            )
            return False
    if host.name not in live_hosts:
        findings.add(
            f'Host "{host.name}" ({address}) failed or could not be reached earlier in this run; see the message '
            "above.",
            host.name,
        )
        return False
    return bool(host.facts)


def check_system(findings: Findings, project: Project, host: Host) -> bool:
    """Return whether the operating system is one that the roles are written for."""
    facts = host.facts
    found = f"{facts.get('distribution')} {facts.get('distribution_version')}"
    releases = [str(release) for release in setting(project, host, "preflight_supported_releases")]
    architectures = setting(project, host, "preflight_supported_architectures")
    if facts.get("distribution") not in DISTRIBUTIONS or str(facts.get("distribution_major_version")) not in releases:
        findings.add(
            f'Host "{host.name}" runs {found}, which is not supported; install RHEL, AlmaLinux, Rocky Linux or '
            f"CentOS Stream {' or '.join(releases)}.",
            host.name,
        )
        return False
    if facts.get("architecture") not in architectures:
        findings.add(
            f'Host "{host.name}" is {facts.get("architecture")}, which is not supported; use '
            f"{' or '.join(architectures)}.",
            host.name,
        )
    if facts.get("service_mgr", "systemd") != "systemd":
        findings.add(
            f'Host "{host.name}" is not run by systemd but by {facts["service_mgr"]}; boot it with systemd.', host.name
        )
    return True


def check_size(findings: Findings, project: Project, host: Host) -> None:
    """Report too little memory or disk."""
    memory = asked_by_groups(setting(project, host, "preflight_minimum_memory_mb"), host.groups)
    found, wanted = int(host.facts.get("memtotal_mb") or 0), sum(memory.values())
    parts = ", ".join(f"{group} {value}" for group, value in memory.items())
    if found and found < wanted:
        findings.add(
            f'Host "{host.name}" has {found} MiB of memory, but its groups need {wanted} ({parts}); give it more, '
            "take it out of a group, "
            "or lower preflight_minimum_memory_mb.",
            host.name,
        )
    systems = host.result("__preflight_probe").get("filesystems", {})
    needs: dict[str, dict[str, int]] = defaultdict(dict)
    for paths in asked_by_groups(setting(project, host, "preflight_minimum_disk_mb"), host.groups).values():
        for path, size in paths.items():
            if path in systems:
                needs[systems[path]["device"]][path] = max(size, needs[systems[path]["device"]].get(path, 0))
    floor = int(setting(project, host, "preflight_minimum_free_mb"))
    for paths in needs.values():
        system = systems[next(iter(paths))]
        if system["size_mb"] < sum(paths.values()):
            findings.add(
                f'File system {system["mount"]} of host "{host.name}" has {system["size_mb"]} MiB, but '
                f"{listing(paths)} need "
                f"{sum(paths.values())}; enlarge it or lower preflight_minimum_disk_mb.",
                host.name,
            )
        elif system["free_mb"] < floor:
            findings.add(
                f'File system {system["mount"]} of host "{host.name}" has {system["free_mb"]} MiB free, but needs '
                f"{floor}; "
                "make room or lower preflight_minimum_free_mb.",
                host.name,
            )


def check_ports(findings: Findings, host: Host) -> None:
    """Report ports that somebody else holds, or that two services of the host claim."""
    listeners: dict[int, list[dict[str, Any]]] = defaultdict(list)
    for listener in host.result("__preflight_probe").get("listeners", []):
        listeners[listener["port"]].append(listener)
    claims: dict[int, list[str]] = defaultdict(list)
    for row in host.roles.values():
        for variable, usual in row.get("ports", {}).items():
            value = host.get(variable, usual)
            if not fits(value, "int"):
                continue
            port = int(value)
            claims[port].append(variable)
            for listener in listeners[port]:
                if listener["unit"] in row["units"] + row.get("replaces", []):
                    continue
                process = f"{listener['process']}, pid {listener['pid']}" if listener["process"] else ""
                owner = " ".join(word for word in (listener["unit"], f"({process})" if process else "") if word)
                owner = owner or "an unknown process"
                findings.add(
                    f'Port {port} of host "{host.name}" ({variable}) is already in use by {owner}; '
                    "stop that process or "
                    f"set {variable}.",
                    host.name,
                )
    for port, variables in claims.items():
        if len(variables) > 1:
            findings.add(
                f'Port {port} of host "{host.name}" is claimed by {" and ".join(variables)}; give one of them another '
                "port.",
                host.name,
            )


def check_rights(findings: Findings, host: Host) -> None:
    """Report a host on which tasks do not run as root."""
    if host.result("__preflight_probe").get("uid", 0) != 0:
        findings.add(
            f'Tasks on host "{host.name}" do not run as root; set ansible_become: true in the inventory.', host.name
        )


def check_mirror(findings: Findings, host: Host, *, probed: bool) -> None:
    """Report an address that is none, and a mirror that does not answer."""
    if host.get("package_source") != "mirror":
        return
    url = str(host.get("package_mirror_url") or "")
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
        findings.add(
            f'Variable "package_mirror_url" must be an http or https address without a query, but is {describe(url)}; '
            "correct it, or set package_source to upstream.",
            host.name,
        )
    elif probed and (problem := host.result("__preflight_probe").get("url_error")):
        findings.add(
            f"Package mirror {url} (package_mirror_url) does not serve what it should ({problem}); start or fill "
            "the mirror, "
            "or correct the address.",
            host.name,
        )


VAULTED = b"$ANSIBLE_VAULT"


@lru_cache(maxsize=1)
def certificate_judge() -> ModuleType:
    """Return the module that installs certificates on hosts, whose judgement is asked for here."""
    file = Path(__file__).parents[1] / "modules" / "certificate_request.py"
    spec = importlib.util.spec_from_file_location("preflight_certificate_request", file)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    # Its data classes look for it there.
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def certificate_problem(folder: Path, name: str) -> str:
    """Return why the certificate in a folder cannot be used for a host and what to do about it, or an empty string."""
    judge = certificate_judge()
    files = {file: folder / file for file in ("tls.crt", "tls.key", "ca.crt")}
    if missing := [file for file, path in files.items() if not path.is_file()]:
        return f"lacks {listing(missing)}; put the files there, or remove the folder if no service uses it."
    pems = {file: path.read_bytes() for file, path in files.items()}
    if VAULTED in (pems["tls.crt"][: len(VAULTED)], pems["ca.crt"][: len(VAULTED)]):
        # What needs a password to be read is judged when it is installed.
        return ""
    try:
        key = None if pems["tls.key"].startswith(VAULTED) else judge.load_key(pems["tls.key"])
        expected = judge.Expected(
            trusted=judge.certificates_in(pems["ca.crt"]),
            names={judge.normal(name)},
            exact_names=False,
            now=datetime.datetime.now(datetime.UTC),
        )
        judge.judge(pems["tls.crt"], key, expected, datetime.timedelta(0))
    except judge.Refused as error:
        remedy = f"; {error.remedy[0].lower()}{error.remedy[1:]}" if error.remedy else ""
        return f"cannot be used: {error}{remedy}."
    return ""


def check_certificates(findings: Findings, host: Host) -> None:
    """Report certificates of the site that no host would take."""
    if host.get("certificates_source") != "site":
        return
    top = host.get("certificates_site_directory") or f"{host.get('inventory_dir')}/certificates"
    for folder in sorted(path for path in (Path(str(top)) / host.name).glob("*") if path.is_dir()):
        if problem := certificate_problem(folder, str(host.get("platform_fqdn", host.name))):
            findings.add(f"The certificate in {folder} {problem}", host.name)


STACK_VERSIONS = ("elasticsearch_version", "kibana_version", "logstash_version", "apm_server_version")


def check_stack(findings: Findings, hosts: list[Host]) -> None:
    """Report products and hosts of the Elastic stack that are to have a release of their own."""
    wanted: dict[str, list[str]] = defaultdict(list)
    for host in hosts:
        release = host.get("platform_version_elastic")
        if release is not None:
            wanted[str(release)].append(host.name)
        for name in STACK_VERSIONS:
            own = host.get(name) if name in host.raw else None
            if own is not None and str(own) != str(release):
                findings.add(
                    f'Variable "{name}" is {own}, but the Elastic stack is {release}, and its products have one '
                    f"release; take {name} out of the inventory and set platform_version_elastic.",
                    host.name,
                )
    if len(wanted) > 1:
        shown = "; ".join(f"{release} on {listing(names)}" for release, names in sorted(wanted.items()))
        findings.add(
            f"Hosts want different releases of the Elastic stack ({shown}); set platform_version_elastic once for all "
            "of them."
        )


# --- the filters ----------------------------------------------------------------------------------------------------


def preflight_report(
    hostvars: Mapping[str, Any],
    groups: dict[str, list[str]],
    play_hosts: list[str],
    live_hosts: list[str],
    sources: Iterable[str],
    project: str,
) -> str:
    """Return everything that is wrong, as a text with one sentence for each finding; empty if nothing is."""
    declared = project_at(project)
    findings = Findings()
    check_groups(findings, groups, declared.shared["platform_groups"])
    secrets = {name for row in declared.shared["platform_roles"].values() for name in row.get("secrets", [])}
    secrets |= set(declared.shared["platform_optional_secrets"])
    hosts = [Host(name, hostvars.raw_get(name), hostvars[name], groups) for name in play_hosts]
    for host in hosts:
        check_variables(findings, declared, host, [str(source) for source in sources], secrets)
        check_domains(findings, host)
        check_secrets(findings, declared, host)
        check_certificates(findings, host)
        supported = False
        if check_reached(findings, host, live_hosts):
            supported = check_system(findings, declared, host)
            check_rights(findings, host)
            check_size(findings, declared, host)
            check_ports(findings, host)
        check_mirror(findings, host, probed=supported)
    check_addresses(findings, hosts)
    check_stack(findings, hosts)
    return findings.render(play_hosts)


def rows_for_groups(table: dict[str, Any], groups: list[str]) -> list[dict[str, Any]]:
    """Return the rows of the role table that concern a host in these groups."""
    return [row for row in table.values() if set(row["groups"]) & {*groups, "all"}]


class FilterModule:
    """What Ansible loads."""

    def filters(self) -> dict[str, Any]:
        """Return the filters by name."""
        return {"preflight_report": preflight_report, "preflight_paths": paths_of, "rows_for_groups": rows_for_groups}
