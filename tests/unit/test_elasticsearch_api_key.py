"""Keys of hosts: what the module asks of Elasticsearch, and which keys the role revokes."""

from __future__ import annotations

import base64
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from lab.settings import PROJECT
from tests.unit.test_elasticsearch import api, cluster, load

keys = load(PROJECT / "plugins/modules/elasticsearch_api_key.py", "elasticsearch_api_key")
PATH = "/_security/api_key"
AUTHENTICATE = ("GET", "/_security/_authenticate")


class FakeElasticsearch:
    """Knows a user and keys, and remembers what it was told."""

    def __init__(self) -> None:
        self.keys: list[dict[str, Any]] = []
        self.told: list[tuple[str, str, Any]] = []
        self.refused: dict[tuple[str, str], int] = {}
        self.updated = False
        # Instead of an answer to a key.
        self.key_status = 0

    def api(self, urls: list[str], ca_path: str, user: str, password: str, headers: Any = None) -> Any:  # noqa: ANN401
        return SimpleNamespace(
            ask=lambda method, path, body=None: self.ask((headers or {}).get("Authorization", user), method, path, body)
        )

    def ask(self, who: str, method: str, path: str, body: Any) -> Any:  # noqa: ANN401
        if (method, path) in self.refused:
            raise api.ApiError(f"{method} {path} was refused", self.refused[method, path])
        if (method, path) == AUTHENTICATE:
            if not who.startswith("ApiKey "):
                return {"username": who}
            if self.key_status:
                raise api.ApiError("no answer to the key", self.key_status)
            shown = base64.b64decode(who.removeprefix("ApiKey ")).decode()
            for key in self.keys:
                if f"{key['id']}:secret" == shown and not key["invalidated"]:
                    return {"username": key["username"], "api_key": {"id": key["id"], "name": key["name"]}}
            raise api.ApiError("not one of ours", 401)
        if method == "GET":
            return {"api_keys": [key for key in self.keys if key["username"] == who]}
        self.told.append((method, path, body))
        if method == "POST":
            made = {"id": f"id{len(self.keys)}", "name": body["name"], "username": who, "invalidated": False}
            self.keys.append(made)
            return {**made, "api_key": "secret"}
        if method == "DELETE":
            for key in self.keys:
                key["invalidated"] |= key["id"] in body["ids"]
        return {"updated": self.updated}


@pytest.fixture
def elasticsearch(monkeypatch: pytest.MonkeyPatch) -> FakeElasticsearch:
    """Return an Elasticsearch that the module speaks to."""
    fake = FakeElasticsearch()
    monkeypatch.setattr(keys, "Api", fake.api)
    monkeypatch.setattr(keys, "api_of", lambda params: fake.api(**params["access"]))
    monkeypatch.setattr(keys.KeyOfService, "close", lambda self: None)
    return fake


def bring(path: Path, *, check_mode: bool = False, state: str = "present", user: str = "filebeat") -> dict[str, Any]:
    """Run the module."""
    module = SimpleNamespace(
        check_mode=check_mode,
        atomic_move=lambda source, target: Path(source).rename(target),
        params={
            "access": {"urls": ["https://es1"], "ca_path": "/ca.crt", "user": user, "password": "p"},
            "service": "filebeat",
            "host": "app1",
            "path": str(path),
            "privileges": keys.ADD_DOCUMENTS,
            "state": state,
        },
    )
    return keys.KeyOfService(module).bring()


def test_key_is_made_once_and_brought_up_to_date(elasticsearch: FakeElasticsearch, tmp_path: Path) -> None:
    path = tmp_path / "key"
    assert bring(path) == {"changed": True, "api_key": "id0:secret", "others": 0}
    assert path.read_text(encoding="utf-8") == "id0:secret\n"
    assert path.stat().st_mode & 0o777 == 0o600
    declared = {
        "metadata": {"managed_by": "bank platform", "service": "filebeat", "host": "app1"},
        "role_descriptors": {"service": keys.ADD_DOCUMENTS},
    }
    assert elasticsearch.told == [("POST", PATH, {"name": "filebeat on app1", **declared})]
    assert bring(path) == {"changed": False, "api_key": "id0:secret", "others": 0}
    assert elasticsearch.told[1:] == [("PUT", f"{PATH}/id0", declared)]
    elasticsearch.updated = True
    assert bring(path)["changed"] is True, "the user's role had changed"


def test_revoked_key_is_replaced_and_the_others_go_when_told(elasticsearch: FakeElasticsearch, tmp_path: Path) -> None:
    path = tmp_path / "key"
    bring(path)
    path.unlink()
    assert bring(path) == {"changed": True, "api_key": "id1:secret", "others": 1}
    assert bring(path, state="only") == {"changed": True, "api_key": "id1:secret", "others": 1}
    assert [key["invalidated"] for key in elasticsearch.keys] == [True, False]
    elasticsearch.keys[1]["invalidated"] = True
    assert bring(path)["api_key"] == "id2:secret"
    path.write_text("no key", encoding="utf-8")
    assert bring(path)["api_key"] == "id3:secret"
    assert bring(path, user="another")["api_key"] == "id4:secret", "a key of another user is not this user's"


def test_check_mode_makes_nothing(elasticsearch: FakeElasticsearch, tmp_path: Path) -> None:
    path = tmp_path / "key"
    assert bring(path, check_mode=True) == {"changed": True, "api_key": "", "others": 0}
    assert not path.exists()
    bring(path)
    told = list(elasticsearch.told)
    assert bring(path, check_mode=True) == {"changed": False, "api_key": "id0:secret", "others": 0}
    assert elasticsearch.told == told


@pytest.mark.parametrize(
    ("refused", "status", "sentence"),
    [
        (AUTHENTICATE, 401, "answered 401 to user filebeat"),
        (("POST", PATH), 403, "the cluster privilege manage_own_api_key"),
    ],
)
def test_refusals_name_the_remedy(
    elasticsearch: FakeElasticsearch, tmp_path: Path, refused: tuple[str, str], status: int, sentence: str
) -> None:
    elasticsearch.refused[refused] = status
    with pytest.raises(keys.KeyProblem, match=sentence):
        bring(tmp_path / "key")
    assert not (tmp_path / "key").exists()


def test_elasticsearch_that_cannot_tell_is_no_reason_for_another_key(
    elasticsearch: FakeElasticsearch, tmp_path: Path
) -> None:
    path = tmp_path / "key"
    bring(path)
    elasticsearch.key_status = 503
    with pytest.raises(api.ApiError):
        bring(path)
    assert path.read_text(encoding="utf-8") == "id0:secret\n"
    assert len(elasticsearch.keys) == 1


def test_keys_of_hosts_that_left_are_revoked() -> None:
    def key(name: str, **metadata: str) -> dict[str, Any]:
        return {"id": f"id of {name}", "name": name, "metadata": metadata}

    found = [
        key("left", managed_by="bank platform", service="filebeat", host="app9"),
        key("stays", managed_by="bank platform", service="filebeat", host="app1"),
        key("no longer in the group", managed_by="bank platform", service="packetbeat", host="app1"),
        key("made by people"),
        {"id": "id of one without metadata", "name": "old", "metadata": None},
    ]
    answers = {f"{PATH}?active_only=true": {"api_keys": found}}
    made = cluster(answers, api_key_holders={"filebeat": ["app1"], "packetbeat": []})
    made.revoke_left_api_keys()
    assert made.api.told == [
        ("DELETE", PATH, {"ids": ["id of left"]}),
        ("DELETE", PATH, {"ids": ["id of no longer in the group"]}),
    ]
    made = cluster(answers, check_mode=True)
    made.revoke_left_api_keys()
    assert (len(made.diff), made.api.told) == (3, [])
