"""Runs programs, and turns what they complain about into one sentence."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from pgbackrest_job.settings import JobError

PGBACKREST = "/usr/bin/pgbackrest"
PSQL = "/usr/bin/psql"
# Its first ERROR says why; what follows are consequences and hints.
REASON = re.compile(r"\bERROR: (.+(?:\n {2,}\S.*)*)")


def reason(text: str) -> str:
    r"""Return what a program says went wrong, as one line.

    >>> reason("P00   INFO: begin\nP00  ERROR: [056]: no primary\n             HINT: is it running?\nP00 INFO: end")
    '[056]: no primary HINT: is it running?'
    """
    found = REASON.search(text)
    words = found[1] if found else (text.strip().splitlines() or ["no message"])[-1]
    return " ".join(words.split())


def call(command: Sequence[str], seconds: int) -> subprocess.CompletedProcess[str]:
    """Run a program, and return what it wrote.

    Raises:
        JobError: it cannot be started, takes too long or fails; the text is its own reason.
    """
    name = Path(command[0]).name
    try:
        # What a wrong passphrase makes of a file is no text in any encoding.
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=seconds,
            check=False,
        )
    except OSError as error:
        raise JobError(f"{name} cannot be started: {error}") from error
    except subprocess.TimeoutExpired as error:
        raise JobError(f"{name} did not end within {seconds} seconds and was killed") from error
    if done.returncode:
        raise JobError(f"{name} failed with code {done.returncode}: {reason(done.stderr or done.stdout)}")
    return done


def pgbackrest(stanza: str, *words: str, seconds: int) -> str:
    """Run pgBackRest for a stanza, and show what it warns of; it finds its own configuration, with the passphrase.

    Raises:
        JobError: it failed.
    """
    levels = ("--log-level-console=off", "--log-level-stderr=warn")
    done = call((PGBACKREST, f"--stanza={stanza}", *levels, *words), seconds)
    sys.stderr.write(done.stderr)
    return done.stdout


def ask(socket: str, port: int, query: str, database: str = "postgres", seconds: int = 60) -> str:
    """Ask a server over its socket, and return the answer as text.

    Raises:
        JobError: it does not answer, or refuses the question.
    """
    access = (f"--host={socket}", f"--port={port}", f"--dbname={database}")
    options = ("--no-psqlrc", "--no-align", "--tuples-only", "--no-password", "--set=ON_ERROR_STOP=1")
    return call((PSQL, *access, *options, f"--command={query}"), seconds).stdout.strip()
