#!/usr/bin/python
"""Keep a key of its own for one service of one host at Elasticsearch."""

from __future__ import annotations

import base64
import os
import stat
import tempfile
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.rest_api import ACCESS, OWNER, Api, ApiError, api_of

DOCUMENTATION = r"""
module: elasticsearch_api_key
short_description: Keep a key of its own for one service of one host at Elasticsearch
description:
  - The key is asked for as a user, whose password so never reaches the service. It may do what both C(privileges) and
    the user's roles allow; it is brought up to date with both at every run.
  - A key that Elasticsearch no longer takes, or that belongs to another user, is replaced. The keys before it count
    until they are revoked, so that a service that goes on with its previous configuration still has one.
options:
  service:
    description: Service that the key is for.
    type: str
    required: true
  host:
    description: Host that the service runs on, by its name in the inventory. Service and host are the key's name.
    type: str
    required: true
  path:
    description: File that keeps the key, readable by root alone.
    type: path
    required: true
  privileges:
    description: >-
      What the key may do, with C(cluster) and C(indices) as in the API. Normally it may add documents to whatever
      indices the user may add some to, and do nothing else.
    type: dict
    default:
      cluster: [monitor]
      indices:
        - names: ["*"]
          privileges: [create_doc, auto_configure, view_index_metadata]
  state:
    description: V(present) keeps a key that counts; V(only) also revokes the user's other keys of this name.
    type: str
    choices: [present, only]
    default: present
extends_documentation_fragment: rest_access
attributes:
  check_mode:
    support: full
author:
  - Bank platform team
"""

EXAMPLES = r"""
- name: Keep a key for Filebeat
  elasticsearch_api_key:
    access:
      urls: ["https://es1.example.com:{{ platform_port_elasticsearch_http }}"]
      ca_path: /etc/pki/bank/filebeat/ca.crt
      user: filebeat
      password: "{{ vault_filebeat_elasticsearch_password }}"
    service: filebeat
    host: app1
    path: /var/lib/filebeat/elasticsearch-api-key
  register: elasticsearch_key
  no_log: true
"""

RETURN = r"""
api_key:
  description: The key as services take it, C(id:key); empty in check mode where there is none yet.
  returned: success
  type: str
others:
  description: How many other keys of this name count, which a run with O(state=only) would revoke or has revoked.
  returned: success
  type: int
"""


ADD_DOCUMENTS = {
    "cluster": ["monitor"],
    "indices": [{"names": ["*"], "privileges": ["create_doc", "auto_configure", "view_index_metadata"]}],
}


class KeyProblem(Exception):
    """There can be no key; the text is a sentence."""


class KeyOfService:
    """The key in the file, and what Elasticsearch knows of it."""

    def __init__(self, module: AnsibleModule) -> None:
        """Take everything from the arguments."""
        self.module, self.params = module, module.params
        self.owner = api_of(module.params)
        self.user = module.params["access"]["user"]
        self.path = Path(module.params["path"])
        self.name = f"{self.params['service']} on {self.params['host']}"
        self.changed = False

    def body(self) -> dict[str, Any]:
        """Return what is declared about the key, as the API takes it."""
        return {
            "metadata": {"managed_by": OWNER, "service": self.params["service"], "host": self.params["host"]},
            "role_descriptors": {"service": self.params["privileges"]},
        }

    def refuse_wrong_password(self) -> None:
        """Refuse a password that does not fit before anything is made.

        Raises:
            KeyProblem: the user cannot log in.
        """
        try:
            self.owner.ask("GET", "/_security/_authenticate")
        except ApiError as error:
            if error.status != 401:
                raise
            raise KeyProblem(
                f"Elasticsearch answered 401 to user {self.user}: its password in the vault is not the one that"
                " Elasticsearch has, or the user is not there; run playbooks/logging.yml, which sets both"
            ) from error

    def kept(self) -> str:
        """Return the key in the file, if Elasticsearch takes it as one of the user's."""
        try:
            text = self.path.read_text(encoding="utf-8").strip()
        except FileNotFoundError:
            return ""
        if ":" not in text:
            return ""
        access = self.params["access"]
        header = {"Authorization": "ApiKey " + base64.b64encode(text.encode()).decode()}
        try:
            answer = Api(access["urls"], access["ca_path"], "", "", header).ask("GET", "/_security/_authenticate")
        except ApiError as error:
            if error.status == 401:
                return ""
            raise
        right = answer.get("username") == self.user and answer.get("api_key", {}).get("name") == self.name
        return text if right else ""

    def make(self) -> str:
        """Ask for a key and write it; return it.

        Raises:
            KeyProblem: the user may not have one.
        """
        self.changed = True
        if self.module.check_mode:
            return ""
        try:
            made = self.owner.ask("POST", "/_security/api_key", {"name": self.name, **self.body()})
        except ApiError as error:
            if error.status != 403:
                raise
            raise KeyProblem(
                f"User {self.user} may have no key of its own: give one of its roles in elasticsearch_roles the"
                " cluster privilege manage_own_api_key"
            ) from error
        text = f"{made['id']}:{made['api_key']}"
        self.write(text)
        return text

    def write(self, text: str) -> None:
        """Put the key into its file, in one step."""
        handle, candidate = tempfile.mkstemp(dir=self.path.parent)
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text + "\n")
        self.module.atomic_move(candidate, str(self.path))
        self.close()

    def close(self) -> None:
        """Let root alone read the file."""
        found = self.path.stat()
        if (found.st_uid, found.st_gid, stat.S_IMODE(found.st_mode)) != (0, 0, 0o600):
            self.changed = True
            if not self.module.check_mode:
                os.chown(self.path, 0, 0)
                self.path.chmod(0o600)

    def update(self, key: str) -> None:
        """Bring what the key may do up to date with the declaration and with the user's own roles."""
        # In check mode there is no way to ask what would change.
        if not self.module.check_mode:
            answer = self.owner.ask("PUT", f"/_security/api_key/{key.partition(':')[0]}", self.body())
            self.changed |= bool(answer.get("updated"))

    def others(self, key: str) -> list[str]:
        """Return the ids of the user's other keys of this name that count."""
        found = self.owner.ask("GET", "/_security/api_key?owner=true")["api_keys"]
        own = key.partition(":")[0]
        return sorted(
            entry["id"]
            for entry in found
            if entry["name"] == self.name and not entry["invalidated"] and entry["id"] != own
        )

    def revoke(self, ids: list[str]) -> None:
        """Make keys count no longer."""
        self.changed |= bool(ids)
        if ids and not self.module.check_mode:
            self.owner.ask("DELETE", "/_security/api_key", {"ids": ids, "owner": True})

    def bring(self) -> dict[str, Any]:
        """Do everything."""
        self.refuse_wrong_password()
        key = self.kept()
        if key:
            self.close()
            self.update(key)
        else:
            key = self.make()
        others = self.others(key)
        if self.params["state"] == "only":
            self.revoke(others)
        return {"changed": self.changed, "api_key": key, "others": len(others)}


def main() -> None:
    """Run as an Ansible module."""
    module = AnsibleModule(
        argument_spec={
            "access": ACCESS,
            "service": {"type": "str", "required": True},
            "host": {"type": "str", "required": True},
            "path": {"type": "path", "required": True},
            "privileges": {"type": "dict", "default": ADD_DOCUMENTS},
            "state": {"type": "str", "choices": ["present", "only"], "default": "present"},
        },
        supports_check_mode=True,
    )
    try:
        result = KeyOfService(module).bring()
    except (KeyProblem, ApiError, OSError) as error:
        module.fail_json(msg=f"{str(error).rstrip('.')}.")
    module.exit_json(**result)


if __name__ == "__main__":
    main()
