"""What the tests of every scenario share: the scenario's secrets, and another run of a playbook on its hosts."""

import json
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import pytest
import yaml

PROJECT = Path(__file__).parents[1]
# What several scenarios share lies beside this file, wherever pytest was started.
sys.path.insert(0, str(Path(__file__).parent))
# Their assertions tell what they saw, as those of tests do.
pytest.register_assert_rewrite("lines", "monitoring")
SECRETS = PROJECT / ".lab/molecule-secrets.yml"
RECAP = re.compile(r"^(\S+)\s+: ok=\d+\s+changed=(\d+)\s+unreachable=(\d+)\s+failed=(\d+)", re.MULTILINE)


@dataclass(frozen=True)
class Run:
    """What an operator sees of one run of a playbook."""

    failed: bool
    output: str

    @property
    def words(self) -> str:
        """Return the output as one line: long sentences are wrapped where a terminal would end."""
        return " ".join(self.output.split())

    @property
    def changed(self) -> dict[str, int]:
        """Return the number of changes of each host, from the recap."""
        return {host: int(changed) for host, changed, _, _ in RECAP.findall(self.output)}

    @property
    def stopped(self) -> set[str]:
        """Return the hosts that were unreachable or on which a task failed, from the recap."""
        return {host for host, _, unreachable, failed in RECAP.findall(self.output) if int(unreachable) + int(failed)}


class Apply(Protocol):
    """Runs a playbook as an operator would."""

    def __call__(
        self, playbook: Path | None = None, /, *options: str | Path, inventory: Path | None = None, **variables: object
    ) -> Run:
        """Run a playbook, with further options of ansible-playbook and with some variables changed."""


class UnsafeLoader(yaml.SafeLoader):
    """Reads Ansible's marked strings as they are."""


UnsafeLoader.add_constructor("!unsafe", lambda loader, node: loader.construct_scalar(node))


@pytest.fixture(scope="session")
def secrets() -> dict[str, str]:
    """Return the secrets that every scenario's hosts were set up with."""
    return yaml.load(SECRETS.read_text(encoding="utf-8"), UnsafeLoader)


def converge_playbook() -> Path:
    """Return the playbook that `molecule converge` runs."""
    own = Path(os.environ["MOLECULE_SCENARIO_DIRECTORY"]) / "converge.yml"
    return own if own.is_file() else PROJECT / "molecule/shared/converge.yml"


@pytest.fixture(scope="session")
def apply() -> Apply:
    """Return a function that runs a playbook, normally the scenario's own, against the scenario's hosts."""

    def run(
        playbook: Path | None = None, /, *options: str | Path, inventory: Path | None = None, **variables: object
    ) -> Run:
        folder = Path(os.environ["MOLECULE_EPHEMERAL_DIRECTORY"])
        command = ["ansible-playbook", "--inventory", inventory or folder / "inventory", *options]
        command += ["--extra-vars", f"@{SECRETS}", "--extra-vars", json.dumps(variables)]
        environment = os.environ | {"ANSIBLE_CONFIG": str(folder / "ansible.cfg")}
        environment |= {"ANSIBLE_FORCE_COLOR": "0", "ANSIBLE_NOCOLOR": "1", "NO_COLOR": "1"}
        done = subprocess.run(
            [*command, playbook or converge_playbook()],
            cwd=PROJECT,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        answer = Run(done.returncode != 0, done.stdout)
        # A wrong option or a playbook that does not parse must not pass for a refused value.
        assert answer.changed, f"The run did not reach its recap:\n{answer.output}"
        return answer

    return run
