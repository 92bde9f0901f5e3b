"""What the role of Kibana takes for a difference, and what the stand-ins for Kibana and APM Server refuse."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest

from lab.build.standins.apm_server import configuration as apm_configuration
from lab.build.standins.apm_server import intake
from lab.build.standins.kibana import configuration, keystore
from lab.build.standins.kibana.store import Refusal, Store
from lab.settings import PROJECT
from tests.unit.test_elasticsearch import load

ROLE = PROJECT / "roles/kibana"
api = load(PROJECT / "plugins/module_utils/rest_api.py", "ansible.module_utils.rest_api")
content = load(ROLE / "library/kibana_content.py", "kibana_content")


@pytest.mark.parametrize(
    ("found", "declared", "is_covered"),
    [
        # Kibana adds what it knows better, and writes documents with its own spaces and order.
        ({"title": "a", "version": 2}, {"title": "a"}, True),
        ({"panels": '[{"b": 1,  "a": 2}]'}, {"panels": '[{"a":2,"b":1}]'}, True),
        ({"panels": '[{"a": 2, "added": true}]'}, {"panels": '[{"a": 2}]'}, True),
        ({"panels": '[{"a": 3}]'}, {"panels": '[{"a": 2}]'}, False),
        ({"panels": "[{}, {}]"}, {"panels": "[{}]"}, False),
        ({"title": "b"}, {"title": "a"}, False),
        ({}, {"title": "a"}, False),
        (None, {"title": "a"}, False),
        ({"text": "{no document"}, {"text": "{no document"}, True),
    ],
)
def test_only_what_was_declared_can_differ(found: Any, declared: Any, is_covered: bool) -> None:  # noqa: ANN401
    assert content.covers(content.opened(found), content.opened(declared)) is is_covered


@pytest.fixture
def kibana(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the folder of a configuration."""
    monkeypatch.setenv("KBN_PATH_CONF", str(tmp_path))
    return tmp_path


@pytest.mark.parametrize(
    ("text", "secrets", "code", "reason"),
    [
        ("server.prot: 1", {}, 64, 'Unknown configuration key(s): "server.prot"'),
        ("server: {host: a, nam: b}", {}, 64, '"server.nam"'),
        ("server.port: many", {}, 78, "[config validation of [server].port]"),
        ("", {"xpack.security.encryptionKey": "k" * 31}, 78, "length [31] but it must have a minimum length of [32]"),
        ("", {"xpack.reporting.encryptionKey": 1}, 78, "expected value of type [string]"),
        ("elasticsearch.username: elastic", {}, 78, 'value of "elastic" is forbidden'),
        ("xpack.security.session.lifespan: long", {}, 78, "Failed to parse value as time value"),
        ("server.publicBaseUrl: kibana", {}, 78, "expected URI"),
        ("server.ssl: {enabled: true, certificate: /nowhere.crt, key: /nowhere.key}", {}, 1, "ENOENT"),
        ("server.ssl.enabled: true", {}, 78, "must specify [certificate] and [key]"),
    ],
)  # fmt: skip
def test_kibana_refuses(kibana: Path, text: str, secrets: dict[str, Any], code: int, reason: str) -> None:
    (kibana / "kibana.yml").write_text(text, encoding="utf-8")
    keystore.write(kibana, secrets)
    with pytest.raises(configuration.ConfigurationError) as refused:
        configuration.load()
    assert (refused.value.code, reason in str(refused.value)) == (code, True), refused.value


def test_kibana_takes_what_is_right_and_the_keystore_wins(kibana: Path) -> None:
    lines = ["server: {port: 5601, publicBaseUrl: 'https://kibana.example.com'}", "xpack.security.encryptionKey: short"]
    (kibana / "kibana.yml").write_text("\n".join(lines), encoding="utf-8")
    keystore.write(kibana, {"xpack.security.encryptionKey": "k" * 32})
    assert configuration.load().get("xpack.security.encryptionKey") == "k" * 32
    assert [keystore.value_of(text) for text in ("123", "true", "a1")] == [123, True, "a1"], "as Kibana's own does"


def test_store_gives_back_what_it_was_given(tmp_path: Path) -> None:
    store = Store(tmp_path / "standin.json")
    board = {"type": "dashboard", "id": "a", "attributes": {"title": "A"}, "references": [{"type": "lens", "id": "b"}]}
    lens = {"type": "lens", "id": "b", "attributes": {"title": "B"}, "references": []}
    answer = store.take("default", [board], overwrite=True)
    assert (answer["success"], answer["errors"][0]["error"]["type"]) == (False, "missing_references")
    assert store.take("default", [board, lens], overwrite=False)["success"]
    assert store.take("default", [lens], overwrite=False)["errors"][0]["error"]["type"] == "conflict"
    again = Store(tmp_path / "standin.json")
    (found,) = again.export("default", ["dashboard"])
    assert found["attributes"] == board["attributes"]
    with pytest.raises(Refusal, match="not found"):
        again.export("nowhere", ["dashboard"])


def test_rules_are_refused_as_kibana_refuses_them(tmp_path: Path) -> None:
    store = Store(tmp_path / "standin.json")
    (rule, *_) = json.loads((PROJECT / "files/kibana/rules.json").read_text(encoding="utf-8"))
    name = rule.pop("id")
    assert store.put_rule("default", name, rule, "someone", new=True)["revision"] == 0
    for key, change, reason in (
        (name, {"consumer": "alerts"}, "request body.consumer"),
        ("no-uuid", rule, "Predefined IDs"),
        ("3f0c5a0e-6f7b-4d52-9c1a-2b8a4d0e9f12", rule | {"params": {}}, "params invalid"),
        ("3f0c5a0e-6f7b-4d52-9c1a-2b8a4d0e9f12", rule | {"schedule": {"interval": "often"}}, "valid duration"),
    ):
        with pytest.raises(Refusal, match=reason):
            store.put_rule("default", key, change, "someone", new=key != name)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("apm-server: {max_connections: many}\noutput.elasticsearch.hosts: [a]", "required 'int', but found 'string'"),
        ("apm-server.rum.enabled: 1\noutput.elasticsearch.hosts: [a]", "required 'bool', but found 'int'"),
        ("apm-server.host: 'a:1'", "no outputs are defined"),
        ("output: {elasticsearch: {hosts: [a]}, console: {pretty: true}}", "more than one namespace"),
        ("output.elasticsearch: {password: '${SECRET}'}", "missing field accessing 'output.elasticsearch.password'"),
        ("output.elasticsearch.hosts: [a]\napm-server.ssl: {enabled: true, key: /nowhere}", "failed to load"),
        ("a: [", "error loading config file"),
    ],
)  # fmt: skip
def test_apm_server_refuses(tmp_path: Path, text: str, reason: str) -> None:
    file = tmp_path / "apm-server.yml"
    file.write_text(text, encoding="utf-8")
    options = apm_configuration.Options(file, {"path.data": str(tmp_path)})
    with pytest.raises(apm_configuration.ConfigurationError) as refused:
        apm_configuration.load(options)
    assert reason in str(refused.value)


def test_apm_server_reads_its_keystore(tmp_path: Path) -> None:
    file = tmp_path / "apm-server.yml"
    file.write_text("output.elasticsearch: {password: '<${SECRET}>'}", encoding="utf-8")
    options = apm_configuration.Options(file, {"keystore.path": str(tmp_path / "own.keystore")})
    apm_configuration.write_keystore(tmp_path / "own.keystore", {"SECRET": 'p"w $x'})
    assert apm_configuration.load(options)["output.elasticsearch.password"] == '<p"w $x>'
    (tmp_path / "own.keystore").write_bytes(base64.b64encode(b"no document"))
    with pytest.raises(apm_configuration.ConfigurationError, match="could not initialize the keystore"):
        apm_configuration.load(options)


def test_intake_reads_what_an_agent_of_the_bank_sends() -> None:
    metadata = {"metadata": {"service": {"name": "bank", "agent": {"name": "python"}}}}
    span = {
        "span": {"id": "1", "trace_id": "2", "parent_id": "3", "name": "n", "type": "db", "duration": 1, "start": 0}
    }
    body = "\n".join(map(json.dumps, (metadata, span, {"span": {}}, {"strange": {}}))) + "\nnonsense\n"
    taken = intake.read_events(body.encode(), 1000)
    assert (dict(taken.kinds), len(taken.errors)) == ({"span": 1}, 3)
    assert intake.read_events(body.encode(), 20).kinds == {}
    with pytest.raises(intake.IntakeError, match="metadata"):
        intake.read_events(b"", 1000)
    with pytest.raises(intake.IntakeError, match="compressed"):
        intake.unpacked(b"\x00", "gzip")
    with pytest.raises(intake.IntakeError, match="wire-format"):
        intake.read_otlp(b"\x0a\xff")
