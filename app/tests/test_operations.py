"""Health, metrics, logs and the server itself."""

import http.client
import ipaddress
import json
import re
import socket
import ssl
import subprocess
import time

import pytest
from redis.exceptions import NoPermissionError
from sqlalchemy import text as sql

import bank
from bank import metrics
from bank.app import create_app
from bank.config import Approvals, load_settings
from bank.permissions import public
from bank.resources import make_resources
from bank.services import health, reconcile, transfers
from conftest import PASSWORD, browser, configuration_text, free_port

CANARY = "canary-9f8e7d"


def broken_app(servers, tmp_path, find, replace):
    path = tmp_path / "bank.toml"
    path.write_text(configuration_text(servers, log=str(tmp_path / "bank.json")).replace(find, replace))
    return create_app(load_settings(path))


def samples(text, name):
    """Return the samples of one metric: labels as written, and value."""
    return {
        match[1] or "": float(match[2]) for match in re.finditer(rf"^{name}(\{{.*?\}})? (\S+)$", text, re.MULTILINE)
    }


def fetch(instance, path, *, context=None, headers=None):
    if context:
        connection = http.client.HTTPSConnection("localhost", instance.port, timeout=30, context=context)
    else:
        connection = http.client.HTTPConnection("127.0.0.1", instance.port, timeout=30)
    connection.request("GET", path, headers=headers or {})
    response = connection.getresponse()
    body = response.read().decode()
    connection.close()
    return response, body


# Health


def test_ready(client):
    response = client.get("/health/ready")
    assert response.status_code == 200
    assert response.json == {
        "status": "ready",
        "checks": {"database": "ok", "schema": "ok", "redis": "ok"},
        "failed": [],
    }


def test_public_learns_the_status_only(client):
    assert client.get("/health/ready", headers={"X-Forwarded-For": "203.0.113.7"}).json == {"status": "ready"}
    assert client.get("/metrics", headers={"X-Forwarded-For": "203.0.113.7"}).status_code == 404


@pytest.mark.parametrize("which", ["redis", "database"])
def test_ready_names_what_is_down_and_the_rest_goes_on(servers, owner, tmp_path, which):
    port = servers.redis_port if which == "redis" else servers.postgres_port
    app = broken_app(servers, tmp_path, f"port = {port}", f"port = {free_port()}")
    client = browser(app)
    response = client.get("/health/ready")
    # Load balancers must leave money a way: only pages need Redis, and they say so.
    wanted = (200, "degraded") if which == "redis" else (503, "unavailable")
    assert (response.status_code, response.json["status"]) == wanted
    assert response.json["failed"] == [which]
    assert response.json["checks"][which] == "failed"
    for path in ("/health", "/metrics", "/static/bank.css"):
        assert client.get(path).status_code == 200
    page = client.post("/login", {}) if which == "database" else client.get("/login")
    if which == "redis":
        assert page.status_code == 503
        assert page.headers["Retry-After"] == "10"
        assert page.headers["X-Request-ID"] in page.get_data(as_text=True)
        assert page.headers["Content-Security-Policy"]
        client.client.set_cookie("__Host-bank-session", "A" * 43, domain="bank.test")
        assert client.get("/accounts").status_code == 503
        assert client.get("/nothing").status_code == 404
    else:
        assert client.log_in("user@test.local").status_code == 503
    lines = [json.loads(line) for line in (tmp_path / "bank.json").read_text().splitlines()]
    assert any(which in line.get("event", {}).get("reason", "") for line in lines)
    app.extensions["bank"].engine.dispose()


def test_ready_names_a_schema_that_is_behind(servers, tmp_path, superuser):
    from sqlalchemy import text

    with superuser.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("CREATE DATABASE unmigrated"))
    app = broken_app(servers, tmp_path, 'name = "bank"', 'name = "unmigrated"')
    response = browser(app).get("/health/ready")
    assert response.status_code == 503
    assert response.json["failed"] == ["schema"]
    app.extensions["bank"].engine.dispose()


def test_connections_that_the_database_closed_are_replaced(app, client, make_customer, superuser, monkeypatch):
    from sqlalchemy import text

    from bank import database

    def close_all():
        with superuser.connect() as connection:
            ended = connection.execute(
                text("SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE usename = 'bank_app'")
            ).scalar_one()
        assert ended

    client.log_in(make_customer().email)
    assert client.get("/accounts").status_code == 200
    close_all()
    # In use a moment ago, so it was not asked; what it answers ends all others of its age as well.
    assert client.get("/accounts").status_code == 503
    assert client.get("/accounts").status_code == 200
    close_all()
    monkeypatch.setattr(database, "IDLE_SECONDS", 0)
    assert client.get("/accounts").status_code == 200


def test_redis_grants_what_it_does_on_a_site_and_no_more(app):
    redis = app.extensions["bank"].redis
    redis.set("bank:test", "x", ex=1)
    for command in (("SET", "other", "x"), ("FLUSHDB",), ("KEYS", "*"), ("CONFIG", "GET", "*"), ("FUNCTION", "LIST")):
        with pytest.raises(NoPermissionError):
            redis.execute_command(*command)


# Metrics


def test_metrics_count_by_route_and_never_by_path(app, client, make_customer):
    who = make_customer(100)
    client.log_in(who.email)
    browser(app).log_in("nobody@test.local")
    browser(app).log_in(who.email, "wrong")
    for path in (f"/accounts/{who.account}", "/strange/path/1", "/strange/path/2", "/transfer"):
        client.get(path)
    text = client.get("/metrics").get_data(as_text=True)
    buckets = samples(text, "flask_http_request_duration_seconds_bucket")
    edges = {re.search(r'le="([^"]+)"', labels)[1] for labels in buckets}
    assert edges == {"0.005", "0.01", "0.025", "0.05", "0.1", "0.2", "0.5", "0.8", "1.0", "2.5", "5.0", "+Inf"}
    counts = samples(text, "flask_http_request_duration_seconds_count")
    assert '{method="GET",status="200",url_rule="/accounts/<uuid:account_id>"}' in counts
    assert counts['{method="GET",status="404",url_rule="unmatched"}'] >= 2
    assert "/strange" not in text
    assert str(who.account) not in text
    assert who.email not in text
    assert samples(text, "bank_logins_total")['{factor="password",outcome="failure"}'] >= 1
    assert samples(text, "bank_logins_total")['{factor="password",outcome="success"}'] >= 1
    assert set(samples(text, "bank_transfers_total")) >= {
        '{outcome="completed",type="transfer"}', '{outcome="insufficient_funds",type="transfer"}',
    }  # fmt: skip
    assert samples(text, "bank_db_pool_wait_seconds_count")[""] >= 4
    assert samples(text, "bank_redis_command_duration_seconds_count")['{command="GET"}'] >= 4
    assert "bank_build_info{" in text
    assert samples(text, "bank_http_requests_in_progress")[""] == 1
    assert samples(text, "bank_db_pool_connections_in_use")[""] == 0


def test_metrics_tell_how_long_the_oldest_approval_waits(engine, superuser, make_customer):
    payer, payee = make_customer(1_000), make_customer()
    order = transfers.Order(payer.id, "old", payer.account, payee.number, 500, "EUR", "")
    waiting = transfers.transfer(engine, order, Approvals(limit_minor=100)).approval_id
    with superuser.begin() as connection:
        connection.execute(sql("SET LOCAL session_replication_role = replica"))
        connection.execute(
            sql("UPDATE approvals SET created_at = now() - interval '5 hours' WHERE id = :id"), {"id": waiting}
        )
    reconcile._cache.clear()
    page = metrics.exposition(reconcile.figures(engine)).decode()
    assert samples(page, "bank_pending_approvals")[""] >= 1
    assert 5 * 3600 <= samples(page, "bank_pending_approvals_oldest_seconds")[""] < 5 * 3600 + 60


def test_time_in_the_queue_is_believed_from_the_load_balancer_alone(settings, owner):
    server = settings.server.model_copy(update={"trusted_proxies": (ipaddress.IPv4Address("10.9.9.9"),)})
    app = create_app(settings.model_copy(update={"server": server}))

    def ask(address, sent):
        before = measured(app)
        browser(app, address).get("/health", headers={"X-Request-Start": sent})
        return tuple(after - old for after, old in zip(measured(app), before, strict=True))

    def measured(app):
        page = browser(app).get("/metrics").get_data(as_text=True)
        return [samples(page, f"bank_http_queue_duration_seconds_{part}")[""] for part in ("count", "sum")]

    def stamp(seconds):
        return f"t={int((time.time() - seconds) * 1e6)}"

    count, seconds = ask("10.9.9.9", stamp(1000))
    assert (count, seconds >= 1000) == (1, True)
    # A clock that is ahead.
    assert ask("10.9.9.9", stamp(-1000)) == (1, 0)
    for address, sent in (("10.9.9.8", stamp(2)), ("10.9.9.9", ""), ("10.9.9.9", "t=x"), ("10.9.9.9", "t=-1")):
        assert ask(address, sent) == (0, 0), (address, sent)
    app.extensions["bank"].engine.dispose()


def test_strange_methods_share_one_label(client):
    for method in ("BREW", "X" * 20):
        client.client.open("/login", method=method, base_url="https://bank.test")
    text = client.get("/metrics").get_data(as_text=True)
    assert "BREW" not in text
    assert 'method="OTHER"' in text


def test_any_worker_answers_for_all(start_instance):
    instance = start_instance(server="workers = 3\nthreads = 2")
    deadline = time.monotonic() + 60
    while samples(fetch(instance, "/metrics")[1], "bank_db_pool_connections_limit").get("") != 90:
        assert time.monotonic() < deadline, "not every worker started"
        time.sleep(0.1)
    for _ in range(30):
        assert fetch(instance, "/login")[0].status == 200
    label = '{method="GET",status="200",url_rule="/login"}'
    answers = set()
    pids = set()
    for _ in range(10):
        text = fetch(instance, "/metrics")[1]
        answers.add(samples(text, "flask_http_request_duration_seconds_count")[label])
        assert list(samples(text, "bank_build_info").values()) == [1.0]
        assert samples(text, "bank_db_pool_connections_limit")[""] == 90
        assert samples(text, "bank_http_threads_limit")[""] == 6
        assert samples(text, "bank_http_requests_in_progress")[""] == 1
        assert samples(text, "bank_redis_command_duration_seconds_count")['{command="SET"}'] >= 30
    assert answers == {30.0}
    for line in instance.log.read_text().splitlines():
        pids.add(json.loads(line)["process"]["pid"])
    assert len(pids) >= 3


# The server


def test_metrics_of_an_earlier_run_are_forgotten(start_instance, servers, tmp_path):
    instance = start_instance()
    fetch(instance, "/login")
    directory = next(tmp_path.glob("*.m"))
    (directory / "counter_999999.db").write_bytes(b"old and broken")
    instance.process.send_signal(15)
    assert instance.process.wait(20) == 0
    configuration = next(tmp_path.glob("*.toml"))
    import os
    import sys

    again = subprocess.Popen(
        [sys.executable, "-m", "gunicorn", "--config", "python:bank.gunicorn_config"],
        env={**os.environ, "BANK_CONFIG": str(configuration), "PROMETHEUS_MULTIPROC_DIR": str(directory)},
        stderr=subprocess.DEVNULL,
    )
    try:
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            try:
                response, text = fetch(instance, "/metrics")
                break
            except OSError:
                time.sleep(0.1)
        assert response.status == 200
        assert "/login" not in text
    finally:
        again.terminate()
        again.wait(20)


def test_systemd_is_told_and_no_control_socket_opens(start_instance, tmp_path, monkeypatch):
    address = tmp_path / "notify"
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    monkeypatch.setenv("NOTIFY_SOCKET", str(address))
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(str(address))
        listener.settimeout(20)
        instance = start_instance(server="workers = 1\nthreads = 2")
        assert b"READY=1" in listener.recv(4096)
    assert fetch(instance, "/health")[0].status == 200
    assert not list(tmp_path.rglob("gunicorn.ctl"))


def test_log_that_cannot_be_written_stops_the_server_with_one_sentence(start_instance, servers, tmp_path):
    instance = start_instance(wait=False, log="/nowhere/bank.json")
    assert instance.process.wait(20) == 1
    assert instance.stderr.read_text() == (
        "bank: logging.path names /nowhere/bank.json, which cannot be written: No such file or directory.\n"
    )


def test_bad_configuration_stops_the_server_with_one_sentence(start_instance):
    instance = start_instance(more="[session]\nidle_seconds = 'long'", wait=False)
    assert instance.process.wait(20) == 1
    assert instance.stderr.read_text().startswith("bank: Configuration ")
    assert instance.stderr.read_text().count("\n") == 1
    assert "session.idle_seconds" in instance.stderr.read_text()


def test_rotated_log_is_opened_anew(start_instance):
    instance = start_instance(server="workers = 1\nthreads = 2")
    fetch(instance, "/login")
    old = instance.log.with_suffix(".json.1")
    instance.log.rename(old)
    fetch(instance, "/nothing")
    assert '"/login"' in old.read_text()
    assert '"/nothing"' in instance.log.read_text()


def client_context(pki, name=None):
    context = ssl.create_default_context(cafile=pki / "ca.crt")
    if name:
        context.load_cert_chain(pki / f"{name}.crt", pki / f"{name}.key")
    return context


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion:DeprecationWarning")
def test_mutual_tls(start_instance, pki, tmp_path):
    for suffix in ("crt", "key"):
        (tmp_path / f"live.{suffix}").write_bytes((pki / f"server.{suffix}").read_bytes())
    instance = start_instance(
        server=f'certificate = "{tmp_path}/live.crt"\nprivate_key = "{tmp_path}/live.key"\n'
        f'client_ca_certificate = "{pki}/ca.crt"\nworkers = 1\nthreads = 2'
    )
    assert fetch(instance, "/health", context=client_context(pki, "client"))[0].status == 200
    for context in (client_context(pki), client_context(pki, "stranger")):
        with pytest.raises((ssl.SSLError, ConnectionError, http.client.HTTPException)):
            fetch(instance, "/health", context=context)
    with pytest.raises((ConnectionError, http.client.HTTPException)):
        fetch(instance, "/health")
    old = client_context(pki, "client")
    old.minimum_version, old.maximum_version = ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1
    with pytest.raises((ssl.SSLError, ConnectionError)):
        fetch(instance, "/health", context=old)

    def served_name():
        with (
            socket.create_connection(("localhost", instance.port)) as plain,
            client_context(pki, "client").wrap_socket(plain, server_hostname="localhost") as tls,
        ):
            return dict(item[0] for item in tls.getpeercert()["subject"])["commonName"]

    assert served_name() == "server"
    for suffix in ("key", "crt"):
        (tmp_path / f"live.{suffix}").write_bytes((pki / f"renewed.{suffix}").read_bytes())
    assert served_name() == "renewed"  # without a restart


def test_database_and_redis_must_prove_who_they_are(servers, owner, pki, tmp_path):
    def check(ca, mode="verify-full", host="localhost"):
        path = tmp_path / "bank.toml"
        text = configuration_text(servers).replace('host = "127.0.0.1"', f'host = "{host}"')
        text = text.replace('ssl_mode = "disable"', f'ssl_mode = "{mode}"\nssl_root_certificate = "{ca}"')
        text = text.replace(f"port = {servers.redis_port}", f'port = {servers.redis_tls_port}\nca_certificate = "{ca}"')
        path.write_text(text)
        found = make_resources(load_settings(path))
        try:
            return [name for name, problem in health.check_all(found).items() if problem]
        finally:
            found.engine.dispose()

    assert check(pki / "ca.crt") == []
    assert check(pki / "other.crt") == ["database", "redis"]
    # The certificate is for localhost and says nothing about the address.
    assert check(pki / "ca.crt", host="127.0.0.1") == ["database", "redis"]


# Logs


def test_log_lines_are_ecs_and_hold_no_secrets(servers, owner, tmp_path, make_customer):
    path = tmp_path / "bank.json"
    app = broken_app(servers, tmp_path, "\x00", "")

    @app.get("/explode/<what>")
    @public
    def explode(what):
        from sqlalchemy import text

        from bank.resources import resources

        statement = {
            "value": "SELECT CAST(:canary AS integer)",
            "duplicate": "INSERT INTO users (email, display_name, password_hash) "
            "SELECT :canary, '', '' FROM generate_series(1, 2)",
        }[what]
        with resources().engine.connect() as connection:
            connection.execute(text(statement), {"canary": f"{CANARY}@x.y"})

    payer, payee = make_customer(1_000, name=f"Name {CANARY}"), make_customer()
    client = browser(app)
    client.log_in(f"{CANARY}@x.y", f"password {CANARY}")
    client.log_in(payer.email)
    token = client.session_cookie
    fields = client.fields("/transfer")
    form = {"from_account": str(payer.account), "to_number": payee.number, "reference": f"for {CANARY}"}
    client.post("/transfer", {**fields, **form, "amount": "1.50"})
    client.post("/transfer", {**fields, **form, "amount": CANARY})
    client.post("/transfer", {**form, "amount": "2", "csrf_token": CANARY})
    client.get("/accounts", query_string={"q": CANARY})
    client.get('/a\r\nb%0a{"x": 1}', headers={"User-Agent": 'evil"\\ agent\tx'})
    assert client.get("/explode/value").status_code == 500
    assert client.get("/explode/duplicate").status_code == 500

    text = path.read_text()
    lines = [json.loads(line) for line in text.splitlines()]
    assert len(lines) > 10
    for line in lines:
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", line["@timestamp"])
        assert line["ecs.version"]
        assert line["log.level"] in {"debug", "info", "warning", "error", "critical"}
        assert line["message"]
        assert line["service"] == {
            "name": "bank", "version": bank.__version__, "environment": "test", "node": {"name": "app-test"},
        }  # fmt: skip
        assert line["event"]["dataset"].startswith("bank.")
    secrets = [
        CANARY, PASSWORD, payer.email, payer.number, payee.number, payer.number[-16:], token,
        servers.app_password, servers.redis_password, servers.secret_key, fields["csrf_token"], fields["key"],
        "$argon2",
    ]  # fmt: skip
    for secret in secrets:
        assert secret not in text

    done = next(line for line in lines if line["message"] == "transfer completed")
    assert done["bank"]["amount_minor"] == 150
    assert done["bank"]["transfer"]["id"]
    assert done["user"]["id"] == str(payer.id)
    assert done["event"]["dataset"] == "bank.transaction"
    assert done["http"]["request"]["id"]
    failed = [line["error"] for line in lines if line["message"] == "request failed"]
    assert [error["code"] for error in failed] == ["22P02", "23505"]
    assert all("explode" in error["stack_trace"] for error in failed)
    answered = [line for line in lines if line["message"] == "request answered"]
    assert all(line["event"]["duration"] > 0 for line in answered)
    assert not any(line["url"]["path"].startswith(("/health", "/metrics")) for line in answered)
    app.extensions["bank"].engine.dispose()


def test_instance_under_load_writes_whole_lines(start_instance):
    from concurrent.futures import ThreadPoolExecutor

    instance = start_instance(server="workers = 2\nthreads = 4")
    with ThreadPoolExecutor(16) as pool:
        statuses = list(pool.map(lambda n: fetch(instance, f"/nothing/{n}/" + "x" * 3000)[0].status, range(200)))
    assert set(statuses) == {404}
    paths = {
        line["url"]["path"].split("/")[2]
        for line in map(json.loads, instance.log.read_text().splitlines())
        if "url" in line
    }
    assert paths == {str(number) for number in range(200)}
