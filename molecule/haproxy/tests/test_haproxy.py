"""What customers, operators and Prometheus get from HAProxy."""

import csv
import json
import shlex
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import testinfra
from testinfra.backend.base import CommandResult
from testinfra.host import Host

PKI = "/etc/pki/bank/haproxy"
BANK = "bank.bank.internal"
OWN = f"--cert {PKI}/tls.crt --key {PKI}/tls.crt.key"
METRICS = "https://localhost:8405"


@pytest.fixture(scope="module")
def balancer() -> Host:
    return testinfra.get_host("docker://haproxy-lb1")


@pytest.fixture
def apps() -> Iterator[dict[str, Host]]:
    hosts = {name: testinfra.get_host(f"docker://{name}") for name in ("haproxy-app1", "haproxy-app2")}
    yield hosts
    for host in hosts.values():
        host.run("rm -f /run/not-ready; systemctl start bank-stub.service")


@pytest.fixture(scope="module")
def password(secrets: dict[str, str]) -> str:
    return secrets["vault_haproxy_stats_password"]


def curl(host: Host, options: str, url: str, *, authority: str = f"{PKI}/ca.crt") -> tuple[int, str, CommandResult]:
    """Return status and body as the host sees them; the server is always verified."""
    to_bank = f"--resolve {BANK}:443:127.0.0.1 --resolve {BANK}:80:127.0.0.1"
    format_ = shlex.quote("\n%{http_code}")
    result = host.run(f"curl -s --max-time 10 --cacert {authority} {to_bank} -w {format_} {options} {shlex.quote(url)}")
    body, _, status = result.stdout.rpartition("\n")
    return int(status), body, result


def told(host: Host, options: str = "", path: str = "/") -> dict[str, Any]:
    """Return what an instance says it was sent."""
    status, body, result = curl(host, options, f"https://{BANK}{path}")
    assert status == 200, result
    return json.loads(body)


def admin(host: Host, command: str) -> str:
    return host.check_output(f"echo {shlex.quote(command)} | socat stdio /var/lib/haproxy/stats")


def statistics(host: Host, server: str) -> dict[str, str]:
    rows = csv.DictReader(admin(host, "show stat -1 4 -1").lstrip("# ").splitlines())
    return next(row for row in rows if row["svname"] == server)


def status_of(host: Host, server: str) -> str:
    return statistics(host, server)["status"]


def sessions(host: Host, server: str) -> int:
    return int(statistics(host, server)["scur"])


def worker(host: Host) -> str:
    """Return the number of the process that answers on the socket; nothing while none does."""
    answer = host.run("echo show info | socat stdio /var/lib/haproxy/stats").stdout
    return next((line.removeprefix("Pid: ") for line in answer.splitlines() if line.startswith("Pid: ")), "")


def change_worker(host: Host, action: str) -> None:
    """Reload or restart HAProxy, and wait until the old process has gone and a new one answers."""
    before = worker(host)
    host.check_output(f"systemctl {action} haproxy.service")
    eventually(lambda: host.run(f"test -e /proc/{before}").rc != 0 and worker(host) not in ("", before))


def wait_for(host: Host, server: str, status: str) -> None:
    eventually(lambda: status_of(host, server).startswith(status))


def eventually(true: Callable[[], bool], seconds: int = 20) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end
        time.sleep(0.5)


def answering(host: Host, requests: int = 6) -> Counter[str]:
    return Counter(told(host)["instance"] for _ in range(requests))


def test_configuration_has_no_warning(balancer: Host) -> None:
    result = balancer.run("haproxy -c -dW -f /etc/haproxy/haproxy.cfg -f /etc/haproxy/conf.d")
    assert result.rc == 0, result


def test_https_is_verified_and_balanced(balancer: Host) -> None:
    assert set(answering(balancer)) == {"haproxy-app1", "haproxy-app2"}


def test_another_authority_does_not_verify(balancer: Host) -> None:
    status, _, result = curl(balancer, "", f"https://{BANK}/", authority="/etc/pki/tls/certs/ca-bundle.crt")
    assert (status, result.rc) == (0, 60)


def test_old_tls_is_refused(balancer: Host) -> None:
    status, _, result = curl(balancer, "--tls-max 1.1 --ciphers DEFAULT@SECLEVEL=0", f"https://{BANK}/")
    assert (status, result.rc) == (0, 35)


def test_http_only_redirects(balancer: Host) -> None:
    status, body, _ = curl(balancer, "-w '%{redirect_url}\\n%{http_code}'", f"http://{BANK}/login?next=%2Faccounts")
    assert status == 301
    assert body.strip() == f"https://{BANK}/login?next=%2Faccounts"


@pytest.mark.parametrize(
    "path", ["/metrics", "/metrics/", "//metrics", "/%6Detrics", "/metrics?x=1", "/health/ready", "/health//ready"]
)
def test_private_paths_do_not_exist_outside(balancer: Host, path: str) -> None:
    status, body, _ = curl(balancer, "--path-as-is", f"https://{BANK}{path}")
    assert status == 404
    assert "instance" not in body


def test_liveness_is_public(balancer: Host) -> None:
    assert told(balancer, path="/health")["path"] == "/health"


def test_client_cannot_choose_its_address(balancer: Host) -> None:
    names = ["X-Forwarded-For", "x-forwarded-for", "Forwarded", "X-Real-IP"]
    lies = " ".join(f"-H '{name}: 6.6.6.6'" for name in names)
    headers = told(balancer, f"{lies} -H 'X-Forwarded-Proto: http'")["headers"]
    assert [value for name, value in headers if name == "x-forwarded-for"] == ["127.0.0.1"]
    assert [value for name, value in headers if name == "x-forwarded-proto"] == ["https"]
    assert "6.6.6.6" not in json.dumps(headers)


def test_requests_have_an_id_and_traces_pass(balancer: Host) -> None:
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    headers = told(balancer, f"-H 'traceparent: {trace}' -H 'X-Request-ID: mine'")["headers"]
    ids = [value for name, value in headers if name == "x-request-id"]
    assert len(ids) == 1
    assert len(ids[0]) == 36
    assert [value for name, value in headers if name == "traceparent"] == [trace]
    lines = balancer.check_output("journalctl --unit=haproxy.service --output=cat --lines=50").splitlines()
    logged = [json.loads(line) for line in lines if line.startswith("{")]
    own = [line for line in logged if line["http.request.id"] == ids[0]]
    assert [(line["http.response.status_code"], line["url.path"]) for line in own] == [(200, "/")]


def test_log_keeps_queries_out_and_stays_json(balancer: Host) -> None:
    curl(balancer, "--path-as-is", f'https://{BANK}/a%22b"c?password=secret')
    line = balancer.check_output("journalctl --unit=haproxy.service --output=cat --lines=1")
    assert json.loads(line)["url.path"] == '/a%22b"c'
    assert "secret" not in line


def test_metrics_want_a_certificate_of_the_platform(balancer: Host) -> None:
    status, body, _ = curl(balancer, OWN, f"{METRICS}/metrics")
    assert status == 200
    assert 'haproxy_server_status{proxy="bank",server="haproxy-app1",state="UP"} 1' in body
    assert curl(balancer, "", f"{METRICS}/metrics")[0] == 403
    balancer.run(
        "openssl req -x509 -newkey rsa:2048 -nodes -subj /CN=prometheus -days 1 -keyout /tmp/own.key -out /tmp/own.crt"
    )
    assert curl(balancer, "--cert /tmp/own.crt --key /tmp/own.key", f"{METRICS}/metrics")[0] == 0


def test_statistics_want_the_password(balancer: Host, password: str) -> None:
    def with_password(given: str) -> str:
        config = 'user = "operator:' + given.replace("\\", "\\\\").replace('"', '\\"') + '"\n'
        ask = f"curl -s --cacert {PKI}/ca.crt -K - -o /dev/null -w '%{{http_code}}' {METRICS}/stats"
        command = f"printf %s {shlex.quote(config)} | {ask}"
        return balancer.check_output(command)

    assert with_password(password) == "200"
    assert with_password(password[:-1]) == "401"
    assert curl(balancer, "", f"{METRICS}/stats")[0] == 401
    assert curl(balancer, OWN, f"{METRICS}/stats")[0] == 401


def test_secrets_are_for_root_only(balancer: Host, password: str) -> None:
    config = balancer.file("/etc/haproxy/haproxy.cfg")
    assert (config.user, config.mode) == ("root", 0o600)
    assert password[:32] not in balancer.check_output("cat /proc/[0-9]*/cmdline | tr '\\0' ' '")
    assert balancer.file("/var/lib/haproxy/stats").mode == 0o660


def test_another_instance_serves_when_one_stops(balancer: Host, apps: dict[str, Host]) -> None:
    apps["haproxy-app1"].check_output("systemctl stop bank-stub.service")
    # Also before the checks have noticed.
    assert set(answering(balancer)) == {"haproxy-app2"}
    wait_for(balancer, "haproxy-app1", "DOWN")
    apps["haproxy-app1"].check_output("systemctl start bank-stub.service")
    wait_for(balancer, "haproxy-app1", "UP")
    assert set(answering(balancer)) == {"haproxy-app1", "haproxy-app2"}


def test_instance_that_is_not_ready_gets_no_requests(balancer: Host, apps: dict[str, Host]) -> None:
    apps["haproxy-app2"].check_output("touch /run/not-ready")
    wait_for(balancer, "haproxy-app2", "DOWN")
    assert set(answering(balancer)) == {"haproxy-app1"}


def test_without_any_instance_haproxy_says_so(balancer: Host, apps: dict[str, Host]) -> None:
    for name, app in apps.items():
        app.check_output("touch /run/not-ready")
        wait_for(balancer, name, "DOWN")
    status, body, _ = curl(balancer, "", f"https://{BANK}/")
    assert status == 503
    assert "not available" in body
    for name, app in apps.items():
        app.check_output("rm /run/not-ready")
        wait_for(balancer, name, "UP")


def test_post_is_not_sent_twice(balancer: Host, apps: dict[str, Host]) -> None:
    """An instance that dies while it works on a request: the client hears of it, no other instance gets it."""
    verified = f"--cacert {PKI}/ca.crt --resolve {BANK}:443:127.0.0.1"
    command = f"curl -s -o /dev/null -w '%{{http_code}}' {verified} -d amount=1 https://{BANK}/slow"
    admin(balancer, "set server bank/haproxy-app2 state maint")
    balancer.run(f"({command} > /tmp/post) > /dev/null 2>&1 &")
    eventually(lambda: sessions(balancer, "haproxy-app1") > 0)
    admin(balancer, "set server bank/haproxy-app2 state ready")
    apps["haproxy-app1"].check_output("systemctl kill --signal=SIGKILL bank-stub.service")
    eventually(lambda: balancer.check_output("cat /tmp/post") == "502")
    assert "POST /slow" not in apps["haproxy-app2"].check_output("journalctl --unit=bank-stub.service --output=cat")
    apps["haproxy-app1"].check_output("systemctl reset-failed bank-stub.service; systemctl start bank-stub.service")
    wait_for(balancer, "haproxy-app1", "UP")
    wait_for(balancer, "haproxy-app2", "UP")


@pytest.mark.parametrize("action", ["reload", "restart"])
def test_drained_instance_stays_drained(balancer: Host, action: str) -> None:
    admin(balancer, "set server bank/haproxy-app1 state drain")
    assert set(answering(balancer)) == {"haproxy-app2"}
    change_worker(balancer, action)
    wait_for(balancer, "haproxy-app1", "DRAIN")
    assert set(answering(balancer)) == {"haproxy-app2"}
    admin(balancer, "set server bank/haproxy-app1 state ready")
    wait_for(balancer, "haproxy-app1", "UP")
    assert set(answering(balancer)) == {"haproxy-app1", "haproxy-app2"}


def test_new_address_of_an_instance_counts_after_a_reload(balancer: Host) -> None:
    """The state that is kept over a reload must not bring an old address or port back."""
    config = "/etc/haproxy/haproxy.cfg"
    balancer.check_output(f"cp -p {config} /root/haproxy.cfg")
    try:
        balancer.check_output(f"sed -i -E 's/(server haproxy-app1 )[0-9.]+:[0-9]+/\\1127.0.0.9:8009/' {config}")
        change_worker(balancer, "reload")
        fields = next(
            line.split() for line in admin(balancer, "show servers state bank").splitlines() if "haproxy-app1" in line
        )
        assert fields[4] == "127.0.0.9"
        assert fields[18] == "8009"
    finally:
        balancer.check_output(
            f"cp -p /root/haproxy.cfg {config}; systemctl reload haproxy.service; rm /root/haproxy.cfg"
        )
    wait_for(balancer, "haproxy-app1", "UP")


def test_unit_is_sandboxed_and_comes_back(balancer: Host) -> None:
    wanted = "NoNewPrivileges,ProtectSystem,ProtectHome,PrivateTmp,Restart,RestrictNamespaces,CapabilityBoundingSet"
    shown = balancer.check_output(f"systemctl show haproxy.service --property={wanted}")
    properties = dict(line.split("=", 1) for line in shown.splitlines())
    assert properties["NoNewPrivileges"] == "yes"
    assert properties["ProtectSystem"] == "full"
    assert properties["Restart"] == "on-failure"
    assert "cap_sys_admin" not in properties["CapabilityBoundingSet"]
    balancer.check_output("systemctl kill --kill-who=main --signal=SIGKILL haproxy.service")
    eventually(lambda: balancer.service("haproxy").is_running)
    assert balancer.service("haproxy").is_enabled
    wait_for(balancer, "haproxy-app1", "UP")
    assert set(answering(balancer)) == {"haproxy-app1", "haproxy-app2"}
