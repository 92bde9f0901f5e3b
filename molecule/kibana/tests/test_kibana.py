"""What operators find at Kibana, and an auditor on its host. In the lab it is a stand-in, which draws nothing."""

import json
import shlex
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import testinfra
from testinfra.host import Host

VIEW = "kibana-view1"
NAME = f"{VIEW}.bank.internal"
CONFIGURATION = "/etc/kibana"
UNIT = "kibana.service"
CONTENT = Path(__file__).parents[3] / "files/kibana"
OBJECTS = [json.loads(line) for line in (CONTENT / "objects.ndjson").read_text(encoding="utf-8").splitlines()]
RULES = json.loads((CONTENT / "rules.json").read_text(encoding="utf-8"))
DASHBOARDS = {"platform-logs", "platform-transactions", "platform-security"}
DAY = "2026.11.02"

Ask = Callable[..., tuple[int, Any]]
Apply = Callable[..., Any]


@pytest.fixture(scope="module")
def view() -> Host:
    """Return the host of Kibana, on which Elasticsearch runs, too."""
    return testinfra.get_host(f"docker://{VIEW}")


@pytest.fixture(scope="module")
def ask(view: Host, secrets: dict[str, str]) -> Ask:
    """Return a function that sends a request to Kibana, or to port 9200, and returns status and answer."""
    passwords = {
        "elastic": secrets["vault_elasticsearch_elastic_password"],
        "operator": secrets["vault_elasticsearch_operator_password"],
        "kibana_setup": secrets["vault_kibana_setup_password"],
    }

    def send(
        method: str, path: str, body: object = None, *, user: str = "kibana_setup", password: str | None = None,
        port: int = 5601, kind: str = "application/json",
    ) -> tuple[int, Any]:  # fmt: skip
        escaped = (passwords[user] if password is None else password).replace("\\", "\\\\").replace('"', '\\"')
        settings = f'user = "{user}:{escaped}"\n'
        command = (
            "curl --silent --max-time 20 --cacert /etc/pki/bank/kibana/ca.crt --config - --header 'kbn-xsrf: test' "
        )
        command += f"--write-out '\\n%{{http_code}}' --request {method} --header 'Content-Type: {kind}' "
        if body is not None:
            text = body if isinstance(body, str) else json.dumps(body)
            command += f"--data-binary {shlex.quote(text)} "
        address = shlex.quote(f"https://{NAME}:{port}{path}")
        answer = view.run_expect([0], f"printf %s {shlex.quote(settings)} | {command} {address}")
        content, _, status = answer.stdout.rpartition("\n")
        try:
            return int(status), json.loads(content)
        except ValueError:
            return int(status), content

    return send


def kept(ask: Ask, space: str = "/s/bank") -> dict[str, dict[str, Any]]:
    """Return the saved objects of a space by type and identifier."""
    types = ["index-pattern", "search", "lens", "dashboard"]
    _, answer = ask("POST", f"{space}/api/saved_objects/_export", {"type": types})
    lines = answer.splitlines() if isinstance(answer, str) else [json.dumps(answer)]
    found = [json.loads(line) for line in lines if line]
    return {f"{entry['type']}/{entry['id']}": entry for entry in found if entry}


def unchanged(view: Host) -> tuple[str, str]:
    """Return what tells whether configuration or process changed."""
    files = view.check_output(
        f"find {CONFIGURATION} /etc/systemd/system -type f -exec sha256sum {{}} + | sort | sha256sum"
    )
    return files, view.check_output(f"systemctl show {UNIT} --property=MainPID,NRestarts")


def wait_until_it_serves(view: Host) -> None:
    """Wait until the health check succeeds; before, the port may be closed."""
    deadline = time.monotonic() + 30
    while view.run(f"curl --silent --fail --insecure --max-time 5 https://{NAME}:5601/api/status").rc != 0:
        assert time.monotonic() < deadline
        time.sleep(1)


def bring_in(ask: Ask, entry: dict[str, Any]) -> None:
    """Import one object as a person does by hand."""
    body = (
        '--b\r\nContent-Disposition: form-data; name="file"; filename="x.ndjson"\r\n\r\n'
        f"{json.dumps(entry)}\r\n--b--\r\n"
    )
    path = "/s/bank/api/saved_objects/_import?overwrite=true"
    status, answer = ask("POST", path, body, kind="multipart/form-data; boundary=b")
    assert (status, answer["success"]) == (200, True), answer


def test_package_says_that_it_is_a_standin(view: Host, ask: Ask) -> None:
    assert "kibana-standin" in view.check_output("rpm -qi kibana")
    assert "draws nothing" in ask("GET", "/api/status")[1]["standin"]
    assert "kibana-standin" in ask("GET", "/")[1]
    assert "stand-in" in view.check_output(f"journalctl --no-pager --unit={UNIT}")


def test_details_of_the_state_are_for_users_only(ask: Ask) -> None:
    status, answer = ask("GET", "/api/status", user="operator")
    assert (status, answer["status"]["overall"]["level"]) == (200, "available")
    assert answer["version"]["number"].startswith("8.")
    assert "version" not in ask("GET", "/api/status", user="operator", password="not the right one")[1]
    assert ask("GET", "/s/bank/api/alerting/rules/_find", user="operator", password="not the right one")[0] == 401


def test_nothing_is_served_without_tls(view: Host) -> None:
    assert view.run(f"curl --silent --max-time 5 http://{NAME}:5601/api/status").rc != 0
    listening = {line.split()[3] for line in view.check_output("ss -Hltn").splitlines()}
    assert not {"0.0.0.0:5601", "*:5601", "127.0.0.1:5601"} & listening


def test_operators_look_and_change_nothing(ask: Ask) -> None:
    assert ask("GET", "/s/bank/api/alerting/rules/_find", user="operator")[0] == 200
    assert ask("DELETE", "/s/bank/api/saved_objects/dashboard/platform-logs", user="operator")[0] == 403
    assert ask("DELETE", f"/s/bank/api/alerting/rule/{RULES[0]['id']}", user="operator")[0] == 403
    assert ask("POST", "/api/spaces/space", {"id": "mine", "name": "Mine"}, user="operator")[0] == 403
    # Nor in spaces that are not theirs.
    assert ask("GET", "/api/alerting/rules/_find", user="operator")[0] == 403
    assert ask("PUT", "/app-logs-x/_doc/1", {"message": "x"}, user="operator", port=9200)[0] == 403
    assert ask("GET", "/_security/user", user="operator", port=9200)[0] == 403


def test_the_user_of_the_role_is_no_superuser(ask: Ask) -> None:
    setting = {"persistent": {"cluster.routing.rebalance.enable": "none"}}
    for method, path, body in (
        ("GET", "/_security/user", None),
        ("PUT", "/_cluster/settings", setting),
        ("PUT", "/app-logs-x", {}),
    ):
        assert ask(method, path, body, port=9200)[0] == 403, path


@pytest.mark.parametrize(
    ("path", "user", "group", "mode"),
    [
        (f"{CONFIGURATION}/kibana.yml", "root", "kibana", 0o660),
        (f"{CONFIGURATION}/kibana.keystore", "root", "kibana", 0o660),
        (f"{CONFIGURATION}/kibana.keystore.seal", "root", "root", 0o600),
        ("/etc/pki/bank/kibana/tls.key", "root", "kibana", 0o640),
    ],
)
def test_files_are_closed(view: Host, path: str, user: str, group: str, mode: int) -> None:
    file = view.file(path)
    if path.endswith(".seal"):
        # The folder gives its group to what is made in it.
        group = file.group
    assert (file.user, file.group, file.mode) == (user, group, mode)


def test_secrets_are_in_the_keystore_alone(view: Host, secrets: dict[str, str]) -> None:
    names = [name for name in secrets if name.startswith("vault_kibana_")]
    assert len(names) == 4
    for name in names:
        # Its first half has no character that a file could have written otherwise.
        part = secrets[name][:20]
        assert (
            view.run(f"grep --recursive --quiet --fixed-strings {part} /etc /run /var/lib/kibana /var/log").rc == 1
        ), name
        assert part not in view.check_output("cat /proc/[0-9]*/cmdline | tr '\\0' ' '")
        assert view.run(f"journalctl --no-pager | grep --fixed-strings {part}").rc == 1


def test_nothing_is_left_of_earlier_configurations(view: Host, ask: Ask) -> None:
    assert view.check_output(f"find {CONFIGURATION} -name '*~' -o -name '*.new' -o -name '*.rpmnew'") == ""
    _, answer = ask("GET", "/_security/service/elastic/kibana/credential", port=9200)
    assert len(answer["tokens"]) == 1, answer


def test_service_is_sandboxed(view: Host) -> None:
    names = "NoNewPrivileges,ProtectSystem,PrivateDevices,ProtectHome,User,MemoryMax,CapabilityBoundingSet"
    shown = view.check_output(f"systemctl show {UNIT} --property={names}")
    properties = dict(line.split("=", 1) for line in shown.splitlines())
    assert (properties["User"], properties["ProtectSystem"]) == ("kibana", "strict")
    assert {properties[name] for name in ("NoNewPrivileges", "PrivateDevices", "ProtectHome")} == {"yes"}
    assert (properties["CapabilityBoundingSet"], properties["MemoryMax"]) == ("", str(2 * 1024**3))
    assert "Overall exposure level" in view.check_output(f"systemd-analyze security {UNIT} --threshold=30")


def test_content_of_the_repository_is_there(ask: Ask) -> None:
    found = kept(ask)
    assert set(found) == {f"{entry['type']}/{entry['id']}" for entry in OBJECTS}
    assert {f"dashboard/{name}" for name in DASHBOARDS} <= set(found)
    _, answer = ask("GET", "/s/bank/api/alerting/rules/_find?per_page=100")
    assert {rule["name"] for rule in answer["data"]} == {rule["name"] for rule in RULES}
    assert all(rule["enabled"] and rule["api_key_owner"] == "kibana_setup" for rule in answer["data"])


def test_what_differs_is_put_right_and_what_people_made_stays(apply: Apply, ask: Ask) -> None:
    board = kept(ask)["dashboard/platform-logs"]
    changed = {**board, "attributes": {**board["attributes"], "title": "Changed by hand"}}
    panels = json.loads(board["attributes"]["panelsJSON"])
    shrunk = {**board, "id": "platform-left", "references": []}
    shrunk["attributes"] = {**board["attributes"], "panelsJSON": json.dumps(panels[:1])}
    for entry in (changed, shrunk, {**shrunk, "id": "of-a-person"}):
        bring_in(ask, entry)
    rule = f"/s/bank/api/alerting/rule/{RULES[0]['id']}"
    assert ask("POST", f"{rule}/_disable")[0] == 204
    before = ask("GET", f"/s/bank/api/alerting/rule/{RULES[1]['id']}")[1]["revision"]

    looked = apply(None, "--check", "--diff")
    assert not looked.failed
    assert kept(ask)["dashboard/platform-logs"]["attributes"]["title"] == "Changed by hand"
    assert "Changed by hand" in looked.output

    run = apply()
    assert not run.failed
    assert run.changed == {VIEW: 1}
    found = kept(ask)
    assert found["dashboard/platform-logs"]["attributes"]["title"] == board["attributes"]["title"]
    assert "dashboard/platform-left" not in found
    assert "dashboard/of-a-person" in found
    assert ask("GET", rule)[1]["enabled"] is True
    # One that was right is not written again.
    assert ask("GET", f"/s/bank/api/alerting/rule/{RULES[1]['id']}")[1]["revision"] == before
    ask("DELETE", "/s/bank/api/saved_objects/dashboard/of-a-person")


def test_spaces_come_and_go(apply: Apply, ask: Ask) -> None:
    bank = {"id": "bank", "name": "Bank"}
    assert ask("POST", "/api/spaces/space", {"id": "people", "name": "Made by people"})[0] == 200
    assert not apply(kibana_spaces=[bank, {"id": "second", "name": "Second"}], kibana_content_space="second").failed
    assert "dashboard/platform-logs" in kept(ask, "/s/second")
    assert "dashboard/platform-logs" not in kept(ask, "/s/bank"), "an identifier is in one space only"
    assert not apply().failed
    spaces = {space["id"] for space in ask("GET", "/api/spaces/space")[1]}
    assert spaces == {"default", "bank", "people"}
    assert "dashboard/platform-logs" in kept(ask)
    ask("DELETE", "/api/spaces/space/people")


def test_a_token_that_elasticsearch_lost_is_made_again(apply: Apply, ask: Ask) -> None:
    def tokens() -> set[str]:
        return set(ask("GET", "/_security/service/elastic/kibana/credential", port=9200)[1]["tokens"])

    (lost,) = tokens()
    assert ask("DELETE", f"/_security/service/elastic/kibana/credential/token/{lost}", port=9200)[0] == 200
    deadline = time.monotonic() + 20
    while ask("GET", "/api/status")[0] != 503:
        assert time.monotonic() < deadline, "Kibana goes on without a token"
        time.sleep(1)
    assert not apply().failed
    (found,) = tokens()
    assert found != lost
    assert ask("GET", "/api/status")[0] == 200


def test_comes_back_after_it_was_killed(view: Host, ask: Ask) -> None:
    view.check_output(f"systemctl kill --signal=KILL {UNIT}")
    wait_until_it_serves(view)
    assert "dashboard/platform-logs" in kept(ask)


# --- what panels and rules find ---


def document(dataset: str, **fields: object) -> dict[str, Any]:
    """Return one line with fields whose dots are written as two underscores."""
    line = {"@timestamp": "2026-11-02T08:15:30Z", "message": "from the test", "event.dataset": dataset}
    return line | {name.replace("__", "."): value for name, value in fields.items()}


ORDER = {"event__action": "transfer", "bank__currency": "EUR", "bank__amount_minor": 1250}
LOG_IN = {"event__action": "log-in", "source__ip": "192.0.2.7", "user__id": "u1"}
DOCUMENTS = [
    *[document("haproxy.access", http__response__status_code=503, haproxy__server="app1") for _ in range(3)],
    *[document("haproxy.access", http__response__status_code=status) for status in (200, 404)],
    *[document("bank.transaction", event__outcome="success", **ORDER) for _ in range(4)],
    document("bank.transaction", event__outcome="failure", event__reason="limit", **ORDER),
    *[document("bank.user_behavior", event__outcome="failure", event__reason="totp", **LOG_IN) for _ in range(2)],
    document("bank.user_behavior", event__outcome="success", **LOG_IN),
    document("bank.error", event__action="csrf-check", event__outcome="failure"),
    document("bank.performance", event__duration=12_000_000, service__node__name="app1", log__file__path="/a.json"),
    document("bank.audit", event__action="audit-anchor"),
    *[document("host.journal", systemd__transport="stdout", syslog__priority=priority) for priority in (3, 6, 6)],
    document("host.journal", systemd__transport="kernel", syslog__priority=4),
]
FOUND = {
    "platform-logs-server-errors": 3,
    "platform-logs-sources": len(DOCUMENTS),
    "platform-logs-hosts": len(DOCUMENTS),
    "platform-logs-files": 1,
    "platform-logs-streams": 4,
    "platform-logs-live": len(DOCUMENTS),
    "platform-transactions-outcome": 5,
    "platform-transactions-kind": 5,
    "platform-transactions-amount": 4,
    "platform-transactions-refused": 1,
    "platform-transactions-slowest": 1,
    "platform-transactions-live": 5,
    "platform-security-log-ins": 2,
    "platform-security-actions": 3,
    "platform-security-addresses": 2,
    "platform-security-people": 2,
    "platform-security-forged": 1,
    "platform-security-live": 4,
}
FIRED = dict(zip((rule["id"] for rule in RULES), (3, 1, 2, 1), strict=True))


@pytest.fixture(scope="module")
def written(ask: Ask) -> Iterator[None]:
    """Put the documents into the log store, as the template types them."""
    lines = [line for entry in DOCUMENTS for line in ({"create": {}}, entry)]
    body = "\n".join(map(json.dumps, lines)) + "\n"
    index = f"/app-logs-{DAY}"
    ask("DELETE", index, user="elastic", port=9200)
    status, answer = ask("POST", f"{index}/_bulk?refresh=true", body, user="elastic", port=9200)
    assert (status, answer["errors"]) == (200, False), answer
    yield
    ask("DELETE", index, user="elastic", port=9200)


def aggregation(column: dict[str, Any]) -> dict[str, Any]:
    """Return what Kibana asks Elasticsearch for one column."""
    source, params = {"field": column.get("sourceField")}, column["params"]
    match column["operationType"]:
        case "terms":
            return {"terms": source | {"size": params["size"]}}
        case "date_histogram":
            return {"date_histogram": source | {"fixed_interval": "1h"}}
        case "filters":
            queries = {entry["label"]: asked(entry["input"]["query"]) for entry in params["filters"]}
            return {"filters": {"filters": queries}}
        case "percentile":
            return {"percentiles": source | {"percents": [params["percentile"]]}}
        case "unique_count":
            return {"cardinality": source}
        case "count":
            return {"value_count": {"field": "@timestamp"}}
        case operation:
            return {operation: source}


def asked(query: str) -> dict[str, Any]:
    """Return a query as Kibana hands it to Elasticsearch."""
    return {"query_string": {"query": query, "analyze_wildcard": True}} if query else {"match_all": {}}


@pytest.mark.usefixtures("written")
def test_panels_find_what_they_show(ask: Ask) -> None:
    panels = [entry for entry in OBJECTS if entry["type"] in ("lens", "search")]
    assert {entry["id"] for entry in panels} == set(FOUND)
    for entry in panels:
        attributes = entry["attributes"]
        body: dict[str, Any] = {"size": 0, "track_total_hits": True}
        if entry["type"] == "lens":
            query = attributes["state"]["query"]["query"]
            inner = body
            for name in attributes["state"]["datasourceStates"]["formBased"]["layers"]["layer"]["columnOrder"]:
                columns = attributes["state"]["datasourceStates"]["formBased"]["layers"]["layer"]["columns"]
                inner["aggs"] = {"part": aggregation(columns[name])}
                inner = inner["aggs"]["part"]
        else:
            query = json.loads(attributes["kibanaSavedObjectMeta"]["searchSourceJSON"])["query"]["query"]
        body["query"] = asked(query)
        status, answer = ask("POST", f"/app-logs-{DAY}/_search", body, user="operator", port=9200)
        assert status == 200, (entry["id"], answer)
        assert answer["hits"]["total"]["value"] == FOUND[entry["id"]], entry["id"]
        if entry["id"] == "platform-transactions-amount":
            (euros,) = answer["aggregations"]["part"]["buckets"]
            assert (euros["key"], euros["part"]["value"]) == ("EUR", 4 * 1250)
        if entry["id"] == "platform-logs-streams":
            counts = [bucket["doc_count"] for bucket in answer["aggregations"]["part"]["buckets"].values()]
            assert sorted(counts) == [0, 1, 1, 2]


@pytest.mark.usefixtures("written")
def test_rules_find_what_they_warn_of(ask: Ask) -> None:
    for rule in RULES:
        body = json.loads(rule["params"]["esQuery"]) | {"size": 0, "track_total_hits": True}
        # With the privileges that the rule has in Kibana.
        status, answer = ask("POST", f"/{rule['params']['index'][0]}/_search", body, port=9200)
        assert (status, answer["hits"]["total"]["value"]) == (200, FIRED[rule["id"]]), rule["name"]


# --- what is refused ---


BAD_VALUES: list[tuple[dict[str, Any], list[str]]] = [
    (
        {
            "kibana_security_encryption_key": "a" * 31,
            "kibana_reporting_encryption_key": "1" * 40,
            "kibana_setup_password": "short",
            "kibana_public_url": "http://kibana.example.com",
            "kibana_session_lifespan": "for ever",
            "kibana_heap_mb": 9_000_000,
            "kibana_spaces": [{"id": "No Space", "name": "x"}],
            "kibana_content_space": "nowhere",
            "kibana_settings": {"server.port": 1, "xpack.security.encryptionKey": "x"},
            "kibana_version": "8.19.7",
        },
        [
            "kibana_security_encryption_key and kibana_reporting_encryption_key must have 32 printable ASCII",
            "kibana_setup_password (vault_kibana_setup_password) is shorter than 16",
            "begins with https://",
            "write a number with m, h or d",
            "kibana_heap_mb is 9000000",
            "kibana_spaces has No Space",
            "kibana_content_space is nowhere",
            "kibana_settings must not hold server.port, xpack.security.encryptionKey",
            "Kibana works with its own release only",
        ],
    ),
    (
        {"kibana_security_encryption_key": "k" * 32, "kibana_reporting_encryption_key": "k" * 32},
        ["choose a different one for each"],
    ),
]


@pytest.mark.parametrize(("variables", "sentences"), BAD_VALUES, ids=["many", "equal keys"])
def test_bad_values_are_refused(view: Host, apply: Apply, variables: dict[str, Any], sentences: list[str]) -> None:
    before = unchanged(view)
    run = apply(**variables)
    assert run.failed
    for sentence in sentences:
        assert sentence in run.words
    assert unchanged(view) == before


def test_a_broken_setting_gets_the_old_configuration_back(view: Host, apply: Apply, ask: Ask) -> None:
    before = view.check_output(f"sha256sum {CONFIGURATION}/kibana.yml {CONFIGURATION}/kibana.keystore")
    run = apply(
        kibana_settings={"server.prot": 1}, kibana_reporting_encryption_key="another key, long enough for it 12"
    )
    assert run.failed
    assert 'Unknown configuration key(s): "server.prot"' in run.words
    assert "The previous configuration is back in place" in run.words
    assert view.check_output(f"sha256sum {CONFIGURATION}/kibana.yml {CONFIGURATION}/kibana.keystore") == before
    wait_until_it_serves(view)
    test_nothing_is_left_of_earlier_configurations(view, ask)
    assert apply().changed == {VIEW: 0}


def test_a_wrong_password_is_named(view: Host, apply: Apply) -> None:
    before = unchanged(view)
    run = apply(kibana_setup_password="not the right password")
    assert run.failed
    assert "was refused with 401" in run.words
    assert unchanged(view) == before
