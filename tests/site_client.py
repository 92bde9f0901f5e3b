"""A running site as its users meet it: an operator's playbook run, and a customer's browser."""

import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import requests

from lab.settings import AUTHORITY, INVENTORY, PROJECT

BIN = Path(sys.executable).parent
BANK = "https://localhost:8443"
AUTHORITY_CERTIFICATE = AUTHORITY / "ca.crt"
CUSTOMER = "user@demo.local"
TOKEN = re.compile(r'name="csrf_token"[^>]*value="([^"]+)"')


@dataclass(frozen=True)
class PlaybookRun:
    """What one playbook run printed and changed."""

    output: str
    changed: dict[str, int]
    failed: bool

    def changed_tasks(self, host: str) -> list[str]:
        """Return the tasks that changed ``host``, in order."""
        tasks, task = [], ""
        for line in self.output.splitlines():
            if found := re.match(r"(?:TASK|RUNNING HANDLER) \[(.*?)\] \*", line):
                task = found[1]
            elif re.match(rf"changed: \[{re.escape(host)}[\] ]", line):
                tasks.append(task)
        return tasks


def run_playbook(name: str, *options: str, inventory: tuple[Path, ...] = (INVENTORY,), lab: str = "") -> PlaybookRun:
    """Run a playbook as an operator would and return what it did."""
    sources = [word for source in inventory for word in ("-i", str(source))]
    environment = {**os.environ, "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}", "ANSIBLE_FORCE_COLOR": "0"}
    environment |= {"LAB_NAME": lab} if lab else {}
    answer = subprocess.run(
        [str(BIN / "ansible-playbook"), *sources, name, *options],
        cwd=PROJECT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    recap = re.findall(r"^(\S+)\s+: ok=\d+\s+changed=(\d+)", answer.stdout, re.MULTILINE)
    return PlaybookRun(
        output=answer.stdout + answer.stderr,
        changed={host: int(count) for host, count in recap},
        failed=answer.returncode != 0,
    )


class Customer(requests.Session):
    """A customer's browser, without the pictures: follows forms and keeps cookies."""

    def __init__(self, base: str = BANK, authority: Path = AUTHORITY_CERTIFICATE) -> None:
        super().__init__()
        self.base = base
        # The site's own authority must be enough, whatever this machine's environment trusts.
        self.trust_env = False
        self.verify = str(authority)
        # What a browser sends with a form, and what the bank checks it against.
        self.headers["Referer"] = f"{base}/"

    def page(self, path: str) -> requests.Response:
        """Get a page."""
        return self.get(self.base + path, timeout=10)

    def submit(self, path: str, **fields: str) -> requests.Response:
        """Fill in the form of a page and send it."""
        token = TOKEN.search(self.page(path).text)
        assert token, f"{path} has no form"
        return self.post(self.base + path, data={"csrf_token": token[1], **fields}, timeout=10)

    def log_in(self, email: str, password: str) -> requests.Response:
        """Log in through the form."""
        return self.submit("/login", email=email, password=password)
