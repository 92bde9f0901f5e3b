"""What the stand-in for Logstash makes of a configuration, and when the keystore is made anew."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

from lab.build.standins.logstash import configuration

PROJECT = Path(__file__).parents[2]
PIPELINE = """
# A comment { with braces } and "quotes"
input {
  beats {
    port => 5044 ssl_certificate => "/pki/tls.crt"
    ssl_certificate_authorities => ["/pki/ca.crt", '/pki/old.crt']
  }
}
filter {
  if [message] =~ /x/ { mutate { id => "one" add_field => { "[a][b]" => "c # no comment" } } }
}
output {
  elasticsearch {
    hosts => ["https://es1:9200","https://es2:9200"]
    user => "logstash"
    password => "${ELASTICSEARCH_PASSWORD}"
    index => "app-logs-%{+YYYY.MM.dd}"
  }
}
"""


@pytest.fixture(scope="module")
def keystore() -> ModuleType:
    """Return the module of the role."""
    path = PROJECT / "roles/logstash/library/logstash_keystore.py"
    spec = importlib.util.spec_from_file_location("logstash_keystore", path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules["logstash_keystore"] = module
    spec.loader.exec_module(module)
    return module


def test_plugins_are_read_with_their_settings() -> None:
    plugins = {p.name: p.settings for p in configuration.plugins_of(PIPELINE, {"elasticsearch_password": 'p"w $x'})}
    assert plugins["beats"]["ssl_certificate_authorities"] == ["/pki/ca.crt", "/pki/old.crt"]
    assert plugins["beats"]["port"] == "5044"
    assert plugins["mutate"]["id"] == "one"
    assert plugins["elasticsearch"]["hosts"] == ["https://es1:9200", "https://es2:9200"]
    assert plugins["elasticsearch"]["password"] == 'p"w $x'


def test_variables_come_from_keystore_environment_and_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NAME", "environment")
    assert configuration.resolve("${NAME}", {"name": "keystore"}) == "keystore"
    assert configuration.resolve("<${NAME}>", {}) == "<environment>"
    assert configuration.resolve("${OTHER:default}", {}) == "default"
    with pytest.raises(configuration.ConfigurationError, match="`OTHER` is not defined"):
        configuration.resolve("${OTHER}", {})


def test_unknown_setting_is_refused(tmp_path: Path) -> None:
    (tmp_path / "logstash.yml").write_text("queue:\n  type: persisted\npipeline.workers: 2\n", encoding="utf-8")
    assert configuration.read_settings(tmp_path) == {"queue.type": "persisted", "pipeline.workers": 2}
    (tmp_path / "logstash.yml").write_text("pipeline.wokers: 2\n", encoding="utf-8")
    with pytest.raises(configuration.ConfigurationError, match=r'Setting "pipeline\.wokers" doesn'):
        configuration.read_settings(tmp_path)


def test_unreadable_files_are_told(tmp_path: Path) -> None:
    pipeline = configuration.Pipeline("main", [configuration.Plugin("beats", {"ssl_key": str(tmp_path / "none.key")})])
    assert configuration.unreadable(pipeline) == [f"beats: ssl_key => {tmp_path}/none.key: No such file or directory"]


def test_keystore_is_current_for_its_own_secrets_only(keystore: ModuleType, tmp_path: Path) -> None:
    secrets = {"ELASTICSEARCH_PASSWORD": "one"}
    assert not keystore.is_current(tmp_path, "seal", secrets)
    (tmp_path / keystore.SUM).write_text(keystore.sum_of(b"0" * 16, "seal", secrets), encoding="ascii")
    assert not keystore.is_current(tmp_path, "seal", secrets), "a sum without a keystore is worth nothing"
    (tmp_path / keystore.KEYSTORE).touch()
    assert keystore.is_current(tmp_path, "seal", secrets)
    assert not keystore.is_current(tmp_path, "other", secrets)
    assert not keystore.is_current(tmp_path, "seal", secrets | {"MORE": "two"})
    (tmp_path / keystore.SUM).write_text("damaged", encoding="ascii")
    assert not keystore.is_current(tmp_path, "seal", secrets)
