"""The job's command line."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from pgbackrest_job import archive, backup, recovery, restore_test
from pgbackrest_job.repository import NO_BACKUP, NO_DATA, NO_FOLDER, SOUND, parse
from pgbackrest_job.settings import JobError, Settings, load
from pgbackrest_job.tools import PGBACKREST, call, pgbackrest

JOBS = {"backup": backup.run, "restore-test": restore_test.run, "archive": archive.run, "await": recovery.run}


def prepare(settings: Settings) -> bool:
    """Make the stanza where a repository lacks it, and say so.

    Raises:
        JobError: it cannot be made.
    """
    missing = [key for key in settings.repositories if not backup.look(settings, key).has_stanza]
    if missing:
        pgbackrest(settings.stanza, "stanza-create", seconds=120)
        print(f"made the stanza {settings.stanza} in repository {', '.join(map(str, missing))}")
    return True


def validate(candidate: Path, stanza: str, keys: Sequence[int]) -> bool:
    """Try a configuration of pgBackRest on the repositories before it takes the old one's place.

    Raises:
        JobError: an option of it means nothing, or what is in a repository cannot be read with it.
    """
    words = (PGBACKREST, f"--config={candidate}", f"--stanza={stanza}", "--log-level-console=off")
    for key in keys:
        answer = call((*words, "--log-level-stderr=warn", "info", "--output=json", f"--repo={key}"), 120)
        # An option that it does not know is no error to it.
        if "WARN: " in answer.stderr:
            raise JobError(answer.stderr.split("WARN: ", 1)[1].splitlines()[0])
        found = parse(answer.stdout, stanza, key)
        if found.code not in (SOUND, NO_FOLDER, NO_BACKUP, NO_DATA):
            raise JobError(
                f"repository {key} cannot be read ({found.message.splitlines()[0]}): was "
                "vault_pgbackrest_cipher_passphrase changed? What is in a repository opens with the passphrase that it "
                "was made with alone"
            )
    return True


def main(words: Sequence[str]) -> int:
    """Do what the command line asks for; return the exit code."""
    parser = argparse.ArgumentParser(prog="pgbackrest_job", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    for name in (*JOBS, "prepare"):
        commands.add_parser(name).add_argument("--config", type=Path, required=True)
    candidate = commands.add_parser("validate")
    candidate.add_argument("--stanza", required=True)
    candidate.add_argument("--repositories", type=int, required=True)
    candidate.add_argument("candidate", type=Path)
    arguments = parser.parse_args(words)
    try:
        if arguments.command == "validate":
            is_good = validate(arguments.candidate, arguments.stanza, range(1, arguments.repositories + 1))
        else:
            is_good = {**JOBS, "prepare": prepare}[arguments.command](load(arguments.config))
    except JobError as error:
        print(f"pgbackrest_job {arguments.command}: {error}", file=sys.stderr)
        is_good = False
    return 0 if is_good else 1
