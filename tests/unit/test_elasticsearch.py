"""What the modules of the role elasticsearch read from a host, and what they ask of a cluster."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from lab.settings import PROJECT

ROLE = PROJECT / "roles/elasticsearch"
CLUSTER = "kZ3vF0aBQ5uSx1yT2wR4eg"


def load(path: Path, name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


api = load(PROJECT / "plugins/module_utils/rest_api.py", "ansible.module_utils.rest_api")
survey = load(ROLE / "library/elasticsearch_survey.py", "elasticsearch_survey")
objects = load(ROLE / "library/elasticsearch_objects.py", "elasticsearch_objects")
node = load(ROLE / "library/elasticsearch_node.py", "elasticsearch_node")


def commit(**values: str) -> bytes:
    """Return the user data of a Lucene commit between other bytes."""
    content = b"\x3f\xd7\x6c\x17segments\x00"
    for name, value in values.items():
        content += bytes([len(name)]) + name.encode() + bytes([len(value)]) + value.encode()
    return content + b"\xc0\x28\x93\xe8"


def test_data_tells_its_cluster_and_version(tmp_path: Path) -> None:
    assert survey.data(tmp_path) == ("", "")
    state = tmp_path / "_state"
    state.mkdir()
    (state / "segments_9").write_bytes(commit(cluster_uuid="_na_", node_version="8140399"))
    assert survey.data(tmp_path) == ("", "8.14.3"), "a node that never was in a cluster belongs to none"
    # In base 36, so that a comes after 9.
    (state / "segments_a").write_bytes(commit(node_id="abc", cluster_uuid=CLUSTER, node_version="8190899"))
    assert survey.data(tmp_path) == (CLUSTER, "8.19.8")


def test_settings_are_those_that_the_role_wrote(tmp_path: Path) -> None:
    assert survey.settings(tmp_path) == {}
    lines = ["# comment: 1", 'cluster.name: "bank"', 'node.roles: ["master"]', "by.hand: [unquoted]", ""]
    (tmp_path / "elasticsearch.yml").write_text("\n".join(lines), encoding="utf-8")
    assert survey.settings(tmp_path) == {"cluster.name": "bank", "node.roles": ["master"]}


def test_version_is_that_of_the_server_library(tmp_path: Path) -> None:
    assert survey.installed(tmp_path) == ""
    (tmp_path / "lib").mkdir()
    for name in ("elasticsearch-8.19.8.jar", "elasticsearch-core-8.19.8.jar", "elasticsearch-x-content-8.19.8.jar"):
        (tmp_path / "lib" / name).touch()
    assert survey.installed(tmp_path) == "8.19.8"


def test_reasons_are_read_to_their_end() -> None:
    cause = {"reason": "inner", "caused_by": {"reason": "innermost"}}
    assert api.reason_of(json.dumps({"error": {"reason": "outer", "caused_by": cause}}).encode()) == (
        "outer: inner: innermost"
    )
    assert api.reason_of(b'{"error": "short"}') == "short"
    assert api.reason_of(b"<html>") == "<html>"


@pytest.mark.parametrize(("status", "is_missing"), [(400, True), (404, True), (405, True), (403, False), (0, False)])
def test_what_the_server_does_not_know_is_told_from_other_refusals(status: int, is_missing: bool) -> None:
    class Refusing(api.Api):
        def ask(self, method: str, path: str, body: object = None, timeout: float = 30) -> Any:  # noqa: ANN401
            raise api.ApiError("refused", status)

    server = Refusing([], "", "elastic", "")
    if is_missing:
        assert server.find("/_ilm/policy") is None
    else:
        with pytest.raises(api.ApiError):
            server.find("/_ilm/policy")


class FakeApi:
    """Answers like a cluster, and remembers what it was told."""

    user, password = "elastic", ""

    def __init__(self, answers: dict[str, Any]) -> None:
        self.answers, self.told = answers, []

    def ask(self, method: str, path: str, body: object = None, timeout: float | None = None) -> Any:  # noqa: ANN401
        if method != "GET":
            self.told.append((method, path, body))
            return {}
        answer = self.answers.get(path)
        if answer is None:
            raise api.ApiError(f"{method} {path}", 404)
        return answer() if callable(answer) else answer

    find = api.Api.find

    def at(self, url: str) -> FakeApi:
        return self


def cluster(answers: dict[str, Any], check_mode: bool = False, **params: object) -> Any:  # noqa: ANN401
    empty = {"roles": [], "users": [], "api_key_holders": {}, "index_templates": [], "settings": {}, "snapshots": {}}
    made = objects.Cluster.__new__(objects.Cluster)
    made.module, made.params = SimpleNamespace(check_mode=check_mode), {**empty, **params}
    made.api, made.diff, made.left_policies = FakeApi(answers), [], []
    return made


ROLES = {
    "superuser": {"cluster": ["all"], "metadata": {"_reserved": True}},
    "writer": {
        "cluster": ["monitor"],
        "indices": [{"names": ["b", "a"], "privileges": ["create_doc"]}],
        "metadata": {},
    },
    "left": {"cluster": [], "indices": [], "metadata": {}},
}


def test_roles_are_the_whole_list_apart_from_reserved_ones() -> None:
    same = {"name": "writer", "cluster": ["monitor"], "indices": [{"names": ["a", "b"], "privileges": ["create_doc"]}]}
    made = cluster({"/_security/role": ROLES}, roles=[same, {"name": "new", "cluster": ["manage"]}])
    made.bring_roles()
    assert made.api.told == [
        ("PUT", "/_security/role/new", {"cluster": ["manage"]}),
        ("DELETE", "/_security/role/left", None),
    ]
    with pytest.raises(objects.ObjectError, match="superuser is reserved"):
        cluster({"/_security/role": ROLES}, roles=[{"name": "superuser"}]).bring_roles()


def test_check_mode_tells_and_asks_nothing() -> None:
    made = cluster({"/_security/role": ROLES}, check_mode=True)
    made.bring_roles()
    assert (made.api.told, len(made.diff)) == ([], 2)


def test_settings_that_nobody_declared_are_taken_back() -> None:
    found = {"persistent": {"a.b": "1", "left.over": "primaries", "c": "true"}}
    made = cluster({"/_cluster/settings?flat_settings=true": found}, settings={"a.b": 2, "c": True})
    made.bring_settings()
    expected = {"persistent": {"a.b": "2", "left.over": None}}
    assert made.api.told == [("PUT", "/_cluster/settings", expected)]
    again = cluster(
        {"/_cluster/settings?flat_settings=true": found}, settings={"a.b": 1, "left.over": "primaries", "c": True}
    )
    again.bring_settings()
    assert again.api.told == []


BODY = {"index_patterns": ["logs-*"], "template": {"settings": {"number_of_shards": 1}, "mappings": {}}}


def test_templates_of_others_stay_and_own_ones_follow_the_list() -> None:
    meta = {"_meta": {"managed_by": objects.OWNER}}
    found = {
        "index_templates": [
            {"name": "vendor", "index_template": {"index_patterns": ["v-*"]}},
            {"name": "left", "index_template": {"index_patterns": ["l-*"], **meta}},
            {
                "name": "logs",
                "index_template": {
                    "index_patterns": ["logs-*"],
                    "template": {"settings": {"index": {"number_of_shards": "1"}}},
                    **meta,
                },
            },
        ]
    }
    made = cluster({"/_index_template": found}, index_templates=[{"name": "logs", "body": BODY, "retention_days": 9}])
    made.bring_templates(lifecycle=False)
    assert made.api.told == [("DELETE", "/_index_template/left", None)]
    made = cluster({"/_index_template": found}, index_templates=[{"name": "logs", "body": BODY, "retention_days": 9}])
    made.bring_templates(lifecycle=True)
    method, path, body = made.api.told[0]
    assert (method, path) == ("PUT", "/_index_template/logs")
    assert body["template"]["settings"]["index.lifecycle.name"] == "logs"
    with pytest.raises(objects.ObjectError, match="was not made by the platform"):
        cluster({"/_index_template": found}, index_templates=[{"name": "vendor", "body": BODY}]).bring_templates(
            lifecycle=False
        )


def test_nobody_logs_in_to_a_new_cluster_before_it_knows_what_types_their_lines_have() -> None:
    answers = {
        "/_security/role": {},
        "/_security/user": {},
        "/_cluster/settings?flat_settings=true": {"persistent": {}},
        "/_index_template": {"index_templates": []},
        "/_cluster/health": {"number_of_data_nodes": 1},
        "/_security/api_key?active_only=true": {"api_keys": []},
    }
    made = cluster(
        answers,
        users=[{"name": "filebeat", "password": "secret", "roles": ["writer"]}],
        roles=[{"name": "writer", "cluster": ["monitor"]}],
        index_templates=[{"name": "logs", "body": BODY}],
    )
    made.bring()
    paths = [path for _, path, _ in made.api.told]
    assert paths == ["/_index_template/logs", "/_security/role/writer", "/_security/user/filebeat"]


def test_server_without_lifecycles_is_told_nothing_about_them() -> None:
    made = cluster({}, snapshots={"location": "/srv/snapshots"})
    assert (made.bring_policies(), made.bring_snapshot_policy()) == (False, False)
    assert made.api.told == []


def test_server_with_lifecycles_expires_and_saves() -> None:
    made = cluster(
        {"/_ilm/policy": {}, "/_slm/policy": {}},
        index_templates=[{"name": "logs", "body": BODY, "retention_days": 90}],
        snapshots={"location": "/srv/snapshots", "retention_days": 7},
    )
    assert (made.bring_policies(), made.bring_snapshot_policy()) == (True, True)
    (_, path, policy), (_, snapshot_path, snapshots) = made.api.told
    assert path == "/_ilm/policy/logs"
    assert policy["policy"]["phases"]["delete"]["min_age"] == "90d"
    assert snapshot_path == f"/_slm/policy/{objects.SNAPSHOT_POLICY}"
    assert snapshots["retention"]["expire_after"] == "7d"


DEAD = {"name": "dead", "body": BODY, "retention_days": 9, "rollover_alias": "dead"}


def test_alias_is_made_once_and_takes_the_place_of_an_index() -> None:
    made = cluster({}, index_templates=[DEAD])
    made.bring_aliases()
    first = ("PUT", "/dead-000001", {"aliases": {"dead": {"is_write_index": True}}})
    assert made.api.told == [first]
    made = cluster({"/_alias/dead": {"dead-000007": {}}}, index_templates=[DEAD])
    made.bring_aliases()
    assert made.api.told == []
    health = "/_cluster/health/dead-000001?wait_for_status=yellow&timeout=25s"
    made = cluster({"/dead": {"dead": {}}, health: {"status": "green"}}, index_templates=[DEAD])
    made.bring_aliases()
    assert [path for _, path, _ in made.api.told] == ["/dead/_settings", "/dead/_clone/dead-000001", "/_aliases"]


def test_index_can_be_written_to_again_when_its_copy_fails() -> None:
    made = cluster({"/dead": {"dead": {}}}, index_templates=[DEAD])
    with pytest.raises(objects.ObjectError, match="Alias dead was refused"):
        made.bring_aliases()
    assert made.api.told[-1] == ("PUT", "/dead/_settings", {"index.blocks.write": None})
    assert "/_aliases" not in [path for _, path, _ in made.api.told]


def test_server_with_lifecycles_begins_new_indices_itself() -> None:
    made = cluster({"/_ilm/policy": {}, "/_index_template": {"index_templates": []}}, index_templates=[DEAD])
    made.bring_policies()
    made.bring_templates(lifecycle=True)
    assert made.api.told[0][2]["policy"]["phases"]["hot"]["actions"] == {"rollover": objects.ROLLOVER}
    assert made.api.told[1][2]["template"]["settings"]["index.lifecycle.rollover_alias"] == "dead"


class FakeNode(node.Node):
    """A node whose unit and cluster only note what happens to them."""

    def __init__(self, statuses: list[str], joins: bool = True, nodes: int = 3) -> None:
        self.log: list[str] = []
        self.params = {"recovery_seconds": 1, "start_seconds": 1, "peers": ["https://peer"], "bootstrap_password": ""}
        self.name, self.unit, self.heal, self.started, self.restarts = "es1", "unit", False, False, 0
        self.password_set, self.joins, self.api = False, joins, FakeApi({})
        self.statuses, self.nodes = statuses, nodes

    def active(self) -> bool:
        return True

    def health(self, _api: object) -> dict[str, Any]:
        status = self.statuses.pop(0) if len(self.statuses) > 1 else self.statuses[0]
        self.log.append(status)
        return {"status": status, "number_of_nodes": self.nodes, "unassigned_shards": 0}

    def cluster(self, *_apis: object) -> Any:  # noqa: ANN401
        return self.api

    def hold(self, _api: object, value: str | None) -> None:
        self.log.append(f"hold {value}")

    def stop(self) -> None:
        self.log.append("stop")

    def bring_up(self) -> None:
        self.log.append("start")

    def wait_until_joined(self) -> None:
        self.log.append("joined")
        if not self.joins:
            raise node.NodeError("away")


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(node, "PAUSE", 0.01)


def test_restart_holds_allocation_and_ends_green() -> None:
    made = FakeNode(["green", "green", "yellow", "green"])
    made.restart()
    assert made.log == [
        "green", "green", "hold primaries", "stop", "start", "joined", "hold None", "yellow", "green",
    ]  # fmt: skip


NODES_PATH = "/_cat/nodes?format=json&h=name,version"
SHARDS_PATH = "/_cat/shards?format=json&h=index,shard,prirep,state,node"


def shard(index: str, kind: str, holder: str | None, state: str = "STARTED") -> dict[str, Any]:
    """Return one line of the list of shards."""
    return {"index": index, "shard": "0", "prirep": kind, "state": state, "node": holder}


def upgrading(*shards: dict[str, Any], name: str, **releases: str) -> FakeNode:
    """Return a node of a cluster that is yellow, with nodes of these releases."""
    made = FakeNode(["yellow"])
    made.name = name
    nodes = [{"name": node, "version": release} for node, release in releases.items()]
    made.api = FakeApi({NODES_PATH: nodes, SHARDS_PATH: list(shards)})
    return made


WAITING = [shard("new", "p", "es1"), shard("new", "r", None, "UNASSIGNED")]
EVERYWHERE = [shard("new", "r", "es2"), shard("new", "r", "es3")]
MIXED = {"es1": "8.19.8", "es2": "8.19.5", "es3": "8.19.5"}


@pytest.mark.parametrize(
    ("name", "leaving", "releases", "shards", "goes_on"),
    [
        ("es2", True, MIXED, WAITING, True),
        # A release is a number, not a text.
        ("es2", True, {**MIXED, "es1": "8.19.10"}, WAITING, True),
        ("es1", False, MIXED, WAITING, True),
        ("es1", True, MIXED, WAITING, False),
        ("es3", True, {**MIXED, "es2": "8.19.8"}, WAITING, False),
        ("es2", True, dict.fromkeys(MIXED, "8.19.8"), WAITING, False),
        ("es2", True, MIXED, [shard("old", "p", "es2"), shard("old", "r", None, "UNASSIGNED")], False),
        ("es2", True, dict.fromkeys(MIXED, "8.19.8"), [*WAITING, *EVERYWHERE], False),
        ("es2", True, MIXED, [shard("old", "p", None, "UNASSIGNED")], False),
        ("es2", True, MIXED, [shard("old", "p", "es3"), shard("old", "r", "es1", "INITIALIZING")], False),
        ("es2", True, MIXED, [*WAITING, shard("old", "p", "es3 -> 192.0.2.1 x es2", "RELOCATING")], True),
    ],
    ids=[
        "second node", "two digits", "first node is back", "holder of the only copy", "a node could take it",
        "no upgrade", "an older primary", "more copies than nodes", "no primary", "a copy on its way", "one that moves",
    ],
)  # fmt: skip
def test_upgrade_goes_on_without_copies_that_no_node_may_hold(
    name: str, leaving: bool, releases: dict[str, str], shards: list[dict[str, Any]], goes_on: bool
) -> None:
    made = upgrading(*shards, name=name, **releases)
    if goes_on:
        assert made.wait_for_copies("now", leaving=leaving)["status"] == "yellow"
    else:
        with pytest.raises(node.NodeError, match="did not become green"):
            made.wait_for_copies("now", leaving=leaving)


HELD_PATH = "/_cluster/settings?flat_settings=true"


def test_node_is_stopped_for_its_program_only_when_the_cluster_can_do_without_it() -> None:
    made = FakeNode(["yellow"])
    with pytest.raises(node.NodeError, match="before es1 was upgraded, so it was not"):
        made.take_out()
    assert set(made.log) == {"yellow"}
    made = FakeNode(["yellow", "yellow", "green"])
    made.take_out()
    assert made.log == ["yellow", "yellow", "green", "hold primaries", "stop"]
    assert made.stopped
    alone = FakeNode(["yellow"], nodes=1)
    alone.take_out()
    assert alone.log == ["yellow", "stop"]


def test_node_that_cannot_be_stopped_holds_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def stay(_node: object) -> None:
        raise node.NodeError("did not stop")

    monkeypatch.setattr(FakeNode, "stop", stay)
    made = FakeNode(["green"])
    with pytest.raises(node.NodeError, match="did not stop"):
        made.take_out()
    assert made.log[-2:] == ["hold primaries", "hold None"]


def test_node_that_is_back_ends_what_was_held_for_it() -> None:
    made = FakeNode(["yellow", "green"])
    made.api = FakeApi({HELD_PATH: {"persistent": {node.HOLD: "primaries"}}})
    assert made.start()["status"] == "green"
    assert made.log == ["joined", "hold None", "yellow", "green"]
    made = FakeNode(["yellow"])
    made.api = FakeApi({HELD_PATH: {"persistent": {}}})
    assert made.start()["status"] == "yellow", "one that was not held is not waited for"
    assert made.log == ["joined", "yellow"]


def test_others_make_new_copies_when_the_node_does_not_come_back() -> None:
    made = FakeNode(["yellow"], joins=False)
    with pytest.raises(node.NodeError, match="away"):
        made.start()
    assert made.log == ["joined", "hold None"]


def test_cluster_that_is_not_green_is_not_touched() -> None:
    made = FakeNode(["yellow"])
    with pytest.raises(node.NodeError, match="before es1 was restarted, so it was not"):
        made.restart()
    assert "stop" not in made.log


def test_allocation_is_released_when_the_node_stays_away() -> None:
    made = FakeNode(["green"], joins=False)
    with pytest.raises(node.NodeError, match="away"):
        made.restart()
    assert made.log[-1] == "hold None"


def test_node_that_is_alone_is_just_restarted() -> None:
    made = FakeNode(["yellow"], nodes=1)
    made.restart()
    assert [step for step in made.log if step != "yellow"] == ["stop", "start", "joined"]
