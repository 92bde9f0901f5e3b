"""What the commands of all reports have in common."""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from reports.service import Service, ServiceError

Kind = TypeVar("Kind", bound=Service)


def parser_of(module: str, description: str | None, example: str, output: Path) -> argparse.ArgumentParser:
    """Return the parser of a report's command: whom to ask, as whom, and where to write."""
    parser = argparse.ArgumentParser(prog=f"python -m reports.{module}", description=description)
    parser.add_argument("--url", required=True, help=f"the server, for instance {example}")
    parser.add_argument("--user", default="operator")
    parser.add_argument("--password-file", type=Path, required=True, help="file that holds the password alone")
    parser.add_argument("--authority", type=Path, required=True, help="certificate of the site's authority")
    parser.add_argument("--output", type=Path, default=output, help=f"where to write (default: {output})")
    return parser


def run(arguments: argparse.Namespace, kind: type[Kind], write: Callable[[Kind], str]) -> int:
    """Have a report written, and print its line; return 2 and say why if it cannot be had."""
    try:
        password = arguments.password_file.read_text(encoding="utf-8").strip()
        print(write(kind(arguments.url, arguments.user, password, arguments.authority)))
    except (ServiceError, OSError) as error:
        print(f"No report: {error}", file=sys.stderr)
        return 2
    return 0
