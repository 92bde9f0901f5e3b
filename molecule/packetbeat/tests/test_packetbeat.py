"""What happens in the network of a host is found, and nothing of what was said."""

import json
import shlex
import time
import uuid
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest
import testinfra
from testinfra.host import Host

if TYPE_CHECKING:
    from molecule.conftest import Apply

HOST = "packetbeat-lb1"
SETTINGS = "/etc/packetbeat/packetbeat.yml"
RAW = "0000000000002000"

Search = Callable[..., dict[str, Any]]

# A server for HTTP on port 80, which says what it was sent, and one for TLS on port 443.
SERVERS = """
import http.server, ssl, threading
class Echo(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.send_response(201)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("X-Said", self.headers.get("X-Said", ""))
        self.end_headers()
        self.wfile.write(body)
    do_GET = do_POST
plain = http.server.ThreadingHTTPServer(("", 80), Echo)
threading.Thread(target=plain.serve_forever).start()
secure = http.server.ThreadingHTTPServer(("", 443), Echo)
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain("/etc/pki/bank/packetbeat/tls.crt", "/etc/pki/bank/packetbeat/tls.key")
secure.socket = context.wrap_socket(secure.socket, server_side=True)
secure.serve_forever()
"""


@pytest.fixture(scope="session")
def host() -> Host:
    """Return the host of the scenario, with two servers on it."""
    host = testinfra.get_host(f"docker://{HOST}")
    host.run("systemctl stop servers.service")
    host.check_output(f"systemd-run --quiet --unit=servers python3 -c {shlex.quote(SERVERS)}")
    for _ in range(50):
        if len(host.check_output("ss -Hltn '( sport = :80 or sport = :443 )'").splitlines()) >= 2:
            break
        time.sleep(0.2)
    return host


@pytest.fixture(scope="session")
def search(host: Host, secrets: dict[str, str]) -> Search:
    """Return a function that asks Elasticsearch, as its superuser or as another user."""

    def ask(path: str, body: object = None, user: str = "elastic") -> dict[str, Any]:
        name = "vault_elasticsearch_elastic_password" if user == "elastic" else f"vault_{user}_elasticsearch_password"
        login = f"{user}:{secrets[name]}"
        settings = 'user = "' + login.replace("\\", "\\\\").replace('"', '\\"') + '"\n'
        command = "curl --silent --max-time 20 --cacert /etc/elasticsearch/certs/ca.crt --config - "
        if body is not None:
            command += f"--header 'Content-Type: application/json' --data-binary {shlex.quote(json.dumps(body))} "
        url = shlex.quote(f"https://{HOST}.bank.internal:9200{path}")
        return json.loads(host.check_output(f"printf %s {shlex.quote(settings)} | {command} {url}"))

    return ask


def find(search: Search, *terms: dict[str, Any], seconds: float = 25) -> list[dict[str, Any]]:
    """Return the documents that all terms find, as soon as there is one."""
    end = time.monotonic() + seconds
    query = {"query": {"bool": {"filter": [{"term": term} for term in terms]}}, "size": 5}
    while True:
        hits = search("/packetbeat-*/_search", query).get("hits", {}).get("hits", [])
        if hits or time.monotonic() > end:
            return hits
        time.sleep(0.5)


def request(host: Host, path: str) -> None:
    """Make one request without encryption."""
    host.check_output(f"curl --silent --max-time 10 --output /dev/null http://{HOST}.bank.internal{path}")


def shown(host: Host, *names: str) -> dict[str, str]:
    """Return properties of the unit as systemd has them."""
    output = host.check_output(f"systemctl show packetbeat.service --property={','.join(names)}")
    return dict(line.split("=", 1) for line in output.splitlines())


def test_request_is_seen_without_what_it_carried(host: Host, search: Search) -> None:
    mark, secret = uuid.uuid4().hex, f"hush-{uuid.uuid4().hex}"
    url = f"http://{HOST}.bank.internal/transfers/{mark}?password={secret}&pin={secret}"
    host.check_output(
        f"curl --silent --max-time 10 --output /dev/null --user someone:{secret} --header 'X-Said: {secret}' "
        f"--cookie session={secret} --data 'password={secret}&amount=100' {shlex.quote(url)}"
    )
    hits = find(search, {"url.path": f"/transfers/{mark}"})
    assert hits, "not within 25 s"
    hit, source = hits[0], hits[0]["_source"]
    assert hit["_index"] == "packetbeat-" + source["@timestamp"][:10].replace("-", ".")
    assert (source["type"], source["http"]["request"]["method"], source["http"]["response"]["status_code"]) == (
        "http",
        "POST",
        201,
    )
    assert (source["host"]["name"], source["labels"]["site"], source["server"]["port"]) == (HOST, "main", 80)
    assert source["event"]["duration"] > 0
    # Everything that was stored since, of whatever kind, and not only what a search would find.
    everything = search("/packetbeat-*/_search", {"size": 5000, "query": {"match_all": {}}})
    text = json.dumps(everything)
    assert mark in text
    assert secret not in text
    assert "password" not in text
    assert "c29tZW9uZT" not in text, "the start of the log-in as the header carries it"


def test_question_for_a_name_is_seen(host: Host, search: Search) -> None:
    name = f"{uuid.uuid4().hex}.example.com"
    # The answer does not matter; what is asked of a server without encryption is seen.
    program = (
        "import socket, struct; q = struct.pack('>6H', 4711, 256, 1, 0, 0, 0) + b''.join("
        f"bytes([len(p)]) + p for p in {name.encode()!r}.split(b'.')) + bytes([0]) + struct.pack('>2H', 1, 1); "
        "s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.settimeout(3); "
        f"s.sendto(q, (socket.gethostbyname('{HOST}'), 53))"
    )
    host.check_output(f"python3 -c {shlex.quote(program)}")
    hits = find(search, {"dns.question.name": name})
    assert hits, "not within 25 s"
    assert hits[0]["_source"]["dns"]["question"]["type"] == "A"


def test_handshake_is_seen(host: Host, search: Search) -> None:
    name = f"{uuid.uuid4().hex}.bank.internal"
    program = f"openssl s_client -connect {HOST}.bank.internal:443 -servername {name} < /dev/null"
    host.check_output(f"timeout 10 {program}")
    hits = find(search, {"tls.client.server_name": name}, {"server.port": 443})
    assert hits, "not within 25 s"
    tls = hits[0]["_source"]["tls"]
    assert tls["version"] in ("1.2", "1.3")
    assert tls["cipher"].startswith("TLS_")


def test_fields_have_their_types(host: Host, search: Search) -> None:
    request(host, "/types")
    assert find(search, {"url.path": "/types"})
    assert find(search, {"url.path": "/types"}, {"client.ip": "0.0.0.0/0"}, seconds=0), "addresses are searched as such"
    mapping = next(iter(search("/packetbeat-*/_mapping").values()))["mappings"]["properties"]
    assert mapping["server"]["properties"]["ip"]["type"] == "ip"
    assert mapping["event"]["properties"]["duration"]["type"] == "long"
    assert mapping["http"]["properties"]["response"]["properties"]["status_code"]["type"] == "long"
    assert not {"query", "request", "response", "resource", "params", "path", "redis"} & set(mapping)
    assert set(mapping["url"]["properties"]) == {"domain", "path", "port", "scheme"}
    assert set(mapping["http"]["properties"]["request"]["properties"]) == {"bytes", "method"}


def test_unit_has_the_one_right_that_it_needs(host: Host) -> None:
    unit = shown(host, "User", "CapabilityBoundingSet", "AmbientCapabilities", "ProtectSystem", "MainPID")
    assert (unit["User"], unit["ProtectSystem"]) == ("packetbeat", "strict")
    assert (unit["CapabilityBoundingSet"], unit["AmbientCapabilities"]) == ("cap_net_raw", "cap_net_raw")
    status = host.file(f"/proc/{unit['MainPID']}/status").content_string
    assert f"CapPrm:\t{RAW}" in status
    assert f"CapBnd:\t{RAW}" in status
    assert f"Uid:\t{host.check_output('id --user packetbeat')}\t" in status
    host.run_expect([0], "systemd-analyze security packetbeat.service --threshold=30 --no-pager")
    assert host.check_output("ss -Hltn sport = :5068").split()[3] == "127.0.0.1:5068"
    assert host.service("packetbeat").is_enabled


def test_user_may_only_add(search: Search) -> None:
    assert search("/packetbeat-*/_search", user="packetbeat")["status"] == 403
    assert search("/metricbeat-2026.11.22/_doc", {"a": 1}, user="packetbeat")["status"] == 403


def test_password_is_in_the_keystore_only(host: Host, secrets: dict[str, str]) -> None:
    listed = host.check_output("cd / && runuser --user=packetbeat -- packetbeat keystore list")
    assert listed.split() == ["ELASTICSEARCH_API_KEY"]
    # The first half has no special character; the pattern does not match itself.
    half = secrets["vault_packetbeat_elasticsearch_password"][:16]
    pattern = shlex.quote(f"[{half[0]}]{half[1:]}")
    assert host.run(f"grep -rla {pattern} /etc /var/log /var/lib /run/systemd /root").stdout == ""


def test_killed_service_comes_back(host: Host, search: Search) -> None:
    before = shown(host, "MainPID")["MainPID"]
    host.check_output("systemctl kill --kill-who=main --signal=SIGKILL packetbeat.service")
    for _ in range(60):
        if host.run("curl --silent --fail --max-time 2 http://127.0.0.1:5068/").rc == 0:
            break
        time.sleep(0.5)
    assert shown(host, "MainPID")["MainPID"] not in (before, "0")
    mark = uuid.uuid4().hex
    time.sleep(1)
    request(host, f"/{mark}")
    assert find(search, {"url.path": f"/{mark}"})


def test_wrong_password_changes_nothing(host: Host, apply: "Apply", search: Search) -> None:
    before = host.file(SETTINGS).sha256sum
    result = apply(packetbeat_elasticsearch_password="not the right password")
    assert result.failed
    assert f'Packetbeat on {HOST} failed at "Keep a key of its own at Elasticsearch"' in result.words
    assert "answered 401 to user packetbeat" in result.words
    assert "No file of the configuration was changed" in result.words
    assert host.file(SETTINGS).sha256sum == before
    mark = uuid.uuid4().hex
    time.sleep(3)
    request(host, f"/{mark}")
    assert find(search, {"url.path": f"/{mark}"})


def test_bad_values_are_refused_before_anything_changes(host: Host, apply: "Apply") -> None:
    before = host.file(SETTINGS).sha256sum
    result = apply(
        packetbeat_protocols_extra=[
            {"type": "mysql", "ports": [3306]},
            {"type": "http", "ports": [443]},
            {"type": "redis", "ports": []},
        ],
        packetbeat_settings={"packetbeat.flows.enabled": True},
        packetbeat_allow_older_elasticsearch=False,
    )
    assert result.failed
    for words in (
        "correct the type mysql",
        "name 443 for one only",
        "give some to redis",
        "must not hold packetbeat.flows.enabled",
        "is newer than Elasticsearch",
    ):
        assert words in result.words, result.output
    assert result.changed[HOST] == 0
    assert host.file(SETTINGS).sha256sum == before
