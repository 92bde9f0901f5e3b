"""Measure the first and the unchanged run of site.yml: seconds and tasks, how they grow, and what the settings give.

Usage: python -m benchmarks.converge [--sizes 2 10] [--settings] [--output FILE]

Runs in a lab of its own (LAB_NAME=bank-benchmark), one measurement at a time, and removes it at the end.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import yaml

PROJECT = Path(__file__).parents[1]
BIN = Path(sys.executable).parent
LAB = "bank-benchmark"
SITE = ("ansible-playbook", "site.yml")
# Load balancer, database with cache, and monitoring stay one host each.
OTHER_HOSTS = 3
STATE = PROJECT / ".lab" / "benchmark"
# Each setting that ansible.cfg chooses, and what Ansible does without it.
LINEAR = {"ANSIBLE_STRATEGY": "linear"}
ALTERNATIVES = {
    "as configured": {},
    "5 forks (Ansible's default)": {"ANSIBLE_FORKS": "5"},
    "Ansible's strategy linear": LINEAR,
    "Ansible's strategy free": {"ANSIBLE_STRATEGY": "free"},
    "linear, without pipelining": {**LINEAR, "ANSIBLE_PIPELINING": "0"},
    "linear, 5 forks": {**LINEAR, "ANSIBLE_FORKS": "5"},
    "linear, through the engine": {**LINEAR, "LAB_CONNECTION": "docker"},
}


@dataclass(frozen=True)
class Run:
    """One run of site.yml."""

    instances: int
    hosts: int
    kind: str
    seconds: float
    # Tasks that ran on a host, summed over hosts.
    tasks: int
    changed: int


def inventory(instances: int) -> Path:
    """Write the inventory of the lab with that many bank instances; return its folder."""
    folder = STATE / f"site-of-{instances}"
    folder.mkdir(parents=True, exist_ok=True)
    lab = yaml.safe_load((PROJECT / "inventories" / "lab" / "hosts.yml").read_text(encoding="utf-8"))
    # Without their variables, which publish ports that the lab may hold.
    groups = {group: list(content["hosts"]) for group, content in lab["all"]["children"].items()}
    groups["bank_app"] = [f"app{number}" for number in range(1, instances + 1)]
    children = {group: {"hosts": dict.fromkeys(names)} for group, names in groups.items()}
    text = yaml.safe_dump({"all": {"children": children}})
    (folder / "hosts.yml").write_text(text, encoding="utf-8")
    link = folder / "group_vars"
    link.unlink(missing_ok=True)
    link.symlink_to(PROJECT / "inventories" / "lab" / "group_vars")
    return folder


def environment(site: Path, **more: str) -> dict[str, str]:
    """Return the environment of a command on the benchmark's lab."""
    path = f"{BIN}{os.pathsep}{os.environ['PATH']}"
    return {**os.environ, "PATH": path, "LAB_NAME": LAB, "LAB_INVENTORY": str(site), **more}


def start_hosts(site: Path) -> None:
    """Start the containers of a site, without running any playbook."""
    subprocess.run([sys.executable, "-m", "lab", "start"], cwd=PROJECT, env=environment(site), check=True)


def remove_hosts(site: Path) -> None:
    """Remove the benchmark's containers."""
    subprocess.run([sys.executable, "-m", "lab", "clean"], cwd=PROJECT, env=environment(site), check=True)


def measure(site: Path, instances: int, kind: str, words: tuple[str, ...] = SITE, **more: str) -> Run:
    """Run one command of Ansible, normally site.yml, once.

    Raises:
        RuntimeError: the run failed; the text holds the end of its output.
    """
    begun = time.monotonic()
    program, *options = words
    answer = subprocess.run(
        [str(BIN / program), "-i", str(site), *options],
        cwd=PROJECT,
        env=environment(site, ANSIBLE_FORCE_COLOR="0", **more),
        capture_output=True,
        text=True,
        check=False,
    )
    seconds = time.monotonic() - begun
    if answer.returncode:
        raise RuntimeError(f"{' '.join(words)} failed ({kind}, {instances} instances): {answer.stdout[-3000:]}")
    recap = re.findall(r"ok=(\d+)\s+changed=(\d+)", answer.stdout)
    run = Run(
        instances=instances,
        hosts=instances + OTHER_HOSTS,
        kind=kind,
        seconds=round(seconds, 1),
        tasks=sum(int(ok) for ok, _ in recap),
        changed=sum(int(changed) for _, changed in recap),
    )
    print(f"{run.kind:<32} {run.instances:>3} instances  {run.seconds:7.1f} s  {run.tasks:>5} tasks", flush=True)
    return run


def facts() -> dict[str, tuple[str, ...]]:
    """Return the commands that gather what playbooks/facts.yml asks for, and what Ansible would by itself."""
    plays = yaml.safe_load((PROJECT / "playbooks" / "facts.yml").read_text(encoding="utf-8"))
    subset = ",".join(plays[0]["tasks"][0]["ansible.builtin.setup"]["gather_subset"])
    choices = {"facts that roles use": subset, "all facts": "all"}
    return {
        name: ("ansible", "all", "-m", "ansible.builtin.setup", "-a", f"gather_subset={value}")
        for name, value in choices.items()
    }


def main() -> None:
    """Parse the command line, measure and write the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", type=int, nargs="+", default=[2, 10])
    parser.add_argument("--settings", action="store_true", help="also measure the smallest site without each setting")
    parser.add_argument("--output", type=Path, default=PROJECT / "benchmarks" / "converge.json")
    arguments = parser.parse_args()
    runs = []
    for size in sorted(arguments.sizes):
        site = inventory(size)
        try:
            start_hosts(site)
            runs.append(measure(site, size, "first run"))
            compared = arguments.settings and size == min(arguments.sizes)
            alternatives = ALTERNATIVES if compared else {"as configured": {}}
            runs += [measure(site, size, f"unchanged, {name}", **more) for name, more in alternatives.items()]
            if compared:
                runs += [measure(site, size, name, words) for name, words in facts().items()]
        finally:
            remove_hosts(site)
    arguments.output.write_text(json.dumps([asdict(run) for run in runs], indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
