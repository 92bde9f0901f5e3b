#!/usr/bin/python
"""Brings what is kept inside a cluster of Elasticsearch to the declared state: users, roles, templates, settings."""

from __future__ import annotations

import json
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.rest_api import ACCESS, OWNER, ApiError, api_of, path_of

DOCUMENTATION = r"""
module: elasticsearch_objects
short_description: Users, roles, index templates, settings, snapshots and retention of a cluster
description:
  - The lists are the whole state. Users and roles that left them are removed, apart from those that Elasticsearch
    reserves; of index templates and policies only those that this module made, known by their C(_meta).
  - Index and snapshot lifecycle policies are used where the server has them.
options:
  roles:
    description: Roles, each with C(name), and C(cluster) and C(indices) as in the API.
    type: list
    elements: dict
    default: []
  users:
    description: Users with their passwords and roles.
    type: list
    elements: dict
    default: []
    suboptions:
      name:
        description: Name.
        type: str
        required: true
      password:
        description: Password in clear text.
        type: str
        required: true
      roles:
        description: Names of roles.
        type: list
        elements: str
        default: []
  api_key_holders:
    description: >-
      Hosts that may have a key of their own, by service. Keys that the platform made for others are revoked; what the
      services ask for themselves (M(elasticsearch_api_key)) and what people made stays.
    type: dict
    default: {}
  index_templates:
    description:
      - Index templates, each with C(name) and C(body) as in the API, and C(retention_days) if its indices expire.
      - With C(rollover_alias), its indices are written to by that name, which is made an alias of a first index.
    type: list
    elements: dict
    default: []
  settings:
    description: All persistent settings of the cluster, by their flat names.
    type: dict
    default: {}
  snapshots:
    description: Repository of snapshots; C(location) empty means none, C(retention_days) how long they stay.
    type: dict
    default: {}
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
- name: Bring the cluster to its declared state
  elasticsearch_objects:
    access:
      urls: ["https://es1.example.com:{{ elasticsearch_http_port }}"]
      ca_path: /etc/elasticsearch/certs/ca.crt
      user: elastic
      password: "{{ elasticsearch_elastic_password }}"
    roles:
      - name: filebeat_writer
        cluster: [monitor]
        indices:
          - names: ["app-logs-*"]
            privileges: [create_doc, auto_configure]
    users:
      - {name: filebeat, password: "{{ vault_filebeat_elasticsearch_password }}", roles: [filebeat_writer]}
"""

RETURN = r"""
lifecycle:
  description: Whether the server expires indices by itself (ILM).
  returned: success
  type: bool
snapshot_lifecycle:
  description: Whether the server takes snapshots by itself (SLM).
  returned: success
  type: bool
"""

SNAPSHOT_POLICY = "bank-platform-daily"
# When another index is begun behind an alias.
ROLLOVER = {"max_age": "1d", "max_primary_shard_size": "10gb"}


class ObjectError(Exception):
    """Something declared cannot be; the text is one sentence."""


def flat(value: object, prefix: str = "") -> dict[str, Any]:
    """Return nested settings by their flat names, with values as Elasticsearch gives them back: as strings."""
    if isinstance(value, dict):
        found: dict[str, Any] = {}
        for key, inner in value.items():
            found |= flat(inner, f"{prefix}.{key}" if prefix else str(key))
        return found
    if isinstance(value, list):
        return {prefix: [as_text(item) for item in value]}
    return {prefix: as_text(value)}


def as_text(value: object) -> str | None:
    """Return a value of a setting as Elasticsearch prints it."""
    if value is None:
        return None
    return json.dumps(value) if isinstance(value, bool) else str(value)


def index_settings(value: dict[str, Any]) -> dict[str, Any]:
    """Return settings of an index by their flat names, which all begin with index."""
    return {name if name.startswith("index.") else f"index.{name}": text for name, text in flat(value).items()}


def comparable_template(body: dict[str, Any]) -> dict[str, Any]:
    """Return an index template in a form in which the declared and the found one can be compared."""
    template = body.get("template") or {}
    patterns = body.get("index_patterns") or []
    return {
        "index_patterns": sorted([patterns] if isinstance(patterns, str) else patterns),
        "priority": int(body.get("priority") or 0),
        "composed_of": body.get("composed_of") or [],
        "settings": index_settings(template.get("settings") or {}),
        "mappings": template.get("mappings") or {},
        "aliases": template.get("aliases") or {},
        "_meta": body.get("_meta") or {},
    }


def comparable_role(body: dict[str, Any]) -> dict[str, Any]:
    """Return a role in a form in which the declared and the found one can be compared."""
    indices = [
        {
            "names": sorted(entry.get("names") or []),
            "privileges": sorted(entry.get("privileges") or []),
            "query": entry.get("query"),
            "field_security": entry.get("field_security"),
            "allow_restricted_indices": bool(entry.get("allow_restricted_indices")),
        }
        for entry in body.get("indices") or []
    ]
    return {
        "cluster": sorted(body.get("cluster") or []),
        "indices": sorted(indices, key=lambda entry: json.dumps(entry, sort_keys=True)),
        "applications": body.get("applications") or [],
        "run_as": sorted(body.get("run_as") or []),
    }


class Cluster:
    """What is in the cluster, and what of it was changed."""

    def __init__(self, module: AnsibleModule) -> None:
        """Take everything from the arguments."""
        self.module, self.params = module, module.params
        self.api = api_of(module.params)
        self.diff: list[dict[str, str]] = []
        self.left_policies: list[str] = []

    def change(self, label: str, before: object, after: object, *requests: tuple[str, str, object]) -> None:
        """Note a difference and, unless in check mode, send what mends it."""
        texts = [
            "" if value is None else json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False) + "\n"
            for value in (before, after)
        ]
        self.diff.append({"before_header": label, "after_header": label, "before": texts[0], "after": texts[1]})
        if self.module.check_mode:
            return
        for method, path, body in requests:
            try:
                self.api.ask(method, path, body)
            except ApiError as error:
                raise ObjectError(f"{label[0].upper()}{label[1:]} was refused: {error}") from error

    def bring_roles(self) -> None:
        """Make, correct and remove roles."""
        found = self.api.ask("GET", "/_security/role")
        own = {name: body for name, body in found.items() if not (body.get("metadata") or {}).get("_reserved")}
        declared = {role["name"]: {k: v for k, v in role.items() if k != "name"} for role in self.params["roles"]}
        for name, body in declared.items():
            if name in found and name not in own:
                raise ObjectError(f"Role {name} is reserved by Elasticsearch: choose another name")
            before = comparable_role(own[name]) if name in own else None
            if before != comparable_role(body):
                path = path_of("_security", "role", name)
                self.change(f"role {name}", before, comparable_role(body), ("PUT", path, body))
        for name in sorted(set(own) - set(declared)):
            self.change(
                f"role {name}", comparable_role(own[name]), None, ("DELETE", path_of("_security", "role", name), None)
            )

    def knows(self, name: str, password: str) -> bool:
        """Return whether a user can log in with a password."""
        try:
            self.api.as_user(name, password).ask("GET", "/_security/_authenticate")
        except ApiError as error:
            if error.status == 401:
                return False
            raise
        return True

    def bring_users(self) -> None:
        """Make, correct and remove users."""
        found = self.api.ask("GET", "/_security/user")
        own = {name: body for name, body in found.items() if not (body.get("metadata") or {}).get("_reserved")}
        declared = {user["name"]: user for user in self.params["users"]}
        for name, user in declared.items():
            if name in found and name not in own:
                raise ObjectError(f"User {name} is reserved by Elasticsearch: choose another name")
            before = {"roles": sorted(own[name]["roles"]), "enabled": own[name]["enabled"]} if name in own else None
            after = {"roles": sorted(user["roles"]), "enabled": True}
            body = {"roles": user["roles"], "enabled": True}
            path = path_of("_security", "user", name)
            if before == after and self.knows(name, user["password"]):
                continue
            shown = {**after, "password": "another one"} if before == after else after
            self.change(f"user {name}", before, shown, ("PUT", path, {**body, "password": user["password"]}))
        for name in sorted(set(own) - set(declared)):
            before = {"roles": sorted(own[name]["roles"]), "enabled": own[name]["enabled"]}
            self.change(f"user {name}", before, None, ("DELETE", path_of("_security", "user", name), None))

    def revoke_left_api_keys(self) -> None:
        """Revoke the keys of hosts and services that left."""
        holders = self.params["api_key_holders"]
        found = self.api.ask("GET", "/_security/api_key?active_only=true")["api_keys"]
        for key in sorted(found, key=lambda entry: (entry["name"], entry["id"])):
            metadata = key.get("metadata") or {}
            left = metadata.get("host") not in holders.get(metadata.get("service"), [])
            if metadata.get("managed_by") == OWNER and left:
                label = f"API key {key['name']} ({key['id']})"
                self.change(label, metadata, None, ("DELETE", path_of("_security", "api_key"), {"ids": [key["id"]]}))

    def bring_settings(self) -> None:
        """Set the persistent settings of the cluster, and take back all others."""
        found = self.api.ask("GET", "/_cluster/settings?flat_settings=true")["persistent"]
        declared = {name: value for name, value in flat(self.params["settings"]).items() if value is not None}
        before = {name: value for name, value in flat(found).items() if declared.get(name) != value}
        wanted = {name: value for name, value in declared.items() if flat(found).get(name) != value}
        if before or wanted:
            body = {"persistent": {**dict.fromkeys(before), **wanted}}
            self.change("cluster settings", before, wanted, ("PUT", "/_cluster/settings", body))

    def bring_policies(self) -> bool:
        """Make, correct and remove the policies after which indices expire; return whether the server has any."""
        found = self.api.find("/_ilm/policy")
        if found is None:
            return False
        declared = {
            template["name"]: {
                "_meta": {"managed_by": OWNER},
                "phases": {
                    "hot": {
                        "min_age": "0ms",
                        "actions": {"rollover": ROLLOVER} if template.get("rollover_alias") else {},
                    },
                    "delete": {
                        "min_age": f"{int(template['retention_days'])}d",
                        "actions": {"delete": {"delete_searchable_snapshot": True}},
                    },
                },
            }
            for template in self.params["index_templates"]
            if template.get("retention_days")
        }
        own = {name: body["policy"] for name, body in found.items() if self.ours(body["policy"])}
        for name, policy in declared.items():
            if own.get(name) != policy:
                path = path_of("_ilm", "policy", name)
                self.change(f"lifecycle policy {name}", own.get(name), policy, ("PUT", path, {"policy": policy}))
        self.left_policies = sorted(set(own) - set(declared))
        return True

    @staticmethod
    def ours(body: dict[str, Any]) -> bool:
        """Return whether this module made something."""
        return (body.get("_meta") or {}).get("managed_by") == OWNER

    def bring_templates(self, *, lifecycle: bool) -> None:
        """Make, correct and remove index templates."""
        found = {
            entry["name"]: entry["index_template"]
            for entry in self.api.ask("GET", "/_index_template")["index_templates"]
        }
        declared = {}
        for template in self.params["index_templates"]:
            body = json.loads(json.dumps(template["body"]))
            body["_meta"] = {**(body.get("_meta") or {}), "managed_by": OWNER}
            if lifecycle and template.get("retention_days"):
                settings = body.setdefault("template", {}).setdefault("settings", {})
                settings["index.lifecycle.name"] = template["name"]
                if template.get("rollover_alias"):
                    settings["index.lifecycle.rollover_alias"] = template["rollover_alias"]
            declared[template["name"]] = body
        for name, body in declared.items():
            if name in found and not self.ours(found[name]):
                raise ObjectError(
                    f"Index template {name} was not made by the platform: remove it, or choose another name"
                )
            before = comparable_template(found[name]) if name in found else None
            if before != comparable_template(body):
                self.refuse_other_types(name, body)
                path = path_of("_index_template", name)
                self.change(f"index template {name}", before, comparable_template(body), ("PUT", path, body))
        for name in sorted(set(found) - set(declared)):
            if self.ours(found[name]):
                path = path_of("_index_template", name)
                self.change(f"index template {name}", comparable_template(found[name]), None, ("DELETE", path, None))

    def refuse_other_types(self, name: str, body: dict[str, Any]) -> None:
        """Refuse a template that gives a field another type than indices have that are there already.

        Raises:
            ObjectError: it does, so that no search over both would work.
        """
        wanted = field_types((body.get("template") or {}).get("mappings") or {})
        patterns = body["index_patterns"]
        pattern = patterns if isinstance(patterns, str) else ",".join(patterns)
        found = self.api.find(path_of(pattern, "_mapping")) or {}
        for index in sorted(found, reverse=True):
            for field, kind in field_types(found[index]["mappings"]).items():
                if field in wanted and wanted[field] != kind:
                    raise ObjectError(
                        f"Index template {name} gives field {field} the type {wanted[field]}, but index {index} "
                        f"has it as {kind}: name the field differently, or reindex or delete such indices"
                    )

    def bring_aliases(self) -> None:
        """Make the names that are written to aliases, each with an index behind it that can be followed by others."""
        for alias in filter(None, (template.get("rollover_alias") for template in self.params["index_templates"])):
            if self.api.find(path_of("_alias", alias)):
                continue
            first, after = f"{alias}-000001", {"aliases": {alias: {"is_write_index": True}}}
            if not self.api.find(path_of(alias)):
                self.change(f"alias {alias}", None, {first: after}, ("PUT", path_of(first), after))
                continue
            self.replace_by_alias(alias, first)

    def replace_by_alias(self, alias: str, first: str) -> None:
        """Put an alias in the place of an index of its name, and keep the documents.

        Raises:
            ObjectError: that was refused; the index is as it was.
        """
        # A copy that an earlier run could not put in place.
        left = [("DELETE", path_of(first), None)] if self.api.find(path_of(first)) else []
        add = {"index": first, "alias": alias, "is_write_index": True}
        try:
            self.change(
                f"alias {alias}",
                {alias: "an index"},
                {first: {"aliases": {alias: {"is_write_index": True}}}},
                *left,
                # Only an index that nobody writes to can be copied: a document that comes meanwhile is refused.
                ("PUT", path_of(alias, "_settings"), {"index.blocks.write": True}),
                ("PUT", path_of(alias, "_clone", first), {"settings": {"index.blocks.write": None}}),
                ("GET", path_of("_cluster", "health", first) + "?wait_for_status=yellow&timeout=25s", None),
                ("POST", "/_aliases", {"actions": [{"add": add}, {"remove_index": {"index": alias}}]}),
            )
        except ObjectError:
            self.api.ask("PUT", path_of(alias, "_settings"), {"index.blocks.write": None})
            raise

    def bring_repository(self) -> None:
        """Register the repository of snapshots, or forget it."""
        wanted = self.params["snapshots"]
        name = wanted.get("repository") or "platform"
        found = (self.api.find(path_of("_snapshot", name)) or {}).get(name)
        body = {"type": "fs", "settings": {"location": wanted.get("location", ""), "compress": "true"}}
        before = {"type": found["type"], "settings": flat(found["settings"])} if found else None
        if not wanted.get("location"):
            if found:
                self.change(f"snapshot repository {name}", before, None, ("DELETE", path_of("_snapshot", name), None))
        elif before is None or any(before["settings"].get(key) != value for key, value in body["settings"].items()):
            self.change(f"snapshot repository {name}", before, body, ("PUT", path_of("_snapshot", name), body))

    def bring_snapshot_policy(self) -> bool:
        """Let the server take snapshots every night; return whether it can."""
        found = self.api.find("/_slm/policy")
        if found is None:
            return False
        wanted = self.params["snapshots"]
        before = found.get(SNAPSHOT_POLICY, {}).get("policy")
        path = path_of("_slm", "policy", SNAPSHOT_POLICY)
        if not wanted.get("location"):
            if before:
                self.change("snapshot policy", before, None, ("DELETE", path, None))
            return True
        policy = {
            "name": "<daily-{now/d}>",
            "schedule": wanted.get("schedule") or "0 30 1 * * ?",
            "repository": wanted.get("repository") or "platform",
            "config": {"include_global_state": True, "partial": False},
            "retention": {"expire_after": f"{wanted.get('retention_days') or 14}d", "min_count": 3},
        }
        if before != policy:
            self.change("snapshot policy", before, policy, ("PUT", path, policy))
        return True

    def remove_left_policies(self) -> None:
        """Remove policies that left, now that no template names them."""
        for name in self.left_policies:
            self.change(f"lifecycle policy {name}", {}, None, ("DELETE", path_of("_ilm", "policy", name), None))

    def bring(self) -> dict[str, Any]:
        """Do everything, in the order in which things need each other."""
        self.bring_settings()
        lifecycle = self.bring_policies()
        self.bring_templates(lifecycle=lifecycle)
        self.bring_aliases()
        # Shippers of a cluster that was lost wait for it: once they can log in, what they write must find its types.
        self.bring_roles()
        self.bring_users()
        self.revoke_left_api_keys()
        self.remove_left_policies()
        self.bring_repository()
        return {"lifecycle": lifecycle, "snapshot_lifecycle": self.bring_snapshot_policy()}


def field_types(mappings: dict[str, Any], prefix: str = "") -> dict[str, str]:
    """Return the types of all fields by their flat names."""
    found = {}
    for name, field in (mappings.get("properties") or {}).items():
        if "properties" in field:
            found |= field_types(field, f"{prefix}{name}.")
        elif "type" in field:
            found[f"{prefix}{name}"] = field["type"]
    return found


def main() -> None:
    """Run the module."""
    user = {
        "name": {"type": "str", "required": True},
        "password": {"type": "str", "required": True, "no_log": True},
        "roles": {"type": "list", "elements": "str", "default": []},
    }
    module = AnsibleModule(
        argument_spec={
            "access": ACCESS,
            "roles": {"type": "list", "elements": "dict", "default": []},
            "users": {"type": "list", "elements": "dict", "default": [], "options": user},
            # Names of hosts, and no secret.
            "api_key_holders": {"type": "dict", "default": {}, "no_log": False},
            "index_templates": {"type": "list", "elements": "dict", "default": []},
            "settings": {"type": "dict", "default": {}},
            "snapshots": {"type": "dict", "default": {}},
        },
        supports_check_mode=True,
    )
    cluster = Cluster(module)
    try:
        answer = cluster.bring()
    except (ObjectError, ApiError) as error:
        module.fail_json(msg=f"{str(error).rstrip('.')}.", changed=bool(cluster.diff) and not module.check_mode)
    module.exit_json(changed=bool(cluster.diff), diff=cluster.diff, **answer)


if __name__ == "__main__":
    main()
