#!/usr/bin/python
"""Brings spaces, saved objects and alert rules of Kibana to the declared state."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import quote

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.rest_api import ACCESS, ApiError, api_of

DOCUMENTATION = r"""
module: kibana_content
short_description: Spaces, saved objects and alert rules of Kibana
description:
  - What was declared and is not there, or differs, is brought. What Kibana adds to it by itself is no difference.
  - What the platform brought and is no longer declared is removed. It knows saved objects by an identifier that begins
    with C(platform-), rules by the tag C(platform), and spaces by the end of their description. What people made stays.
options:
  spaces:
    description: Spaces as in the API.
    type: list
    elements: dict
    default: []
  space:
    description: Space that gets objects and rules.
    type: str
    default: default
  objects:
    description: Saved objects as Kibana exports them, one document in a line.
    type: str
    default: ""
  rules:
    description: Rules as in the API, each with its C(id), a UUID.
    type: list
    elements: dict
    default: []
extends_documentation_fragment: rest_access
attributes:
  check_mode:
    support: full
  diff_mode:
    support: full
author:
  - Bank platform team
"""

EXAMPLES = r"""
- name: Bring the dashboards
  kibana_content:
    space: bank
    spaces:
      - {id: bank, name: Bank}
    objects: "{{ lookup('ansible.builtin.file', 'files/kibana/objects.ndjson') }}"
    access:
      urls: ["https://kibana1.example.com:{{ kibana_port }}"]
      ca_path: /etc/pki/bank/kibana/ca.crt
      user: kibana_setup
      password: "{{ kibana_setup_password }}"
"""

RETURN = r"""
content:
  description: How many spaces, saved objects and rules are declared.
  returned: success
  type: dict
"""

# Whatever JSON can hold.
Json = Any
MARK = "(kept by the platform)"
PREFIX, TAG = "platform-", "platform"
TYPES = ["index-pattern", "search", "visualization", "lens", "dashboard"]
PAGE = 100
# Keys of a rule that are given when it is made, and never again.
FIRST = ("rule_type_id", "consumer")
BOUNDARY = "platform-saved-objects"


def opened(value: Json) -> Json:
    """Return a value with documents that are kept as text opened: their spacing and order mean nothing."""
    if isinstance(value, dict):
        return {key: opened(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [opened(inner) for inner in value]
    if isinstance(value, str) and value[:1] in ("{", "["):
        try:
            return opened(json.loads(value))
        except ValueError:
            return value
    return value


def covers(found: Json, declared: Json) -> bool:
    """Return whether everything declared is there; Kibana adds defaults of its own."""
    if isinstance(declared, dict):
        return isinstance(found, dict) and all(
            key in found and covers(found[key], value) for key, value in declared.items()
        )
    if isinstance(declared, list):
        return (
            isinstance(found, list)
            and len(found) == len(declared)
            and all(covers(found[place], value) for place, value in enumerate(declared))
        )
    return bool(found == declared)


class Content:
    """What Kibana keeps, and what of it was changed."""

    def __init__(self, module: AnsibleModule) -> None:
        """Take everything from the arguments."""
        self.module, self.params = module, module.params
        # Kibana refuses changes without this header.
        self.api = api_of(module.params, {"kbn-xsrf": "ansible"})
        self.diff: list[dict[str, str]] = []
        self.spaces: dict[str, dict[str, Any]] = {}
        lines = (line for line in module.params["objects"].splitlines() if line.strip())
        self.objects = {f"{entry['type']}/{entry['id']}": entry for entry in map(json.loads, lines)}
        self.rules = {rule["id"]: rule for rule in module.params["rules"]}

    def note(self, label: str, before: object, after: object) -> None:
        """Remember a difference."""
        texts = [
            "" if value is None else json.dumps(opened(value), indent=1, sort_keys=True, ensure_ascii=False) + "\n"
            for value in (before, after)
        ]
        self.diff.append({"before_header": label, "after_header": label, "before": texts[0], "after": texts[1]})

    def send(self, method: str, path: str, body: object = None) -> None:
        """Send a request that changes something, unless in check mode."""
        if not self.module.check_mode:
            self.api.ask(method, path, body)

    @staticmethod
    def path(space: str, rest: str) -> str:
        """Return a path of the API within a space."""
        return ("" if space == "default" else f"/s/{quote(space)}") + rest

    def bring_spaces(self) -> None:
        """Make and correct spaces."""
        self.spaces = {space["id"]: space for space in self.api.ask("GET", "/api/spaces/space")}
        for space in self.params["spaces"]:
            wanted = {key: value for key, value in space.items() if value not in (None, "")}
            wanted["description"] = f"{space.get('description') or ''} {MARK}".strip()
            before = self.spaces.get(space["id"])
            if before is None:
                self.note(f"space {space['id']}", None, wanted)
                self.send("POST", "/api/spaces/space", wanted)
            elif not covers(before, wanted):
                self.note(f"space {space['id']}", {key: before.get(key) for key in wanted}, wanted)
                self.send("PUT", f"/api/spaces/space/{quote(space['id'])}", {**without_marks(before), **wanted})

    def found_objects(self, space: str) -> dict[str, dict[str, Any]]:
        """Return the platform's objects in a space."""
        if space not in self.spaces:
            return {}
        body = {"type": TYPES, "excludeExportDetails": True}
        try:
            text = self.api.send("POST", self.path(space, "/api/saved_objects/_export"), json.dumps(body).encode())
        except ApiError as error:
            # Some releases refuse to export nothing.
            if error.status == 400 and "no" in str(error).lower() and "found" in str(error).lower():
                return {}
            raise
        entries = [json.loads(line) for line in text.decode("utf-8").splitlines() if line.strip()]
        return {f"{e['type']}/{e['id']}": e for e in entries if str(e.get("id", "")).startswith(PREFIX)}

    def found_rules(self, space: str) -> dict[str, dict[str, Any]]:
        """Return the platform's rules in a space."""
        found: dict[str, dict[str, Any]] = {}
        page = 0
        while space in self.spaces:
            page += 1
            address = self.path(space, f"/api/alerting/rules/_find?per_page={PAGE}&page={page}")
            answer = self.api.ask("GET", address)
            found |= {rule["id"]: rule for rule in answer["data"] if TAG in rule.get("tags", [])}
            if page * PAGE >= answer["total"]:
                break
        return found

    def remove_objects(self, space: str, found: dict[str, dict[str, Any]], names: set[str]) -> None:
        """Remove objects, those that show others first."""
        for name in sorted(names, key=lambda name: (-TYPES.index(found[name]["type"]), name)):
            self.note(f"saved object {name}", found[name]["attributes"], None)
            kind, identifier = name.split("/", 1)
            address = f"/api/saved_objects/{kind}/{quote(identifier)}?force=true"
            self.send("DELETE", self.path(space, address))

    def remove_rules(self, space: str, found: dict[str, dict[str, Any]], names: set[str]) -> None:
        """Remove rules."""
        for name in sorted(names):
            self.note(f"rule {found[name]['name']}", {"name": found[name]["name"]}, None)
            self.send("DELETE", self.path(space, f"/api/alerting/rule/{quote(name)}"))

    def clear_other_spaces(self) -> None:
        """Remove the platform's objects and rules where they were before: an identifier is in one space only."""
        for space in self.spaces:
            if space != self.params["space"]:
                objects, rules = self.found_objects(space), self.found_rules(space)
                self.remove_objects(space, objects, set(objects))
                self.remove_rules(space, rules, set(rules))

    def different(self, found: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
        """Return the declared objects that are not there like that."""
        return {
            name: entry
            for name, entry in self.objects.items()
            if not covers(
                opened({key: found.get(name, {}).get(key) for key in ("attributes", "references")}),
                opened({key: entry.get(key) for key in ("attributes", "references")}),
            )
        }

    def bring_objects(self) -> None:
        """Import what differs, and remove what left the repository."""
        space = self.params["space"]
        found = self.found_objects(space)
        wanted = self.different(found)
        for name, entry in sorted(wanted.items()):
            self.note(f"saved object {name}", found.get(name, {}).get("attributes"), entry["attributes"])
        if wanted and not self.module.check_mode:
            self.import_objects(space, wanted)
            if still := sorted(self.different(self.found_objects(space))):
                self.module.warn(
                    f"Kibana keeps {', '.join(still)} otherwise than declared, so every run brings it again: export it "
                    "from Kibana and see what of it this release writes differently."
                )
        self.remove_objects(space, found, set(found) - set(self.objects))

    def import_objects(self, space: str, wanted: dict[str, dict[str, Any]]) -> None:
        """Import objects, replacing those that are there."""
        lines = "".join(json.dumps(entry, ensure_ascii=False) + "\n" for entry in wanted.values())
        body = (
            f"--{BOUNDARY}\r\n"
            'Content-Disposition: form-data; name="file"; filename="objects.ndjson"\r\n'
            "Content-Type: application/ndjson\r\n\r\n"
            f"{lines}\r\n--{BOUNDARY}--\r\n"
        )
        path = self.path(space, "/api/saved_objects/_import?overwrite=true")
        answer = json.loads(
            self.api.send("POST", path, body.encode(), f"multipart/form-data; boundary={BOUNDARY}", timeout=120)
        )
        if not answer.get("success"):
            problems = [
                f"{error['type']}/{error['id']}: {json.dumps(error['error'])}" for error in answer.get("errors", [])
            ]
            raise ApiError(f"Kibana did not take every saved object: {'; '.join(problems) or answer}")

    def bring_rules(self) -> None:
        """Make and correct rules, and remove those that left the repository."""
        space = self.params["space"]
        found = self.found_rules(space)
        for name, rule in self.rules.items():
            body = {key: value for key, value in rule.items() if key != "id"}
            before = found.get(name)
            if before and covers(opened(before), opened(body)):
                continue
            shown = {key: before.get(key) for key in body} if before else None
            self.note(f"rule {rule['name']}", shown, body)
            path = self.path(space, f"/api/alerting/rule/{quote(name)}")
            if before and any(before.get(key) != body[key] for key in FIRST):
                self.send("DELETE", path)
                before = None
            if before is None:
                self.send("POST", path, body)
                continue
            self.send("PUT", path, {key: value for key, value in body.items() if key not in (*FIRST, "enabled")})
            if before.get("enabled") != body["enabled"]:
                self.send("POST", f"{path}/_{'enable' if body['enabled'] else 'disable'}")
        self.remove_rules(space, found, set(found) - set(self.rules))

    def remove_spaces(self) -> None:
        """Remove the platform's spaces that left the list."""
        declared = {space["id"] for space in self.params["spaces"]}
        for name, space in sorted(self.spaces.items()):
            if name not in declared and str(space.get("description", "")).endswith(MARK):
                self.note(f"space {name}", without_marks(space), None)
                self.send("DELETE", f"/api/spaces/space/{quote(name)}")

    def bring(self) -> None:
        """Do everything, in the order in which things need each other."""
        self.bring_spaces()
        self.clear_other_spaces()
        if not self.module.check_mode:
            # A space that was made just now has nothing yet, and can be asked.
            self.spaces.setdefault(self.params["space"], {"id": self.params["space"]})
        self.bring_objects()
        self.bring_rules()
        self.remove_spaces()


def without_marks(space: dict[str, Any]) -> dict[str, Any]:
    """Return a space without what Kibana alone may set."""
    return {key: value for key, value in space.items() if not key.startswith("_")}


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "access": ACCESS,
            "spaces": {"type": "list", "elements": "dict", "default": []},
            "space": {"type": "str", "default": "default"},
            "objects": {"type": "str", "default": ""},
            "rules": {"type": "list", "elements": "dict", "default": []},
        },
        supports_check_mode=True,
    )
    content = Content(module)
    try:
        content.bring()
    except ApiError as error:
        module.fail_json(
            msg=f"What Kibana keeps could not be brought to its declared state: {error}.", diff=content.diff
        )
    counts = {"spaces": len(module.params["spaces"]), "objects": len(content.objects), "rules": len(content.rules)}
    module.exit_json(changed=bool(content.diff), diff=content.diff, content=counts)


if __name__ == "__main__":
    main()
