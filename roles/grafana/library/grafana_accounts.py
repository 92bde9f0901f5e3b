#!/usr/bin/python
"""Brings the administrator's password, the organisation and the accounts of Grafana to their declared state."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any
from urllib.parse import quote

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.rest_api import ACCESS, Api, ApiError, api_of

DOCUMENTATION = r"""
module: grafana_accounts
short_description: The administrator's password, the organisation's name, users and service accounts of Grafana
description:
  - Accounts that the platform made carry a mark in their names; those that are no longer declared are removed. What
    people made stays.
  - A password is compared by logging in with it. Where the administrator's is not accepted, Grafana's own tool sets it.
  - The token of a service account is in a file that only root reads. One that Grafana no longer accepts is replaced.
options:
  organization:
    description: Name of the organisation.
    type: str
    required: true
  users:
    description: Accounts of people, each with name, password and role.
    type: list
    elements: dict
    default: []
    suboptions:
      name:
        description: Name to log in with.
        type: str
        required: true
      password:
        description: Password.
        type: str
        required: true
      role:
        description: What the account may do in the organisation.
        type: str
        choices: [Viewer, Editor, Admin]
        default: Viewer
  service_accounts:
    description: Accounts of programs.
    type: list
    elements: dict
    default: []
    suboptions:
      name:
        description: Name, also of the file with the token.
        type: str
        required: true
      role:
        description: What the account may do in the organisation.
        type: str
        choices: [Viewer, Editor, Admin]
        default: Viewer
  token_directory:
    description: Folder that holds nothing but the tokens.
    type: path
    required: true
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
- name: Let the operators look
  grafana_accounts:
    organization: Bank
    users:
      - {name: operator, password: "{{ operator_password }}", role: Viewer}
    token_directory: /etc/grafana/tokens
    access:
      urls: ["https://grafana1.example.com:{{ grafana_port }}"]
      ca_path: /etc/pki/bank/grafana/ca.crt
      user: platform_admin
      password: "{{ grafana_admin_password }}"
"""

RETURN = r""" # """

MARK = "(kept by the platform)"
TOKEN_NAME = "platform"
# The first organisation, which Grafana makes by itself.
ORGANIZATION = 1
# The first user, which Grafana makes by itself: the administrator.
ADMINISTRATOR = "1"
REFUSED = 401
PAGE = 1000
TOOL = ["/usr/sbin/runuser", "-u", "grafana", "--", "/usr/share/grafana/bin/grafana", "cli"]
TOOL += ["--homepath", "/usr/share/grafana", "--config", "/etc/grafana/grafana.ini"]
RESET = ["admin", "reset-admin-password", "--user-id", ADMINISTRATOR, "--password-from-stdin"]
DATA = "cfg:default.paths.data=/var/lib/grafana"


class Accounts:
    """What Grafana keeps, and what of it was changed."""

    def __init__(self, module: AnsibleModule) -> None:
        """Take everything from the arguments."""
        self.module, self.params = module, module.params
        self.api = api_of(module.params)
        self.diff: list[dict[str, str]] = []

    def note(self, label: str, before: str, after: str) -> None:
        """Remember a difference."""
        ends = [f"{text}\n" if text else "" for text in (before, after)]
        self.diff.append({"before_header": label, "after_header": label, "before": ends[0], "after": ends[1]})

    def send(self, method: str, path: str, body: object = None) -> dict[str, Any]:
        """Send a request that changes something, unless in check mode."""
        return {} if self.module.check_mode else self.api.ask(method, path, body)

    def accepts(self, **login: Any) -> bool:  # noqa: ANN401 - arguments of Api
        """Return whether Grafana knows a log-in."""
        access = self.params["access"]
        api = Api(access["urls"], access["ca_path"], **{"user": "", "password": "", **login})
        try:
            api.ask("GET", "/api/user" if login.get("user") else "/api/org")
        except ApiError as error:
            if error.status == REFUSED:
                return False
            raise
        return True

    def bring_administrator(self) -> None:
        """Set the administrator's password where Grafana does not accept it."""
        if self.accepts(user=self.api.user, password=self.api.password):
            return
        self.note("password of the administrator", "another one", "as declared")
        if self.module.check_mode:
            # Nothing else can be looked at.
            self.module.exit_json(changed=True, diff=self.diff)
        command = [*TOOL, "--configOverrides", DATA, *RESET]
        code, output, errors = self.module.run_command(command, data=self.api.password, cwd="/usr/share/grafana")
        if code:
            self.module.fail_json(msg=f"Grafana's tool did not set the administrator's password: {errors or output}")
        if not self.accepts(user=self.api.user, password=self.api.password):
            self.module.fail_json(
                msg=f"Grafana refuses {self.api.user} with the password that its own tool has just set. Either log-ins "
                "of that name are locked for five minutes, because several failed: wait, and run again. Or the "
                "administrator was given another name when Grafana's database was made: set grafana_admin_user to it."
            )

    def bring_organization(self) -> None:
        """Name the organisation."""
        name, found = self.params["organization"], self.api.ask("GET", f"/api/orgs/{ORGANIZATION}")["name"]
        if found != name:
            self.note("organisation", found, name)
            self.send("PUT", f"/api/orgs/{ORGANIZATION}", {"name": name})

    def bring_users(self) -> None:
        """Make, correct and remove accounts of people."""
        found = {user["login"]: user for user in self.api.ask("GET", f"/api/users?perpage={PAGE}")}
        roles = {user["login"]: user["role"] for user in self.api.ask("GET", f"/api/orgs/{ORGANIZATION}/users")}
        declared = {user["name"]: user for user in self.params["users"]}
        for name, user in declared.items():
            if name not in found:
                self.note(f"user {name}", "", user["role"])
                body = {"login": name, "name": f"{name} {MARK}", "password": user["password"], "OrgId": ORGANIZATION}
                made = self.send("POST", "/api/admin/users", body)
                if made:
                    self.give_role(made["id"], user["role"])
                continue
            identifier = found[name]["id"]
            if roles.get(name) != user["role"]:
                self.note(f"role of {name}", str(roles.get(name)), user["role"])
                if not self.module.check_mode:
                    self.give_role(identifier, user["role"], is_member=name in roles)
            if found[name].get("isDisabled"):
                self.note(f"user {name}", "disabled", "enabled")
                self.send("POST", f"/api/admin/users/{identifier}/enable")
            if not self.accepts(user=name, password=user["password"]):
                self.note(f"password of {name}", "another one", "as declared")
                self.send("PUT", f"/api/admin/users/{identifier}/password", {"password": user["password"]})
        for name, user in found.items():
            if user.get("name", "").endswith(MARK) and name not in declared and name != self.api.user:
                self.note(f"user {name}", str(roles.get(name)), "")
                self.send("DELETE", f"/api/admin/users/{user['id']}")

    def give_role(self, identifier: int, role: str, *, is_member: bool = True) -> None:
        """Say what a user may do in the organisation."""
        if is_member:
            self.api.ask("PATCH", f"/api/orgs/{ORGANIZATION}/users/{identifier}", {"role": role})
        else:
            login = self.api.ask("GET", f"/api/users/{identifier}")["login"]
            self.api.ask("POST", f"/api/orgs/{ORGANIZATION}/users", {"loginOrEmail": login, "role": role})

    def bring_service_accounts(self) -> None:
        """Make, correct and remove accounts of programs with their tokens."""
        answer = self.api.ask("GET", f"/api/serviceaccounts/search?perpage={PAGE}")
        found = {account["name"]: account for account in answer["serviceAccounts"]}
        declared = {f"{account['name']} {MARK}": account for account in self.params["service_accounts"]}
        for label, account in declared.items():
            known = found.get(label)
            if known is None:
                self.note(f"service account {account['name']}", "", account["role"])
                body = {"name": label, "role": account["role"], "isDisabled": False}
                known = self.send("POST", "/api/serviceaccounts", body)
            elif known["role"] != account["role"] or known.get("isDisabled"):
                self.note(f"service account {account['name']}", known["role"], account["role"])
                body = {"role": account["role"], "isDisabled": False}
                self.send("PATCH", f"/api/serviceaccounts/{known['id']}", body)
            self.bring_token(account["name"], known)
        for label, account in found.items():
            if label.endswith(MARK) and label not in declared:
                self.note(f"service account {label.removesuffix(MARK).strip()}", account["role"], "")
                self.send("DELETE", f"/api/serviceaccounts/{account['id']}")
        names = {account["name"] for account in self.params["service_accounts"]}
        for path in Path(self.params["token_directory"]).glob("*"):
            if path.name not in names:
                self.note(str(path), "a token", "")
                if not self.module.check_mode:
                    path.unlink()

    def bring_token(self, name: str, account: dict[str, Any]) -> None:
        """Keep a token that works."""
        path = Path(self.params["token_directory"]) / name
        if path.exists():
            headers = {"Authorization": f"Bearer {path.read_text(encoding='utf-8').strip()}"}
            if self.accepts(headers=headers):
                return
        self.note(str(path), "", "a token")
        if self.module.check_mode:
            return
        address = f"/api/serviceaccounts/{quote(str(account['id']))}/tokens"
        for token in self.api.ask("GET", address):
            if token["name"] == TOKEN_NAME:
                self.api.ask("DELETE", f"{address}/{token['id']}")
        key = self.api.ask("POST", address, {"name": TOKEN_NAME})["key"]
        handle, new = tempfile.mkstemp(dir=path.parent, prefix=".new-")
        with os.fdopen(handle, "w", encoding="utf-8") as stream:
            stream.write(f"{key}\n")
        Path(new).replace(path)


def main() -> None:
    """Run the module."""
    role = {"type": "str", "choices": ["Viewer", "Editor", "Admin"], "default": "Viewer"}
    name = {"type": "str", "required": True}
    password = {"type": "str", "required": True, "no_log": True}
    module = AnsibleModule(
        argument_spec={
            "access": ACCESS,
            "organization": {"type": "str", "required": True},
            "users": {
                "type": "list",
                "elements": "dict",
                "default": [],
                "options": {"name": name, "password": password, "role": role},
            },
            "service_accounts": {
                "type": "list",
                "elements": "dict",
                "default": [],
                "options": {"name": name, "role": role},
            },
            "token_directory": {"type": "path", "required": True, "no_log": False},
        },
        supports_check_mode=True,
    )
    accounts = Accounts(module)
    try:
        accounts.bring_administrator()
        accounts.bring_organization()
        accounts.bring_users()
        accounts.bring_service_accounts()
    except ApiError as error:
        module.fail_json(msg=f"The accounts of Grafana could not be brought to their declared state: {error}.")
    module.exit_json(changed=bool(accounts.diff), diff=accounts.diff)


if __name__ == "__main__":
    main()
