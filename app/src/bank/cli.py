"""The ``bank`` command. Failures end in one sentence on stderr and exit status 1."""

from __future__ import annotations

import os
import re
import signal
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import click
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from bank import __version__, tracing
from bank.config import ConfigError, load_settings, unreadable_files
from bank.permissions import Role

if TYPE_CHECKING:
    from datetime import datetime

    from bank.config import Settings

MIGRATION_LOCK_MS = 60_000
DEMO_PASSWORD_VARIABLE = "BANK_DEMO_PASSWORD"  # noqa: S105  (the variable's name)


def _fail(sentence: str) -> NoReturn:
    click.echo(f"bank: {sentence}", err=True)
    sys.exit(1)


def _settings() -> Settings:
    try:
        settings = load_settings()
    except ConfigError as error:
        _fail(str(error))
    if problems := unreadable_files(settings):
        _fail(problems[0])
    return settings


def _explain(error: SQLAlchemyError, settings: Settings) -> str:
    database = settings.database
    where = f"database {database.name} on {database.host}:{database.port} as {database.user}"
    if isinstance(error, DBAPIError) and error.orig is not None:
        lines = str(error.orig).strip().splitlines()
        return f"{where}: {lines[0] if lines else type(error.orig).__name__}"
    return f"{where}: {type(error).__name__}"


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def main() -> None:
    """Run and look after the bank. The configuration is the file that BANK_CONFIG names."""


@main.command()
def version() -> None:
    """Print the release."""
    click.echo(__version__)


@main.command("check-config")
@click.option("--ready", is_flag=True, help="Also prove that the database, its schema and Redis answer.")
def check_config(ready: bool) -> None:
    """Check the configuration."""
    settings = _settings()
    if problem := tracing.missing_packages(settings):
        _fail(problem)
    if ready:
        from bank.resources import make_resources
        from bank.services import health

        found = make_resources(settings)
        failed = [f"{name}: {problem}" for name, problem in health.check_all(found).items() if problem]
        found.engine.dispose()
        if failed:
            _fail(f"not ready: {'; '.join(failed)}")
    click.echo("ready" if ready else "the configuration is usable")


@main.command()
def migrate() -> None:
    """Bring the database schema up to date; needs the rights of the database's owner."""
    settings = _settings()
    from bank.database import make_engine
    from bank.services import schema

    engine = make_engine(settings, statement_ms=0, lock_ms=MIGRATION_LOCK_MS)
    try:
        before, after = schema.migrate(engine, settings.database.application_role)
    except SQLAlchemyError as error:
        _fail(f"the schema was not changed: {_explain(error, settings)}")
    finally:
        engine.dispose()
    if before == after:
        click.echo(f"schema is at {after}, nothing to do")
    else:
        click.echo(f"schema moved from {before or 'nothing'} to {after}")


@main.command()
@click.option("--customers", type=click.IntRange(0, 100_000), default=10, show_default=True)
@click.option("--seed", "seed_number", type=int, default=1, show_default=True, help="Decides names and amounts.")
def seed(customers: int, seed_number: int) -> None:
    """Load demonstration data; whoever exists already is left alone. The password is BANK_DEMO_PASSWORD."""
    settings = _settings()
    from bank.database import make_engine
    from bank.services import seed as seeding

    password = os.environ.get(DEMO_PASSWORD_VARIABLE, "")
    if not password:
        _fail(f"set {DEMO_PASSWORD_VARIABLE} to the password of the demonstration users.")
    engine = make_engine(settings)
    try:
        result = seeding.seed(engine, customers=customers, seed_number=seed_number, password=password)
    except ValueError as error:
        _fail(f"{error}.")
    except SQLAlchemyError as error:
        _fail(f"no demonstration data: {_explain(error, settings)}")
    finally:
        engine.dispose()
    changed = f", {result.passwords_changed} passwords changed" if result.passwords_changed else ""
    click.echo(f"{result.people} people, {result.created} of them new{changed}")


@main.command()
def reconcile() -> None:
    """Check that every entry, balance and hold of the ledger adds up; exit status 1 names what does not."""
    settings = _settings()
    from bank.database import make_engine
    from bank.services import reconcile as reconciling

    engine = make_engine(settings)
    try:
        result = reconciling.reconcile(engine)
    except SQLAlchemyError as error:
        _fail(f"not reconciled: {_explain(error, settings)}")
    finally:
        engine.dispose()
    width = max(map(len, result.findings))
    for name, found in result.findings.items():
        click.echo(f"{name:<{width}}  {f'{len(found)} wrong' if found else 'ok'}")
    for found in result.findings.values():
        if found:
            click.echo(f"\n{found[0].check.name}: {found[0].check.next_step}.")
        for finding in found:
            click.echo(f"  {finding.subject}: {finding.problem}")
    if result.count:
        _fail(f"the ledger does not add up: {result.count} findings, off by {result.imbalance_minor} minor units.")


@main.command("verify-audit")
@click.option("--head", "known_head", metavar="HASH", help="A head printed earlier, which must still be in the trail.")
def verify_audit(known_head: str | None) -> None:
    """Check that no row of the audit trail was changed, removed or moved, and print the head of its chain.

    Keep the head outside the database: rows missing at the end are found by giving it back.
    """
    settings = _settings()
    from bank.database import make_engine
    from bank.services import audit

    engine = make_engine(settings, statement_ms=0)
    try:
        verdict = audit.verify(engine, known_head)
    except SQLAlchemyError as error:
        _fail(f"the audit trail was not checked: {_explain(error, settings)}")
    finally:
        engine.dispose()
    if verdict.problem:
        _fail(f"the audit trail is broken: {verdict.problem}; {verdict.rows} rows before that are good.")
    click.echo(f"{verdict.rows} rows, head {verdict.head}")


@main.command()
@click.argument("url")
@click.option("--customers", type=click.IntRange(2, 256), default=10, show_default=True, help="At the same time.")
@click.option("--seconds", type=click.FloatRange(1, 3600), default=30, show_default=True, help="Stop after this time.")
@click.option(
    "--requests", type=click.IntRange(1, 1_000_000), default=100_000, show_default=True, help="Or after these."
)
@click.option("--pause", type=click.FloatRange(0, 60), default=0.5, show_default=True, help="Mean seconds of thinking.")
@click.option("--via", type=click.Choice(["api", "pages", "both"]), default="both", show_default=True)
@click.option("--ca", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="CA that signed the site.")
@click.option("--seed", "seed_number", type=int, default=1, show_default=True, help="Decides who does what.")
@click.option(
    "--max-errors", type=click.FloatRange(0, 1), default=0.01, show_default=True, help="Share that is too much."
)
@click.option("--yes-this-host", is_flag=True, help="Allow a host outside of loopback and private networks.")
def load(
    *,
    url: str,
    customers: int,
    seconds: float,
    requests: int,
    pause: float,
    via: str,
    ca: Path | None,
    seed_number: int,
    max_errors: float,
    yes_this_host: bool,
) -> None:
    """Use the bank at URL as customers of the demonstration data do, and say how fast it answers.

    Money moves between them for good. The password is BANK_DEMO_PASSWORD, of customers that `bank seed` made.
    """
    from bank import load as generator

    password = os.environ.get(DEMO_PASSWORD_VARIABLE, "")
    if not password:
        _fail(f"set {DEMO_PASSWORD_VARIABLE} to the password of the demonstration users.")
    plan = generator.Plan(
        url=url,
        password=password,
        customers=customers,
        seconds=seconds,
        requests=requests,
        pause_seconds=pause,
        api=via != "pages",
        pages=via != "api",
        ca_certificate=ca,
        seed=seed_number,
    )
    try:
        if not yes_this_host:
            generator.require_private(url)
        with click.progressbar(length=100, label="load", file=sys.stderr) as bar:
            done = 0

            def show(sent: int, gone: float) -> None:
                nonlocal done
                share = int(100 * max(sent / requests, gone / seconds))
                bar.update(max(0, min(100, share) - done), sent)
                done = max(done, share)

            report = generator.run(plan, show)
    except generator.LoadError as error:
        _fail(str(error))
    click.echo(generator.table(report))
    if not report.total or report.errors > max_errors * report.total:
        _fail(f"{report.errors} of {report.total} requests failed.")


@main.command("run-due")
@click.option(
    "--date",
    "day",
    type=click.DateTime(["%Y-%m-%d"]),
    help="Do what is due up to this day of the past; today by default.",
)
def run_due(day: datetime | None) -> None:
    """Do once what the scheduler does: pay standing orders and interest, end holds and approvals that are over."""
    settings = _settings()
    from bank.database import make_engine
    from bank.services import scheduler, standing_orders

    engine = make_engine(settings)
    try:
        today = standing_orders.today(engine)
        chosen = day.date() if day else today
        if chosen > today:
            _fail(f"{chosen} is not over yet: today is {today} by the database's clock.")
        done = scheduler.run_due(engine, settings, chosen)
    except SQLAlchemyError as error:
        _fail(f"not everything was done: {_explain(error, settings)}")
    finally:
        engine.dispose()
    counted = ", ".join(f"{done.count(outcome)} {outcome}" for outcome in ("paid", "waiting", "failed"))
    click.echo(
        f"standing orders: {counted}; interest: {done.interest_paid} accounts; "
        f"ended: {done.holds_expired} holds, {done.approvals_expired} approvals"
    )


@main.command()
def scheduler() -> None:
    """Work by the clock until SIGTERM; any number of instances may run, and each piece of work is done once."""
    settings = _settings()
    from bank import log
    from bank.database import make_engine
    from bank.services import scheduler as scheduling

    try:
        log.configure(settings)
    except OSError as error:
        _fail(f"logging.path names {settings.logging.path}, which cannot be written: {error.strerror}.")
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    engine = make_engine(settings)
    try:
        scheduling.run_forever(engine, settings, stop)
    finally:
        engine.dispose()


def _new_password() -> str:
    """Ask for a password twice, or read one line of standard input; never an argument, which others could see."""
    if sys.stdin.isatty():
        return str(click.prompt("Password", hide_input=True, confirmation_prompt=True))
    return sys.stdin.readline().rstrip("\r\n")


@main.command("create-admin")
@click.option("--email", required=True)
@click.option("--name", default="Administrator", show_default=True, help="As other people see it.")
@click.option(
    "--role",
    type=click.Choice([str(role) for role in Role if role.is_staff]),
    default=str(Role.ADMIN),
    show_default=True,
)
def create_admin(email: str, name: str, role: str) -> None:
    """Add an administrator, or somebody else who works for the bank.

    Asks for the password, or reads it from standard input. At the first log-in they set a second factor up.
    """
    settings = _settings()
    from bank.database import make_engine
    from bank.services import audit, passwords, users

    if not re.fullmatch(r"[^@\s\x00]+@[^@\s\x00]+", email) or len(email) > users.MAX_EMAIL:
        _fail("--email must be an email address.")
    password = _new_password()
    engine = make_engine(settings)
    try:
        user_id = users.create_staff(
            engine, email=email, display_name=name, role=Role(role), password=password, origin=audit.Origin()
        )
    except users.EmailTakenError:
        _fail("somebody has this email already.")
    except passwords.PasswordError as error:
        _fail(error.text)
    except SQLAlchemyError as error:
        _fail(f"nobody was added: {_explain(error, settings)}")
    finally:
        engine.dispose()
    click.echo(f"{role} {user_id} added")


@main.command("rotate-keys")
def rotate_keys() -> None:
    """Encrypt with secret_key what earlier_secret_key had encrypted; afterwards take the earlier one away.

    Before: set earlier_secret_key to the secret in use and secret_key to a new one, on all instances.
    """
    settings = _settings()
    from bank.database import make_engine
    from bank.keys import Keyring
    from bank.services import audit, second_factor

    engine = make_engine(settings)
    try:
        changed, unreadable = second_factor.seal_anew(engine, Keyring.of(settings), audit.Origin())
    except SQLAlchemyError as error:
        _fail(f"no key was rotated: {_explain(error, settings)}")
    finally:
        engine.dispose()
    click.echo(f"{changed} second factors sealed with secret_key")
    if unreadable:
        _fail(f"{unreadable} second factors open with neither secret; set earlier_secret_key to the one they need.")
