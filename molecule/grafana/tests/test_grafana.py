"""What people, programs and strangers find at Grafana, and what happens when its inputs change."""

from __future__ import annotations

import base64
import json
import ssl
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import testinfra
from clients import caller
from monitoring import assert_changed_one_after_another, assert_stopped_at_the_first
from testinfra.host import Host

if TYPE_CHECKING:
    from conftest import Apply, Run

HOST, OTHER = "grafana-view1", "grafana-view2"
UNIT = "grafana-server"
ADMINISTRATOR = "platform_admin"
PROJECT = Path(__file__).parents[3]
DASHBOARDS = PROJECT / "files/grafana/dashboards"
UIDS = {json.loads(path.read_text(encoding="utf-8"))["uid"] for path in DASHBOARDS.glob("*.json")}
UID = "prometheus"
# Seconds that a start may take on a busy machine.
PATIENCE = 60

Ask = Callable[..., tuple[int, Any]]


@pytest.fixture(scope="module")
def server() -> Host:
    """Connect to the host of Grafana."""
    return testinfra.get_host(f"docker://{HOST}")


def answer_of(server: Host, request: urllib.request.Request, context: ssl.SSLContext) -> tuple[int, str]:
    """Return status and text of an answer; a server that has just been started listens a moment later."""
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            with urllib.request.urlopen(request, context=context, timeout=30) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()
        except OSError as error:
            print(f"{request.get_method()} {request.selector}: {error}")
            if time.monotonic() > deadline:
                unit = f"systemctl status {UNIT} --no-pager --lines=0; journalctl --unit={UNIT} --no-pager --lines=40"
                pytest.fail(f"Grafana does not answer: {error}\n{server.run(unit).stdout}")
        time.sleep(1)


@pytest.fixture(scope="module")
def ask(server: Host, secrets: dict[str, str]) -> Ask:
    """Return a function that asks Grafana over the network, as the operator unless told otherwise."""
    address = server.check_output("hostname --ip-address").split()[0]
    context = ssl.create_default_context(cadata=server.file("/etc/pki/bank/grafana/ca.crt").content_string)
    passwords = {
        ADMINISTRATOR: secrets["vault_grafana_admin_password"],
        "operator": secrets["vault_grafana_operator_password"],
    }

    def call(
        path: str, body: object = None, *, user: str = "operator", password: str | None = None, method: str = "",
        token: str = "", scheme: str = "https",
    ) -> tuple[int, Any]:  # fmt: skip
        login = f"{user}:{passwords.get(user, '') if password is None else password}".encode()
        headers = {"Authorization": f"Basic {base64.b64encode(login).decode()}"} if user else {}
        if token:
            headers = {"Authorization": f"Bearer {token}"}
        data = None
        if body is not None:
            data, headers["Content-Type"] = json.dumps(body).encode(), "application/json"
        request = urllib.request.Request(
            f"{scheme}://{address}:3030{path}", data, headers, method=method or ("GET" if data is None else "POST")
        )
        status, text = answer_of(server, request, context)
        try:
            return status, json.loads(text)
        except ValueError:
            return status, text

    return call


def process(server: Host) -> str:
    """Return the number of the running process."""
    return server.check_output(f"systemctl show --property=MainPID --value {UNIT}")


def state(server: Host) -> str:
    """Return what the role may change on the host, and the running process."""
    return server.check_output(
        "find /etc/grafana /etc/systemd/system -type f -exec sha256sum {} + | sort;"
        f" systemctl show --property=MainPID,ActiveState {UNIT}"
    )


def dashboards(ask: Ask) -> set[str]:
    """Return the uid of every dashboard in the platform's folder."""
    return {entry["uid"] for entry in ask("/api/search?type=dash-db")[1] if entry.get("folderTitle") == "Platform"}


def write_dashboard(folder: Path, name: str, **values: object) -> None:
    """Write the file of a small dashboard."""
    document = {"uid": name, "title": f"Title of {name}", "id": None, "panels": [], "schemaVersion": 36, **values}
    (folder / f"{name}.json").write_text(json.dumps(document), encoding="utf-8")


def test_it_says_that_its_pages_are_missing(server: Host) -> None:
    assert "without pages" in server.check_output("rpm --query --queryformat '%{SUMMARY}' grafana")


def test_all_dashboards_of_the_repository_are_served(ask: Ask) -> None:
    assert UIDS
    assert dashboards(ask) == UIDS


def test_links_to_runbooks_lead_to_the_site_or_are_left_out(server: Host, ask: Ask, apply: Apply) -> None:
    def runbooks() -> list[str]:
        links = ask(f"/api/dashboards/uid/{sorted(UIDS)[0]}")[1]["dashboard"]["links"]
        return [link["url"] for link in links if "runbook" in link["url"]]

    before = process(server)
    assert runbooks() == []
    answer = apply(grafana_runbook_base_url="https://git.example.com/platform/blob/main/")
    assert not answer.failed, answer.output
    deadline = time.monotonic() + 30
    while not (found := runbooks()):
        assert time.monotonic() < deadline
        time.sleep(1)
    for url in found:
        path = url.removeprefix("https://git.example.com/platform/blob/main/")
        assert (PROJECT / path).is_file(), url
    answer = apply()
    assert not answer.failed, answer.output
    assert process(server) == before


def test_operators_look_and_change_nothing(ask: Ask) -> None:
    assert ask("/api/user")[1]["isGrafanaAdmin"] is False
    uid = sorted(UIDS)[0]
    status, answer = ask(f"/api/dashboards/uid/{uid}")
    assert (status, answer["meta"]["provisioned"], answer["meta"]["canEdit"]) == (200, True, False)
    assert ask("/api/dashboards/db", {"dashboard": {**answer["dashboard"], "title": "Mine"}})[0] == 403
    assert ask("/api/datasources", {"name": "mine", "type": "prometheus", "access": "proxy"})[0] == 403
    assert ask("/api/admin/users", {"login": "mine", "password": "x" * 20})[0] == 403
    assert ask("/api/org")[1]["name"] == "Bank"


def test_not_even_the_administrator_changes_what_the_repository_holds(ask: Ask) -> None:
    uid = sorted(UIDS)[0]
    found = ask(f"/api/dashboards/uid/{uid}")[1]["dashboard"]
    status, answer = ask(
        "/api/dashboards/db", {"dashboard": {**found, "title": "Mine"}, "overwrite": True}, user=ADMINISTRATOR
    )
    assert (status, "provisioned" in answer["message"]) == (400, True), answer
    source = ask(f"/api/datasources/uid/{UID}", user=ADMINISTRATOR)[1]
    assert source["readOnly"] is True
    status, _ = ask(f"/api/datasources/uid/{UID}", {**source, "name": "Mine"}, user=ADMINISTRATOR, method="PUT")
    assert status == 403


# Five failures in five minutes lock a name, so no test spends more than a few.
@pytest.mark.parametrize(("user", "password"), [("admin", "admin"), ("operator", "wrong"), (ADMINISTRATOR, "admin")])
def test_wrong_log_in_is_refused(ask: Ask, user: str, password: str) -> None:
    assert ask("/api/org", user=user, password=password)[0] == 401


def test_strangers_are_refused(ask: Ask) -> None:
    for path in ("/api/search", "/api/org", "/api/datasources", "/api/dashboards/home", "/metrics"):
        assert ask(path, user="")[0] == 401, path


def test_plain_http_is_refused(ask: Ask) -> None:
    status, text = ask("/api/health", scheme="http")
    assert (status, "HTTP request to an HTTPS server" in text) == (400, True)


def test_nobody_signs_up(ask: Ask) -> None:
    status, answer = ask("/api/user/signup", {"email": "x@example.com", "username": "x"}, user="")
    assert status == 401, answer


def test_prometheus_reads_figures_with_its_own_log_in(ask: Ask, secrets: dict[str, str]) -> None:
    status, text = ask("/metrics", user="prometheus", password=secrets["vault_exporter_web_password"])
    assert status == 200
    assert "grafana_build_info" in text


def test_a_query_goes_through_to_prometheus(ask: Ask) -> None:
    # The password of Grafana at Prometheus has quotes, dollars, percent signs and more.
    query = {"refId": "A", "datasource": {"uid": UID}, "expr": "prometheus_build_info", "instant": True}
    status, answer = ask("/api/ds/query", {"queries": [query], "from": "now-5m", "to": "now"})
    assert status == 200, answer
    frames = answer["results"]["A"]["frames"]
    assert frames, answer
    assert frames[0]["schema"]["fields"][-1]["labels"]["job"] == "prometheus"


def test_alerts_have_one_place(ask: Ask) -> None:
    # Prometheus has them: Grafana's own alerting is off, and so is its API.
    assert ask("/api/v1/provisioning/alert-rules", user=ADMINISTRATOR)[0] == 404


def test_secrets_are_nowhere_to_be_read(server: Host, ask: Ask, secrets: dict[str, str]) -> None:
    shown = server.check_output(f"systemctl cat {UNIT}; ps -eo args; journalctl --no-pager -o cat")
    shown += server.check_output(f"tr '\\0' '\\n' < /proc/{process(server)}/environ")
    shown += json.dumps(ask("/api/datasources", user=ADMINISTRATOR)[1], ensure_ascii=False)
    for name, value in secrets.items():
        if name.startswith("vault_grafana_"):
            assert value not in shown, name
    assert (
        server.check_output("find /etc/grafana/grafana.ini /etc/grafana/secrets /etc/grafana/tokens -perm /007") == ""
    )
    mode = "stat --format='%a %U %G'"
    assert server.check_output(f"{mode} /etc/grafana/provisioning/datasources/platform.yml") == "640 root grafana"
    assert server.check_output(f"{mode} /etc/grafana/tokens/wall") == "600 root root"


def test_sandbox_is_effective(server: Host) -> None:
    properties = {
        "CapabilityBoundingSet": "",
        "NoNewPrivileges": "yes",
        "ProtectSystem": "strict",
        "ReadWritePaths": "/var/lib/grafana /var/log/grafana",
        "User": "grafana",
    }
    for name, value in properties.items():
        assert server.check_output(f"systemctl show --property={name} --value {UNIT}") == value, name
    assert server.run(f"systemd-analyze security --threshold=20 {UNIT}.service").rc == 0


def test_program_shows_a_token_that_leaves_with_it(server: Host, ask: Ask, apply: Apply) -> None:
    token = server.check_output("cat /etc/grafana/tokens/wall")
    assert ask("/api/search", token=token)[0] == 200
    assert ask("/api/datasources", {"name": "mine", "type": "prometheus", "access": "proxy"}, token=token)[0] == 403
    answer = apply(grafana_service_accounts=[])
    assert not answer.failed, answer.output
    assert ask("/api/search", token=token)[0] == 401
    assert not server.file("/etc/grafana/tokens/wall").exists
    answer = apply()
    assert not answer.failed, answer.output
    assert ask("/api/search", token=server.check_output("cat /etc/grafana/tokens/wall"))[0] == 200


def test_dashboards_come_and_go_without_a_restart(server: Host, ask: Ask, apply: Apply, tmp_path: Path) -> None:
    before = process(server)
    status, answer = ask("/api/dashboards/db", {"dashboard": {"title": "By hand", "panels": []}}, user=ADMINISTRATOR)
    assert status == 200, answer
    by_hand = answer["uid"]
    write_dashboard(tmp_path, "first")
    write_dashboard(tmp_path, "second")
    answer = apply(grafana_dashboard_directory=str(tmp_path))
    assert not answer.failed, answer.output
    assert dashboards(ask) == {"first", "second"}
    write_dashboard(tmp_path, "second", title="Another title")
    (tmp_path / "first.json").unlink()
    answer = apply(grafana_dashboard_directory=str(tmp_path))
    assert not answer.failed, answer.output
    assert dashboards(ask) == {"second"}
    assert ask("/api/dashboards/uid/second")[1]["dashboard"]["title"] == "Another title"
    answer = apply()
    assert not answer.failed, answer.output
    assert dashboards(ask) == UIDS
    # What people made stays.
    assert ask(f"/api/dashboards/uid/{by_hand}")[0] == 200
    assert process(server) == before


def test_passwords_are_changed_and_accounts_leave(ask: Ask, apply: Apply) -> None:
    other, new = "a'\"$HOME `id` %d{é" + uuid.uuid4().hex, uuid.uuid4().hex
    users = [
        {"name": "operator", "password": other, "role": "Editor"},
        {"name": "auditor", "password": new, "role": "Viewer"},
    ]
    status, made = ask(
        "/api/admin/users", {"login": "person", "password": new, "name": "By hand", "OrgId": 1}, user=ADMINISTRATOR
    )
    assert status == 200, made
    answer = apply(grafana_users=users, grafana_admin_password=new + "x")
    assert not answer.failed, answer.output
    assert ask("/api/org", password=other)[0] == 200
    assert ask("/api/org")[0] == 401
    assert ask("/api/user/orgs", password=other)[1][0]["role"] == "Editor"
    assert ask("/api/org", user="auditor", password=new)[0] == 200
    assert ask("/api/org", user=ADMINISTRATOR, password=new + "x")[0] == 200
    answer = apply()
    assert not answer.failed, answer.output
    assert ask("/api/user/orgs")[1][0]["role"] == "Viewer"
    assert ask("/api/org", user="auditor", password=new)[0] == 401
    assert ask("/api/org", user="person", password=new)[0] == 200
    assert ask(f"/api/admin/users/{made['id']}", user=ADMINISTRATOR, method="DELETE")[0] == 200


def test_data_source_leaves_with_its_declaration(ask: Ask, apply: Apply) -> None:
    extra = [{"name": "Another", "uid": "another", "type": "prometheus", "url": "https://other.example.com"}]
    answer = apply(grafana_data_sources_extra=extra)
    assert not answer.failed, answer.output
    assert ask("/api/datasources/uid/another", user=ADMINISTRATOR)[0] == 200
    answer = apply()
    assert not answer.failed, answer.output
    assert ask("/api/datasources/uid/another", user=ADMINISTRATOR)[0] == 404
    assert ask(f"/api/datasources/uid/{UID}", user=ADMINISTRATOR)[0] == 200


def test_settings_that_grafana_refuses_are_taken_back(server: Host, ask: Ask, apply: Apply) -> None:
    before = server.check_output("sha256sum /etc/grafana/grafana.ini")
    answer = apply(grafana_settings={"database": {"type": "no-such-database"}}, grafana_start_seconds=15)
    assert answer.failed
    assert "The previous configuration is back in place" in answer.words
    assert "no-such-database" in answer.words
    assert server.check_output("sha256sum /etc/grafana/grafana.ini") == before
    assert ask("/api/org")[0] == 200
    answer = apply()
    assert not answer.failed, answer.output


@pytest.fixture
def folders(tmp_path: Path) -> dict[str, str]:
    """Return folders of dashboards that cannot be used, by what is wrong with them."""
    paths = {name: tmp_path / name for name in ("twice", "broken", "nameless", "foreign", "empty")}
    for path in paths.values():
        path.mkdir()
    write_dashboard(paths["twice"], "one", uid="same")
    write_dashboard(paths["twice"], "two", uid="same")
    (paths["broken"] / "broken.json").write_text("{", encoding="utf-8")
    write_dashboard(paths["nameless"], "nameless", uid="")
    write_dashboard(paths["foreign"], "foreign", id=7)
    return {name: str(path) for name, path in paths.items()}


@pytest.mark.parametrize(
    ("folder", "sentence"),
    [
        ("twice", "have the same uid same"),
        ("broken", "is not JSON"),
        ("nameless", "has no uid"),
        ("foreign", "has the id 7 of another Grafana"),
        ("empty", "holds no dashboards"),
    ],
)
def test_bad_dashboard_is_refused_and_changes_nothing(
    server: Host, apply: Apply, folders: dict[str, str], folder: str, sentence: str
) -> None:
    before = state(server)
    answer = apply(grafana_dashboard_directory=folders[folder])
    assert answer.failed
    assert sentence in answer.words
    assert state(server) == before


@pytest.mark.parametrize(
    ("variables", "sentence"),
    [
        (
            {"grafana_admin_password": "short"},
            "grafana_admin_password (vault_grafana_admin_password) is shorter than 16",
        ),
        ({"grafana_admin_user": "admin"}, "which everybody tries"),
        ({"grafana_secret_key": "x" * 20 + "\n"}, "or a blank at one end"),
        ({"grafana_postgresql_password": "with a blank" * 2}, "choose one without"),
        ({"grafana_users": [{"name": ADMINISTRATOR, "password": "x" * 20}]}, "needs a name of its own"),
        ({"grafana_users": [{"name": "a b", "password": "x" * 20}]}, "rename a b"),
        ({"grafana_users": [{"name": "operator", "password": "short"}]}, "shorter than 12 characters"),
        ({"grafana_public_url": "http://grafana.example.com"}, "begins with https://"),
        ({"grafana_settings": {"server": {"protocol": "http"}}}, "must not hold server.protocol"),
        ({"grafana_runbook_base_url": "git.example.com"}, "or nothing"),
        ({"grafana_settings": {"users": "all"}}, "write section: {name: value} for users"),
        ({"grafana_settings": {"users": {"home_page": "a\nb"}}}, "has a line break"),
        ({"grafana_data_sources_extra": [{"name": "Mine", "uid": "prometheus"}]}, "needs a uid of its own"),
        ({"grafana_secrets": {"admin_password": "mine"}}, "not one of admin_password"),
    ],
)
def test_bad_value_is_refused_and_changes_nothing(
    server: Host, apply: Apply, variables: dict[str, object], sentence: str
) -> None:
    before = state(server)
    answer = apply(**variables)
    assert answer.failed
    assert sentence in answer.words
    assert state(server) == before


def test_restart_of_the_host_keeps_what_people_made(server: Host, ask: Ask) -> None:
    status, answer = ask("/api/dashboards/db", {"dashboard": {"title": "Kept", "panels": []}}, user=ADMINISTRATOR)
    assert status == 200, answer
    server.run_expect([0], f"systemctl restart {UNIT}")
    assert ask(f"/api/dashboards/uid/{answer['uid']}")[0] == 200
    assert dashboards(ask) == UIDS


@pytest.fixture(scope="session")
def apply(apply: Apply) -> Apply:
    """Return the function that runs a playbook, the scenario's own for the first host alone."""

    def run(playbook: Path | None = None, /, *options: str, **variables: object) -> Run:
        return apply(playbook, *options, *([] if playbook else ["--limit", HOST]), **variables)

    return run


@pytest.fixture(scope="session")
def questions() -> dict[str, Callable[[], object]]:
    """Return how to learn of each host whether it serves."""
    return {name: partial(caller(name, "grafana", 3030), "/api/health") for name in (HOST, OTHER)}


def test_hosts_are_changed_one_after_another(apply: Apply, questions: dict[str, Callable[[], object]]) -> None:
    assert_changed_one_after_another(apply, "grafana", questions, grafana_settings={"log": {"level": "warn"}})


def test_setting_that_grafana_refuses_stops_at_the_first_host(
    apply: Apply, questions: dict[str, Callable[[], object]]
) -> None:
    bad = {"grafana_settings": {"database": {"type": "no-such-database"}}, "grafana_start_seconds": 15}
    assert_stopped_at_the_first(apply, "grafana", questions, state, **bad)
    # The next run gives both what they had before these tests.
    assert_changed_one_after_another(apply, "grafana", questions)
