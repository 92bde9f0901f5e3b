"""Command line: python3 elasticsearch_maintenance.pyz --config FILE check-config | check | run [--dry-run]."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from datetime import datetime, timezone
from pathlib import Path

from elasticsearch_maintenance import metrics
from elasticsearch_maintenance.config import Config, ConfigError, load
from elasticsearch_maintenance.server import Server, ServerError
from elasticsearch_maintenance.steps import Run

GOOD, FAILED, UNUSABLE = 0, 1, 2
STATE, METRICS = "state.json", "elasticsearch_maintenance.prom"


def check(config: Config) -> int:
    """Log in, and see that the user may do all that a run needs; nothing is changed."""
    server = Server(config)
    version = server.log_in()
    missing = server.missing_privileges()
    if missing:
        raise ServerError(
            f"User {config.user} lacks {', '.join(missing)}. Give it the role "
            "elasticsearch_maintenance (elasticsearch_roles)"
        )
    if config.snapshots:
        server.refuse_missing_repository(config.snapshots.repository)
    print(f"Elasticsearch {version} lets {config.user} in, who may do all that is needed")
    return GOOD


def run(config: Config, *, dry_run: bool, snapshot_now: bool) -> int:
    """Do everything that is due, and tell Prometheus; a dry run tells nobody but the caller."""
    state = config.state_directory / STATE
    facts = metrics.load(state)
    now = datetime.now(timezone.utc)
    done = Run(config, Server(config), facts, now, dry_run, snapshot_now)
    try:
        done.everything()
    except Exception as error:
        # Prometheus must hear of mistakes of the program, too.
        done.errors["connect"] = f"{type(error).__name__}: {error}"
    for step, text in done.errors.items():
        print(f"{step}: {text}", file=sys.stderr)
    if not dry_run:
        facts.run_timestamp = datetime.now(timezone.utc).timestamp()
        if not done.errors:
            facts.success_timestamp = facts.run_timestamp
        metrics.save(state, facts)
        metrics.write(config.state_directory / METRICS, metrics.render(facts, set(done.errors)), 0o644)
    return FAILED if done.errors else GOOD


def main(arguments: Sequence[str]) -> int:
    """Run one command; return 0 if all went well, 1 if something failed, 2 if the configuration cannot be used."""
    parser = argparse.ArgumentParser(prog="elasticsearch_maintenance", description=__doc__)
    parser.add_argument("--config", type=Path, required=True, help="configuration file")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("check-config", help="read the configuration only")
    commands.add_parser("check", help="log in and look at the privileges; change nothing")
    command = commands.add_parser("run", help="roll over, take a snapshot if one is due, delete what has expired")
    command.add_argument("--dry-run", action="store_true", help="say what would be done, and do nothing")
    command.add_argument("--snapshot-now", action="store_true", help="take a snapshot although none is due")
    options = parser.parse_args(arguments)
    try:
        config = load(options.config)
        if options.command == "check-config":
            return GOOD
        if options.command == "check":
            return check(config)
        return run(config, dry_run=options.dry_run, snapshot_now=options.snapshot_now)
    except (ConfigError, OSError) as error:
        print(str(error), file=sys.stderr)
        return UNUSABLE
    except ServerError as error:
        print(f"{str(error).rstrip('.')}.", file=sys.stderr)
        return FAILED
