"""Alert rules of several files as one document, so that a host takes all of them or none."""

from pathlib import PurePath

import yaml
from ansible.errors import AnsibleFilterError


def complete_links(rule: object, bases: dict[str, str]) -> None:
    """Put the site's addresses before the links of ``rule`` that are paths; whole addresses stay.

    Args:
        rule: One rule as its file has it; what is wrong with it is promtool's to say.
        bases: Address by the name of the annotation; an empty one leaves the path as it is.
    """
    annotations = rule.get("annotations") if isinstance(rule, dict) else None
    if not isinstance(annotations, dict):
        return
    for name, base in bases.items():
        path = annotations.get(name)
        if base and isinstance(path, str) and "://" not in path:
            annotations[name] = f"{base.rstrip('/')}/{path.lstrip('/')}"


def prometheus_rules(files: dict[str, str], runbooks: str = "", dashboards: str = "") -> str:
    """Return one rule file that holds the groups of all ``files``.

    Args:
        files: Text of each rule file by its path.
        runbooks: Address that every relative runbook_url is below.
        dashboards: Address that every relative dashboard_url is below.

    Raises:
        AnsibleFilterError: There is no file, or one is not a rule file; the message names it.
    """
    if not files:
        raise AnsibleFilterError("no rule file was found: Prometheus would watch nothing")
    groups = []
    origin: dict[str, str] = {}
    for path, text in sorted(files.items(), key=lambda item: (PurePath(item[0]).name, item[0])):
        try:
            document = yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise AnsibleFilterError(f"{path} is not YAML: {' '.join(str(error).split())}") from error
        if not isinstance(document, dict) or set(document) != {"groups"} or not isinstance(document["groups"], list):
            raise AnsibleFilterError(f"{path} is not a rule file: it must hold a list named groups, and nothing else")
        for group in document["groups"]:
            name = group.get("name") if isinstance(group, dict) else None
            if not name:
                raise AnsibleFilterError(f"{path} holds a group without a name")
            if name in origin:
                raise AnsibleFilterError(f"{path} holds the group {name}, as {origin[name]} does: rename one")
            origin[name] = path
            for rule in group.get("rules") or []:
                complete_links(rule, {"runbook_url": runbooks, "dashboard_url": dashboards})
            groups.append(group)
    return yaml.safe_dump({"groups": groups}, sort_keys=False, allow_unicode=True, width=1000)


class FilterModule:
    """Filters offered to templates."""

    def filters(self) -> dict:
        """Return the filters by name."""
        return {"prometheus_rules": prometheus_rules}
