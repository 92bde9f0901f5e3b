"""What the stand-in for Logstash makes of a configuration."""

from pathlib import Path

import pytest

from lab.build.standins.logstash import configuration

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
