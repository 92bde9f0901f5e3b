#!/usr/bin/python
"""The keystore of Kibana with the token that it logs in with: made anew whenever it is not exactly as wanted."""

from __future__ import annotations

import hashlib
import json
import os
import pwd
import re
import secrets as randomness
import shutil
import tempfile
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.rest_api import ACCESS, Api, ApiError, api_of

DOCUMENTATION = r"""
module: kibana_keystore
short_description: Keep exactly these secrets, and a token of the service account, in the keystore of Kibana
description:
  - The keystore does not show what it holds. A salted sum beside it tells whether it is the one that was made from the
    wanted secrets, and names the token, which must still be known to Elasticsearch.
  - A new keystore gets a new token. The old ones stay until the new one is proven, for which there is C(state=pruned).
  - Secrets reach Kibana's tool by standard input only.
options:
  directory:
    description: Folder of the configuration, which holds the keystore.
    type: path
    default: /etc/kibana
  program:
    description: Kibana's tool for keystores.
    type: path
    default: /usr/share/kibana/bin/kibana-keystore
  user:
    description: User as which the service runs.
    type: str
    default: kibana
  token:
    description: Tokens of this host are called like this, with a random end.
    type: str
    required: true
  secrets:
    description: Every other secret by the name of its setting.
    type: dict
    default: {}
  state:
    description:
      - C(present) makes the keystore. C(pruned) removes the previous one and its token, C(restored) puts it back and
        removes the token of the new one.
    type: str
    choices: [present, pruned, restored]
    default: present
extends_documentation_fragment: rest_access
attributes:
  check_mode:
    support: full
author:
  - Bank platform team
"""

EXAMPLES = r"""
- name: Keep the secrets
  kibana_keystore:
    token: platform-kibana1
    secrets:
      xpack.security.encryptionKey: "{{ kibana_security_encryption_key }}"
    access:
      urls: ["https://es1.example.com:{{ platform_port_elasticsearch_http }}"]
      ca_path: /etc/pki/bank/kibana/ca.crt
      user: kibana_setup
      password: "{{ kibana_setup_password }}"
"""

RETURN = r"""
backup_file:
  description: The previous keystore, until it is pruned or restored.
  returned: when there was one
  type: str
"""

KEYSTORE, SEAL = "kibana.keystore", "kibana.keystore.seal"
TOKENS = "/_security/service/elastic/kibana/credential"
TOKEN_SETTING = "elasticsearch.serviceAccountToken"
ITERATIONS = 100_000


class Keystore:
    """The keystore of one host."""

    def __init__(self, module: AnsibleModule) -> None:
        """Take everything from the arguments."""
        self.module, self.params = module, module.params
        self.api: Api = api_of(module.params)
        folder = Path(module.params["directory"])
        self.file, self.seal = folder / KEYSTORE, folder / SEAL
        self.previous = [(path, path.with_name(f"{path.name}.previous~")) for path in (self.file, self.seal)]

    def tokens(self) -> set[str]:
        """Return the names of the tokens of this host that Elasticsearch knows."""
        pattern = re.compile(re.escape(self.params["token"]) + r"-[0-9a-f]{8}")
        return {name for name in self.api.ask("GET", TOKENS).get("tokens", {}) if pattern.fullmatch(name)}

    def sum_of(self, salt: str, token: str) -> str:
        """Return what stands for this file, made from these secrets and that token."""
        content = hashlib.sha256(self.file.read_bytes()).hexdigest()
        text = json.dumps([self.params["secrets"], token, content], sort_keys=True).encode()
        return hashlib.pbkdf2_hmac("sha256", text, bytes.fromhex(salt), ITERATIONS).hex()

    def sealed(self) -> dict[str, str]:
        """Return what is known about the keystore: the token's name, salt and sum."""
        try:
            found = json.loads(self.seal.read_text(encoding="ascii"))
            return {key: str(found[key]) for key in ("token", "salt", "sum")}
        except (OSError, ValueError, KeyError, TypeError):
            return {}

    def is_current(self) -> bool:
        """Return whether the keystore is as wanted, and its token works."""
        found = self.sealed()
        if not found or not self.file.exists() or found["token"] not in self.tokens():
            return False
        return found["sum"] == self.sum_of(found["salt"], found["token"])

    def tool(self, folder: Path, *words: str, data: str | None = None) -> None:
        """Run Kibana's tool as the service's user on a keystore in ``folder``."""
        command = ["runuser", "--user", self.params["user"], "--", self.params["program"], *words]
        environment = {"KBN_PATH_CONF": str(folder), "LC_ALL": "C.UTF-8"}
        code, output, errors = self.module.run_command(command, data=data, environ_update=environment, cwd="/")
        if code:
            raise ApiError(f"Kibana's tool refused ({words[0]}): {(errors or output).strip()}")

    def make(self) -> None:
        """Make a keystore with a new token, and put it into its place."""
        name = f"{self.params['token']}-{randomness.token_hex(4)}"
        answer = self.api.ask("POST", f"{TOKENS}/token/{name}")
        secrets = {**self.params["secrets"], TOKEN_SETTING: answer["token"]["value"]}
        account = pwd.getpwnam(self.params["user"])
        try:
            with tempfile.TemporaryDirectory() as directory:
                work = Path(directory)
                os.chown(work, account.pw_uid, account.pw_gid)
                # The tool looks for the settings beside the keystore.
                (work / "kibana.yml").touch()
                self.tool(work, "create")
                for key, value in sorted(secrets.items()):
                    self.tool(work, "add", key, "--stdin", data=value)
                fresh = self.file.with_name(f".{KEYSTORE}.new")
                shutil.copyfile(work / KEYSTORE, fresh)
            os.chown(fresh, 0, account.pw_gid)
            fresh.chmod(0o660)
        except ApiError:
            self.api.ask("DELETE", f"{TOKENS}/token/{name}")
            raise
        for path, copy in self.previous:
            if path.exists():
                path.replace(copy)
        fresh.replace(self.file)
        salt = randomness.token_hex(16)
        content = {"token": name, "salt": salt, "sum": self.sum_of(salt, name)}
        descriptor = os.open(self.seal, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w", encoding="ascii") as stream:
            stream.write(json.dumps(content) + "\n")

    def restore(self) -> bool:
        """Put the previous keystore back, if there is one."""
        found = [(path, copy) for path, copy in self.previous if copy.exists()]
        for path, copy in found:
            copy.replace(path)
        return bool(found)

    def prune(self) -> bool:
        """Remove the previous keystore and every token of this host but the one in use."""
        left = [copy for _, copy in self.previous if copy.exists()]
        for copy in left:
            copy.unlink()
        token = self.sealed().get("token")
        unused = self.tokens() - {token} if token else set()
        for name in unused:
            self.api.ask("DELETE", f"{TOKENS}/token/{name}")
        return bool(left or unused)


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "access": ACCESS,
            "directory": {"type": "path", "default": "/etc/kibana"},
            "program": {"type": "path", "default": "/usr/share/kibana/bin/kibana-keystore"},
            "user": {"type": "str", "default": "kibana"},
            "token": {"type": "str", "required": True, "no_log": False},
            "secrets": {"type": "dict", "default": {}, "no_log": True},
            "state": {"type": "str", "choices": ["present", "pruned", "restored"], "default": "present"},
        },
        supports_check_mode=True,
    )
    keystore, state = Keystore(module), module.params["state"]
    result: dict[str, Any] = {"changed": False}
    try:
        if state == "present":
            result["changed"] = not keystore.is_current()
            if result["changed"] and not module.check_mode:
                keystore.make()
            if keystore.previous[0][1].exists():
                result["backup_file"] = str(keystore.previous[0][1])
        elif not module.check_mode:
            restored = keystore.restore() if state == "restored" else False
            result["changed"] = (keystore.prune() if state == "pruned" or restored else False) or restored
    except ApiError as error:
        module.fail_json(msg=f"The secrets of Kibana could not be kept: {error}. What was there is in place.")
    module.exit_json(**result)


if __name__ == "__main__":
    main()
