"""What a client of the database, and an auditor on its host, find."""

import shlex
from concurrent.futures import ThreadPoolExecutor

import pytest
import testinfra
from testinfra.backend.base import CommandResult
from testinfra.host import Host

SERVER = "postgresql-db1"
NAME = f"{SERVER}.bank.internal"
DATA = "/var/lib/pgsql/data"
TIMEOUT = "PGCONNECT_TIMEOUT=5"


@pytest.fixture(scope="session")
def server() -> Host:
    """Return the database host."""
    return testinfra.get_host(f"docker://{SERVER}")


def client_host(name: str, server: Host) -> Host:
    """Return a host with the client programs and the platform's CA."""
    host = testinfra.get_host(f"docker://{name}")
    host.run_expect([0], "dnf --assumeyes --quiet install @postgresql:15/client")
    authority = server.file("/etc/pki/bank/postgresql/ca.crt").content_string
    host.run_expect([0], f"printf %s {shlex.quote(authority)} > /root/ca.crt")
    return host


@pytest.fixture(scope="session")
def clients(server: Host) -> dict[str, Host]:
    """Return the hosts that log in, both made ready at the same time."""
    names = ("postgresql-app1", "postgresql-other1")
    with ThreadPoolExecutor(len(names)) as pool:
        return dict(zip(names, pool.map(lambda name: client_host(name, server), names), strict=True))


@pytest.fixture(scope="session")
def app(clients: dict[str, Host]) -> Host:
    """Return a host of the group bank_app."""
    return clients["postgresql-app1"]


@pytest.fixture(scope="session")
def stranger(clients: dict[str, Host]) -> Host:
    """Return a host of no group."""
    return clients["postgresql-other1"]


def connect(
    host: Host, password: str, sql: str, user: str = "bank_app", mode: str = "verify-full", database: str = "bank"
) -> CommandResult:
    """Run SQL from a host over the network."""
    target = f"host={NAME} dbname={database} user={user} sslmode={mode} sslrootcert=/root/ca.crt"
    environment = f"{TIMEOUT} PGPASSWORD={shlex.quote(password)}"
    return host.run(f"{environment} psql --no-password -XAtc {shlex.quote(sql)} {shlex.quote(target)}")


def on_server(server: Host, sql: str, database: str = "postgres") -> str:
    """Run SQL as the superuser on the host itself."""
    result = server.run(f"runuser -u postgres -- psql -XAt -d {database} -c {shlex.quote(sql)}")
    assert result.rc == 0, result.stderr
    return result.stdout.strip()


def test_application_logs_in_over_verified_tls(app: Host, secrets: dict[str, str]) -> None:
    sql = "SELECT ssl, version FROM pg_stat_ssl WHERE pid = pg_backend_pid()"
    result = connect(app, secrets["vault_bank_database_password"], sql)
    assert result.stdout.strip() in ("t|TLSv1.3", "t|TLSv1.2"), result.stderr


def test_owner_works_and_application_may_not_create(app: Host, secrets: dict[str, str]) -> None:
    owner = secrets["vault_bank_database_owner_password"]
    made = connect(app, owner, "CREATE TABLE IF NOT EXISTS proof (id int); DROP TABLE proof", user="bank_owner")
    assert made.rc == 0, made.stderr
    refused = connect(app, secrets["vault_bank_database_password"], "CREATE TABLE sneaky (id int)")
    assert "permission denied for schema public" in refused.stderr
    temporary = connect(app, secrets["vault_bank_database_password"], "CREATE TEMP TABLE sneaky (id int)")
    assert "permission denied to create temporary tables" in temporary.stderr


@pytest.mark.parametrize(
    ("user", "password", "mode", "database", "message"),
    [
        ("bank_app", None, "disable", "bank", "pg_hba.conf rejects connection"),
        ("bank_app", "wrong password", "verify-full", "bank", "password authentication failed"),
        ("bank_app", "", "verify-full", "bank", "no password supplied"),
        ("bank_app", None, "verify-full", "postgres", "pg_hba.conf rejects connection"),
        ("postgres", None, "verify-full", "bank", "pg_hba.conf rejects connection"),
        ("nobody", None, "verify-full", "bank", "pg_hba.conf rejects connection"),
    ],
    ids=["plain-text", "wrong-password", "no-password", "other-database", "superuser", "unknown-user"],
)
def test_server_refuses(
    app: Host, secrets: dict[str, str], user: str, password: str | None, mode: str, database: str, message: str
) -> None:
    known = secrets["vault_bank_database_password"]
    result = connect(app, known if password is None else password, "SELECT 1", user, mode, database)
    assert result.rc != 0
    assert message in result.stderr


def test_password_of_one_role_does_not_open_another(app: Host, secrets: dict[str, str]) -> None:
    result = connect(app, secrets["vault_bank_database_password"], "SELECT 1", user="bank_owner")
    assert "password authentication failed" in result.stderr


def test_host_outside_the_group_is_refused(stranger: Host, secrets: dict[str, str]) -> None:
    result = connect(stranger, secrets["vault_bank_database_password"], "SELECT 1")
    assert result.rc != 0
    assert "pg_hba.conf rejects connection" in result.stderr


def test_old_tls_is_refused(server: Host) -> None:
    command = f"openssl s_client -starttls postgres -connect {NAME}:5432 -cipher ALL:@SECLEVEL=0"
    assert server.run(f"{command} -tls1_1 </dev/null").rc != 0
    assert server.run(f"{command} -tls1_2 </dev/null").rc == 0


@pytest.mark.parametrize(
    ("path", "owner", "mode"),
    [
        (DATA, "postgres", 0o700),
        (f"{DATA}/pg_hba.conf", "postgres", 0o600),
        (f"{DATA}/conf.d/platform.conf", "postgres", 0o600),
        ("/etc/pki/bank/postgresql/tls.key", "root", 0o640),
    ],
)
def test_files_are_closed(server: Host, path: str, owner: str, mode: int) -> None:
    file = server.file(path)
    assert (file.user, file.gid, file.mode) == (owner, server.group("postgres").gid, mode)


def test_no_copy_of_an_older_configuration_is_left(server: Host) -> None:
    assert server.run_expect([0], f"find {DATA} /etc/systemd/system -name '*~'").stdout == ""


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("shared_buffers", "256MB"),
        ("effective_cache_size", "768MB"),
        ("max_connections", "100"),
        ("data_checksums", "on"),
        ("server_encoding", "UTF8"),
        ("ssl_min_protocol_version", "TLSv1.2"),
        ("password_encryption", "scram-sha-256"),
        ("log_lock_waits", "on"),
        ("log_min_duration_statement", "500ms"),
        ("log_parameter_max_length", "0"),
        ("wal_level", "replica"),
        ("unix_socket_directories", "/run/postgresql"),
    ],
)
def test_running_server_has_the_settings(server: Host, name: str, value: str) -> None:
    assert on_server(server, f"SHOW {name}") == value


def test_nothing_waits_for_a_restart_and_no_file_has_an_error(server: Host) -> None:
    assert on_server(server, "SELECT name FROM pg_settings WHERE pending_restart") == ""
    assert on_server(server, "SELECT * FROM pg_file_settings WHERE error IS NOT NULL") == ""
    assert on_server(server, "SELECT * FROM pg_hba_file_rules WHERE error IS NOT NULL") == ""


def test_server_listens_on_the_named_addresses_only(server: Host) -> None:
    address = server.run_expect([0], "hostname -i").stdout.split()[0]
    sockets = server.run_expect([0], "ss -Hltn sport = :5432").stdout
    listening = {line.split()[3].rsplit(":", 1)[0] for line in sockets.splitlines()}
    assert address in listening
    assert listening <= {address, "127.0.0.1", "[::1]"}


def test_database_belongs_to_its_owner_and_is_closed_to_others(server: Host) -> None:
    sql = "SELECT pg_get_userbyid(datdba), datacl::text FROM pg_database WHERE datname = 'bank'"
    owner, rights = on_server(server, sql).split("|")
    assert owner == "bank_owner"
    assert rights == "{bank_owner=CTc/bank_owner,bank_app=c/bank_owner,postgres_exporter=c/bank_owner}"


def test_roles_have_no_rights_of_the_server(server: Host) -> None:
    sql = (
        "SELECT rolname FROM pg_roles WHERE rolname LIKE 'bank%' AND NOT "
        "(rolsuper OR rolcreatedb OR rolcreaterole OR rolreplication OR rolbypassrls) ORDER BY 1"
    )
    assert on_server(server, sql).split() == ["bank_app", "bank_owner"]


def test_unit_is_sandboxed(server: Host) -> None:
    names = (
        "ProtectSystem,ProtectHome,PrivateTmp,NoNewPrivileges,CapabilityBoundingSet,PrivateDevices,RestrictNamespaces"
    )
    shown = server.run_expect([0], f"systemctl show postgresql.service -p {names}").stdout
    properties = dict(line.split("=", 1) for line in shown.splitlines())
    assert properties["ProtectSystem"] == "strict"
    assert {properties[name] for name in ("ProtectHome", "PrivateTmp", "NoNewPrivileges", "PrivateDevices")} == {"yes"}
    assert properties["CapabilityBoundingSet"] == ""
    assert properties["RestrictNamespaces"] == "yes"
    process = server.run_expect([0], f"cat /proc/$(head -n1 {DATA}/postmaster.pid)/status").stdout
    assert "NoNewPrivs:\t1" in process
    assert "CapBnd:\t0000000000000000" in process


def test_exposure_stays_low(server: Host) -> None:
    result = server.run_expect([0], "systemd-analyze security postgresql.service --threshold=25 --no-pager")
    assert "Overall exposure level" in result.stdout


def test_secrets_are_nowhere_on_the_host(server: Host, app: Host, secrets: dict[str, str]) -> None:
    for name in ("vault_bank_database_owner_password", "vault_bank_database_password"):
        # The first half has no special character that a log might have escaped.
        pattern = secrets[name][:16]
        found = server.run(f"grep -rlF {shlex.quote(pattern)} {DATA}/log /var/log /etc /run/systemd")
        assert (found.rc, found.stdout) == (1, ""), found.stdout
        journal = server.run(f"journalctl --no-pager | grep -cF {shlex.quote(pattern)}")
        assert journal.stdout.strip() == "0"
    assert server.run(f"grep -rlF 'SCRAM-SHA-256$' {DATA}/log").stdout == ""


def test_log_is_written_for_people_and_for_shippers(server: Host, app: Host, secrets: dict[str, str]) -> None:
    connect(app, secrets["vault_bank_database_password"], "SELECT pg_sleep(0.6)")
    files = server.run_expect([0], f"ls {DATA}/log").stdout.split()
    assert any(name.endswith(".log") for name in files)
    slow = server.run_expect([0], f"grep -h pg_sleep {DATA}/log/*.json").stdout
    assert '"user":"bank_app"' in slow
    assert "duration: " in slow


def test_data_survives_a_restart(server: Host, app: Host, secrets: dict[str, str]) -> None:
    owner = secrets["vault_bank_database_owner_password"]
    made = connect(app, owner, "CREATE TABLE kept AS SELECT 42 AS answer", user="bank_owner")
    assert made.rc == 0, made.stderr
    server.run_expect([0], "systemctl restart postgresql.service")
    kept = connect(app, owner, "SELECT answer FROM kept; DROP TABLE kept", user="bank_owner")
    assert kept.stdout.split()[0] == "42"
    assert server.service("postgresql").is_enabled
