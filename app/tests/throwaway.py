"""A PostgreSQL and a Redis to throw away, started from the machine's own packages."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import shutil
import socket
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg
import yaml
from sqlalchemy import Engine, create_engine

if TYPE_CHECKING:
    from collections.abc import Iterator

# Where the platform says what the bank may do in Redis.
RIGHTS = Path(__file__).parents[2] / "group_vars" / "redis.yml"
# Values that break programs which paste secrets into shells, URLs or templates.
HOSTILE = "p @:/%25?#&'\"\\$HOME`id`{x} é€"


class StartError(Exception):
    """A server is missing or did not start."""


@dataclass(frozen=True)
class Servers:
    """Where the throw-away servers listen."""

    folder: Path
    postgres_port: int
    redis_port: int
    redis_tls_port: int
    owner_password: str = HOSTILE + "o"
    app_password: str = HOSTILE + "a"
    redis_password: str = HOSTILE + "r"
    secret_key: str = "Kq7v#Zt2!mW9xP4s&Lb8^Nc3*Hd6@Rf5"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def need(path: str | None, what: str, package: str) -> str:
    if path is None:
        raise StartError(f"The tests need {what}: apt-get install -y {package}")
    return path


def _postgres_programs() -> Path:
    found = [path.parent for path in Path("/usr/lib/postgresql").glob("*/bin/initdb")]
    found += [Path(path).parent for path in [shutil.which("initdb")] if path]
    newest = max(found, key=lambda path: int(path.parent.name) if path.parent.name.isdigit() else 0, default=None)
    return Path(need(str(newest) if newest else None, "PostgreSQL's server programs", "postgresql"))


def _as_postgres() -> list[str]:
    """PostgreSQL refuses to run as root."""
    return ["runuser", "-u", "postgres", "--"] if os.geteuid() == 0 else []


def make_pki(folder: Path) -> Path:
    """A CA with a server's and a client's certificate, and one of a stranger."""

    def run(*arguments):
        subprocess.run(["openssl", *arguments], check=True, capture_output=True, cwd=folder)

    curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"]
    for ca in ("ca", "other"):
        run("req", "-x509", *curve, "-keyout", f"{ca}.key", "-out", f"{ca}.crt", "-subj", f"/CN={ca}")
    for name, ca, usage in (
        ("server", "ca", "serverAuth"), ("renewed", "ca", "serverAuth"),
        ("client", "ca", "clientAuth"), ("stranger", "other", "clientAuth"),
    ):  # fmt: skip
        run("req", "-x509", *curve, "-CA", f"{ca}.crt", "-CAkey", f"{ca}.key", "-keyout", f"{name}.key",
            "-out", f"{name}.crt", "-subj", f"/CN={name}", "-addext", "subjectAltName=DNS:localhost",
            "-addext", f"extendedKeyUsage={usage}", "-addext", "basicConstraints=critical,CA:FALSE")  # fmt: skip
    return folder


@contextlib.contextmanager
def running(pki: Path, *postgres_options: str) -> Iterator[Servers]:
    """Start both servers with the certificates of ``make_pki``; stop them and remove their files at the end.

    Raises:
        StartError: They did not start.
    """
    programs = _postgres_programs()
    redis_server = need(shutil.which("redis-server"), "redis-server", "redis-server")
    folder = Path(tempfile.mkdtemp(prefix="bank-tests-"))
    folder.chmod(0o755)
    found = Servers(folder, free_port(), free_port(), free_port())
    database = folder / "postgresql"
    database.mkdir()
    if os.geteuid() == 0:
        shutil.chown(database, "postgres", "postgres")
    for suffix in ("crt", "key"):
        shutil.copy(pki / f"server.{suffix}", database / f"server.{suffix}")
        (database / f"server.{suffix}").chmod(0o600)
        if os.geteuid() == 0:
            shutil.chown(database / f"server.{suffix}", "postgres", "postgres")
    with contextlib.ExitStack() as stack:
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        subprocess.run(
            [*_as_postgres(), programs / "initdb", "-D", database / "data", "-U", "postgres", "--no-sync",
             "--auth-local=peer" if os.geteuid() else "--auth-local=trust", "--auth-host=scram-sha-256", "-E", "UTF8"],
            check=True, capture_output=True, cwd="/",
        )  # fmt: skip
        if os.geteuid():
            hba = database / "data" / "pg_hba.conf"
            hba.write_text(re.sub(r"^local.*$", "local all all trust", hba.read_text(), flags=re.MULTILINE))
        server = subprocess.Popen(
            [*_as_postgres(), programs / "postgres", "-D", database / "data", "-p", str(found.postgres_port),
             "-k", database, "-c", "listen_addresses=127.0.0.1", "-c", "max_connections=150",
             *[part for option in postgres_options for part in ("-c", option)],
             "-c", "ssl=on", "-c", f"ssl_cert_file={database}/server.crt", "-c", f"ssl_key_file={database}/server.key"],
            stdout=(folder / "postgresql.log").open("wb"), stderr=subprocess.STDOUT, cwd="/",
        )  # fmt: skip
        # SIGINT: stop at once, but cleanly.
        stack.callback(stop, server, 2)
        configuration = folder / "redis.conf"
        configuration.write_text(
            f'port {found.redis_port}\nbind 127.0.0.1\nsave ""\nappendonly no\ndir {folder}\n'
            f"user default off\nuser bank on {redis_rights(found.redis_password)}\n"
            f"tls-port {found.redis_tls_port}\ntls-auth-clients no\ntls-ca-cert-file {pki}/ca.crt\n"
            f"tls-cert-file {pki}/server.crt\ntls-key-file {pki}/server.key\n"
        )
        redis_process = subprocess.Popen([redis_server, configuration], stdout=subprocess.DEVNULL)
        stack.callback(stop, redis_process, 15)
        _prepare(found, database)
        await_port(found.redis_port)
        yield found


def redis_rights(password: str) -> str:
    """What the bank's user of Redis may do on a real site, from the variables that the platform gives it there.

    The words are those that the platform's role writes, so that the tests find a right that is missing.
    """
    (user,) = (user for user in yaml.safe_load(RIGHTS.read_text())["redis_users"] if user["name"] == "bank")
    words = [f"#{hashlib.sha256(password.encode()).hexdigest()}", *(f"~{key}" for key in user["keys"])]
    words += ["resetchannels", *(f"&{channel}" for channel in user["channels"]), "-@all", *user["commands"]]
    return " ".join(words)


def stop(process: subprocess.Popen, number: int) -> None:
    # runuser hands signals on to the server that it started.
    process.send_signal(number if process.args[0] != "runuser" else 15)
    try:
        process.wait(20)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def await_port(port: int) -> None:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.05)
    raise StartError(f"nothing listens on port {port}")


def _prepare(found: Servers, sockets: Path) -> None:
    deadline = time.monotonic() + 20
    while True:
        try:
            connection = psycopg.connect(
                host=str(sockets), port=found.postgres_port, user="postgres", dbname="postgres", autocommit=True
            )
            break
        except psycopg.OperationalError:
            if time.monotonic() > deadline:
                log = (found.folder / "postgresql.log").read_text()
                raise StartError(f"PostgreSQL did not start:\n{log}") from None
            time.sleep(0.05)
    with connection:
        for role, password in (("bank_owner", found.owner_password), ("bank_app", found.app_password)):
            connection.execute(
                psycopg.sql.SQL("CREATE ROLE {} LOGIN PASSWORD {}").format(
                    psycopg.sql.Identifier(role), psycopg.sql.Literal(password)
                )
            )
        connection.execute("CREATE DATABASE bank OWNER bank_owner")


def superuser_engine(found: Servers) -> Engine:
    """Return the database as PostgreSQL's own superuser sees it."""
    return create_engine(
        f"postgresql+psycopg://postgres@/bank?host={found.folder / 'postgresql'}&port={found.postgres_port}"
    )


def toml_text(value: str) -> str:
    escaped = value.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def configuration_text(servers: Servers, *, database: str = "bank", log: str = "", more: str = "") -> str:
    return f"""
environment = "test"
site = "main"
instance = "app-test"
secret_key = {toml_text(servers.secret_key)}
[login]
staff_second_factor = false
[confirmation]
limit_minor = 1000000000000
new_payees = false
[database]
host = "127.0.0.1"
port = {servers.postgres_port}
name = "{database}"
user = "bank_app"
password = {toml_text(servers.app_password)}
ssl_mode = "disable"
pool_size = 30
[redis]
host = "127.0.0.1"
port = {servers.redis_port}
user = "bank"
password = {toml_text(servers.redis_password)}
[logging]
path = "{log}"
{more}
"""
