"""Spaces, saved objects and rules, kept in a file and given back as Kibana's API does."""

from __future__ import annotations

import json
import re
import threading
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

DEFAULT_SPACE = {"id": "default", "name": "Default", "description": "", "disabledFeatures": [], "_reserved": True}
SPACE_ID = re.compile(r"[a-z0-9_-]+")
SPACE_KEYS = {"id", "name", "description", "initials", "color", "disabledFeatures", "imageUrl", "solution"}
OBJECT_TYPES = {"index-pattern", "search", "visualization", "lens", "dashboard", "map", "tag", "query"}
RULE_KEYS = {"name", "tags", "schedule", "params", "actions", "throttle", "notify_when", "alert_delay", "flapping"}
# These are given once, when the rule is made.
FIRST_KEYS = {"rule_type_id", "consumer", "enabled"}
REQUIRED_KEYS = ("consumer", "name", "params", "rule_type_id", "schedule")
RULE_TYPES = {".es-query", ".index-threshold"}
RULE_PARAMS = ("esQuery", "index", "threshold", "thresholdComparator", "timeField", "timeWindowSize", "timeWindowUnit")


class Refusal(Exception):
    """A request that Kibana refuses."""

    def __init__(self, status: int, text: str) -> None:
        """Remember status and reason."""
        super().__init__(text)
        self.status = status


def now() -> str:
    """Return the time as Kibana writes it."""
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


class Store:
    """What was given to the API."""

    def __init__(self, file: Path) -> None:
        """Read what was kept."""
        self.file = file
        self.lock = threading.RLock()
        self.content: dict[str, Any] = {"spaces": {"default": DEFAULT_SPACE}, "objects": {}, "rules": {}}
        if file.exists():
            self.content |= json.loads(file.read_text(encoding="utf-8"))

    def keep(self) -> None:
        """Write everything, in one step."""
        fresh = self.file.with_suffix(".new")
        fresh.write_text(json.dumps(self.content, indent=1), encoding="utf-8")
        fresh.replace(self.file)

    def part(self, kind: str, space: str) -> dict[str, Any]:
        """Return the objects or rules of a space."""
        if space not in self.content["spaces"]:
            raise Refusal(404, f"Saved object [space/{space}] not found")
        return self.content[kind].setdefault(space, {})

    # --- spaces ---

    def put_space(self, body: dict[str, Any], identifier: str | None) -> dict[str, Any]:
        """Make a space, or change it if its identifier is given."""
        if unknown := set(body) - SPACE_KEYS:
            raise Refusal(400, f"[request body.{sorted(unknown)[0]}]: definition for this key is missing")
        wanted = str(body.get("id", ""))
        if not SPACE_ID.fullmatch(wanted):
            raise Refusal(
                400, "[request body.id]: must be lower case, a-z, 0-9, '_', and '-' are allowed. Received: " + wanted
            )
        if not body.get("name"):
            raise Refusal(400, "[request body.name]: expected value of type [string] but got [undefined]")
        spaces = self.content["spaces"]
        if identifier is None and wanted in spaces:
            raise Refusal(409, f"A space with the identifier {wanted} already exists.")
        if identifier is not None and identifier not in spaces:
            raise Refusal(404, "Not Found")
        spaces[wanted] = {"disabledFeatures": [], **body}
        if wanted == "default":
            spaces[wanted]["_reserved"] = True
        self.keep()
        return spaces[wanted]

    def remove_space(self, identifier: str) -> None:
        """Remove a space with all that is in it."""
        space = self.content["spaces"].get(identifier)
        if space is None:
            raise Refusal(404, "Not Found")
        if space.get("_reserved"):
            raise Refusal(400, f"The {identifier} space cannot be deleted because it is reserved.")
        for part in self.content.values():
            part.pop(identifier, None)
        self.keep()

    # --- saved objects ---

    def export(self, space: str, types: list[str]) -> list[dict[str, Any]]:
        """Return the objects of some types."""
        found = self.part("objects", space).values()
        return [entry for entry in found if entry["type"] in types]

    def take(self, space: str, lines: list[dict[str, Any]], *, overwrite: bool) -> dict[str, Any]:
        """Import objects: all that can be, with the reasons for the others."""
        objects = self.part("objects", space)
        incoming = {f"{line['type']}:{line['id']}" for line in lines}
        errors: list[dict[str, Any]] = []
        done = []
        for line in lines:
            key = f"{line['type']}:{line['id']}"
            error: dict[str, Any] = {}
            missing = [
                {"type": reference["type"], "id": reference["id"]}
                for reference in line.get("references", [])
                if f"{reference['type']}:{reference['id']}" not in objects.keys() | incoming
            ]
            if line["type"] not in OBJECT_TYPES:
                error = {"type": "unsupported_type"}
            elif missing:
                error = {"type": "missing_references", "references": missing}
            elif key in objects and not overwrite:
                error = {"type": "conflict"}
            meta = {"title": line.get("attributes", {}).get("title")}
            if error:
                errors.append({"id": line["id"], "type": line["type"], "meta": meta, "error": error})
                continue
            created = objects.get(key, {}).get("created_at", now())
            objects[key] = {**line, "managed": False, "created_at": created, "updated_at": now()}
            done.append({"id": line["id"], "type": line["type"], "meta": meta})
        self.keep()
        answer: dict[str, Any] = {"success": not errors, "successCount": len(done), "warnings": []}
        return answer | ({"errors": errors} if errors else {}) | ({"successResults": done} if done else {})

    def remove_object(self, space: str, kind: str, identifier: str) -> None:
        """Remove one object."""
        if self.part("objects", space).pop(f"{kind}:{identifier}", None) is None:
            raise Refusal(404, f"Saved object [{kind}/{identifier}] not found")
        self.keep()

    # --- rules ---

    def put_rule(self, space: str, identifier: str, body: dict[str, Any], owner: str, *, new: bool) -> dict[str, Any]:
        """Make or change a rule."""
        rules = self.part("rules", space)
        if unknown := set(body) - RULE_KEYS - (FIRST_KEYS if new else set()):
            raise Refusal(400, f"[request body.{sorted(unknown)[0]}]: definition for this key is missing")
        if new:
            if missing := [key for key in REQUIRED_KEYS if key not in body]:
                raise Refusal(400, f"[request body.{missing[0]}]: expected value of type [string] but got [undefined]")
            try:
                UUID(identifier)
            except ValueError:
                reason = (
                    "Predefined IDs are not allowed for saved objects with encrypted attributes unless they are UUIDs."
                )
                raise Refusal(400, reason) from None
            if identifier in rules:
                raise Refusal(409, f"Saved object [alert/{identifier}] conflict")
            if body["rule_type_id"] not in RULE_TYPES:
                raise Refusal(400, f'Rule type "{body["rule_type_id"]}" is not registered.')
        elif identifier not in rules:
            raise Refusal(404, f"Saved object [alert/{identifier}] not found")
        before = rules.get(
            identifier, {"enabled": True, "tags": [], "actions": [], "created_at": now(), "revision": -1}
        )
        rule = before | body
        if not re.fullmatch(r"[1-9]\d*[smhd]", str(rule["schedule"].get("interval"))):
            raise Refusal(400, "[request body.schedule.interval]: string is not a valid duration")
        if rule["rule_type_id"] == ".es-query":
            params = rule["params"]
            if missing := [key for key in RULE_PARAMS if key not in params]:
                raise Refusal(
                    400, f"params invalid: [{missing[0]}]: expected at least one defined value but got [undefined]"
                )
            try:
                json.loads(params["esQuery"])["query"]
            except (ValueError, KeyError, TypeError):
                raise Refusal(400, "params invalid: [esQuery]: must be valid JSON") from None
        rules[identifier] = rule | {
            "id": identifier,
            "api_key_owner": owner,
            "updated_at": now(),
            "revision": before["revision"] + 1,
            "execution_status": {"status": "pending", "last_execution_date": now()},
        }
        self.keep()
        return rules[identifier]

    def switch_rule(self, space: str, identifier: str, *, on: bool) -> None:
        """Enable or disable a rule."""
        self.rule(space, identifier)["enabled"] = on
        self.keep()

    def rule(self, space: str, identifier: str) -> dict[str, Any]:
        """Return one rule."""
        rules = self.part("rules", space)
        if identifier not in rules:
            raise Refusal(404, f"Saved object [alert/{identifier}] not found")
        return rules[identifier]

    def remove_rule(self, space: str, identifier: str) -> None:
        """Remove one rule."""
        self.rule(space, identifier)
        del self.part("rules", space)[identifier]
        self.keep()
