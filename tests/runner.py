"""Run every check side by side, one line each: python -m tests.runner [check ...].

A check is named like the line that it prints; "lint", "molecule" and "long" name whole groups.
The long checks run only when they are named.
"""

import argparse
import os
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

PROJECT = Path(__file__).parents[1]
LOGS = PROJECT / ".lab" / "logs" / "tests"
BIN = Path(sys.executable).parent
APP_ENVIRONMENT = PROJECT / ".venv-app"
# Scenarios wait for their hosts much of the time, so one more than the cores keeps both cores busy.
WORKERS = (os.cpu_count() or 1) + 1
CHECK_SECONDS = 3000
LOG_LINES_SHOWN = 80
PREPARE = "prepare"
# Folders below tests/ that start containers.
HOST_FOLDERS = {"end_to_end", "single_host", "preflight"}
# Each takes some 15 minutes on two cores; what they look at, others look at in smaller.
LONG = ("single_host", "molecule elasticsearch_cluster")
# Set where nobody uses the lab after its tests: its idle hosts take a fifth of two cores from the other checks.
STOP_VARIABLE = "LAB_STOP_AFTER_TESTS"
# Started before the others, so that none of them is left alone on one core at the end.
LONGEST_FIRST = (
    "end_to_end",
    "molecule bank_app",
    "app",
    "single_host",
    "molecule elasticsearch_cluster",
    "molecule filebeat",
    "molecule elasticsearch",
    "molecule elasticsearch_maintenance",
    "molecule logstash",
    "molecule kibana",
    "molecule postgresql",
    "molecule pgbackrest",
    "molecule prometheus",
)


@dataclass(frozen=True)
class Check:
    """One line of the report: commands that run one after the other and must all succeed."""

    name: str
    group: str
    commands: list[list[str]] = field(repr=False)
    # Waits until the host image, the mirror and the secrets are there.
    needs_hosts: bool = False
    cwd: Path = PROJECT


def pytest_folder(folder: Path) -> Check:
    """Return the check of one folder below tests/."""
    # Also what passing tests print: delays and durations that they measured.
    pytest = [sys.executable, "-m", "pytest", "-q", "--strict-markers", "-rsP"]
    commands = [[*pytest, str(folder.relative_to(PROJECT))]]
    if folder.name == "end_to_end":
        commands.insert(0, [sys.executable, "-m", "lab", "up"])
        if os.environ.get(STOP_VARIABLE):
            commands.append([sys.executable, "-m", "lab", "down"])
    return Check(folder.name, folder.name, commands, needs_hosts=folder.name in HOST_FOLDERS)


def lint_checks() -> list[Check]:
    """Return the static checks."""
    # A template is no script before it is rendered.
    tracked = subprocess.run(
        ["git", "grep", "-lIE", "^#!.*\\b(ba)?sh$", "--", ":!*.j2"],
        cwd=PROJECT,
        capture_output=True,
        text=True,
        check=False,
    ).stdout.split()
    python = ["lab", "tests", "plugins", "benchmarks", "reports", "molecule", "roles", "files"]
    commands = {
        "ansible-lint": [["ansible-lint", "--offline", "--strict", "-q"]],
        "yamllint": [["yamllint", "--strict", "."]],
        "ruff": [["ruff", "check", *python], ["ruff", "format", "--check", *python]],
        "shellcheck": [["shellcheck", *tracked]],
    }
    return [Check(name, "lint", words) for name, words in commands.items()]


def app_check() -> Check:
    """Return the application's own lint and tests, in an environment of their own."""
    programs = APP_ENVIRONMENT / "bin"
    python = str(programs / "python")
    commands = [
        [sys.executable, "-m", "tests.app_services"],
        ["lab/bootstrap", str(APP_ENVIRONMENT), "app/requirements-dev.lock"],
        [python, "-m", "pip", "install", "--quiet", "--no-deps", "--editable", "app"],
        [str(programs / "ruff"), "check", "app"],
        [str(programs / "ruff"), "format", "--check", "app"],
        ["env", "-C", "app", python, "-m", "mypy"],
        ["env", "-C", "app", python, "-m", "pytest", "-q"],
    ]
    return Check("app", "app", commands)


def all_checks() -> list[Check]:
    """Return every check, in the order in which a full run starts them."""

    def rank(check: Check) -> int:
        return LONGEST_FIRST.index(check.name) if check.name in LONGEST_FIRST else len(LONGEST_FIRST)

    scenarios = sorted(file.parent.name for file in PROJECT.glob("molecule/*/molecule.yml"))
    folders = sorted({file.parent for file in PROJECT.glob("tests/*/test_*.py")})
    prepare = Check(PREPARE, PREPARE, [[sys.executable, "-m", "lab", "prepare"]])
    checks = [
        *lint_checks(),
        *(pytest_folder(folder) for folder in folders),
        app_check(),
        *(Check(f"molecule {name}", "molecule", [["molecule", "test", "-s", name]], True) for name in scenarios),
    ]
    return [prepare, *sorted(checks, key=rank)]


def run(check: Check) -> tuple[bool, float, Path]:
    """Run the commands of a check; return success, seconds and the log."""
    LOGS.mkdir(parents=True, exist_ok=True)
    log = LOGS / f"{check.name.replace(' ', '-')}.log"
    environment = {**os.environ, "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}", "NO_COLOR": "1"}
    environment |= {"ANSIBLE_FORCE_COLOR": "0", "PY_COLORS": "0", "PYTHONDONTWRITEBYTECODE": "1"}
    begun = time.monotonic()
    with log.open("w") as stream:
        for command in check.commands:
            try:
                code = subprocess.run(
                    command,
                    cwd=check.cwd,
                    env=environment,
                    stdin=subprocess.DEVNULL,
                    stdout=stream,
                    stderr=stream,
                    timeout=CHECK_SECONDS,
                    check=False,
                ).returncode
            except FileNotFoundError as error:
                stream.write(f"\n{error}: run make to complete the virtual environment\n")
                code = 1
            except subprocess.TimeoutExpired:
                stream.write(f"\nended after {CHECK_SECONDS} s\n")
                code = 1
            if code:
                return False, time.monotonic() - begun, log
    return True, time.monotonic() - begun, log


def report(check: Check, passed: bool, seconds: float, log: Path) -> None:
    """Print the line of a check that ended, and the end of its log if it failed."""
    print(f"{'passed' if passed else 'FAILED'}  {check.name:<28} {seconds:5.0f} s", flush=True)
    if not passed:
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines()[-LOG_LINES_SHOWN:]
        print("\n".join(f"    {line}" for line in lines), flush=True)
        print(f"    whole log: {log}", flush=True)


def run_all(checks: list[Check]) -> list[bool]:
    """Run checks side by side, each worker taking the first that may start; return who passed."""
    waiting = list(checks)
    results: list[bool] = []
    changed = threading.Condition()
    prepared = all(check.name != PREPARE for check in checks)

    def take() -> Check | None:
        while waiting:
            for check in waiting:
                if prepared or not check.needs_hosts:
                    waiting.remove(check)
                    return check
            changed.wait()
        return None

    def work() -> None:
        nonlocal prepared
        while True:
            with changed:
                check = take()
            if check is None:
                return
            passed, seconds, log = run(check)
            with changed:
                results.append(passed)
                # Also after a failure: each of the others then says what it misses.
                prepared = prepared or check.name == PREPARE
                report(check, passed, seconds, log)
                changed.notify_all()

    workers = [threading.Thread(target=work) for _ in range(WORKERS)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    return results


def choose(checks: list[Check], wanted: set[str]) -> list[Check]:
    """Return the checks of the wanted names and groups, or all but the long ones when nothing is wanted.

    Raises:
        ValueError: a name is unknown.
    """
    names = {check.name for check in checks} | {check.group for check in checks} | {"long"}
    if unknown := wanted - names:
        raise ValueError(f"no such check: {', '.join(sorted(unknown))}; there are: {', '.join(sorted(names))}")
    if not wanted:
        return [check for check in checks if check.name not in LONG]
    wanted = wanted | (set(LONG) if "long" in wanted else set())
    return [check for check in checks if {check.name, check.group} & wanted]


def main() -> None:
    """Parse the command line, run the chosen checks and close with the count."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("check", nargs="*", help="name or group of a check; an unknown one lists them")
    wanted = set(parser.parse_args().check)
    try:
        chosen = choose(all_checks(), wanted)
    except ValueError as error:
        parser.error(str(error))
    begun = time.monotonic()
    results = run_all(chosen)
    print(f"{len(chosen)} checks in {time.monotonic() - begun:.0f} s")
    if not wanted:
        print(f"not run, because they are long: {', '.join(LONG)} (make test-long)")
    print(f"{results.count(True)} passed, {results.count(False)} failed")
    sys.exit(0 if results and all(results) else 1)


if __name__ == "__main__":
    main()
