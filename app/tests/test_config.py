"""Bad configuration: one sentence that names the key, without the value."""

import pytest
from click.testing import CliRunner

from bank.cli import main
from bank.config import ConfigError, load_settings
from throwaway import HOSTILE, configuration_text, toml_text

SECRET = "canary-5ecret-Value"


@pytest.fixture
def write(tmp_path):
    def write(content):
        path = tmp_path / "bank.toml"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return write


GOOD = f'secret_key = "{"abcdefghijklmnop" * 2}"\n[database]\nssl_mode = "disable"\n'


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", ["secret_key is missing", "database"]),
        (f'secret_key = "{SECRET}"\n[database]\nssl_mode = "disable"', ["secret_key", "at least 32 characters"]),
        (f'secret_key = "{"a" * 64}"\n[database]\nssl_mode = "disable"', ["secret_key", "too regular"]),
        (f"colour = 'red'\n{GOOD}", ["colour is not a known key"]),
        (f"{GOOD}pasword = '{SECRET}'", ["database.pasword is not a known key"]),
        (f"{GOOD}port = 'many'", ["database.port", "integer"]),
        (f"{GOOD}port = 70000", ["database.port", "65535"]),
        (f"{GOOD}password = 5", ["database.password", "string"]),
        (f"{GOOD}application_role = 'x; DROP TABLE users'", ["database.application_role"]),
        (f"{GOOD}[server]\nworkers = 0", ["server.workers"]),
        (f"{GOOD}[server]\ncertificate = '/x'", ["server", "must be set together"]),
        (f"{GOOD}[server]\ntrusted_proxies = ['lb1']", ["server.trusted_proxies"]),
        (f"{GOOD}[logging]\nlevel = 'loud'", ["logging.level"]),
        (GOOD.replace("disable", "prefer"), ["database.ssl_mode"]),
        (GOOD.replace("disable", "verify-full"), ["database", "ssl_root_certificate"]),
        ("database = 5\n" + GOOD.split("[", maxsplit=1)[0], ["database"]),
        ("secret_key = ", ["not valid TOML"]),
        (b"\xff\xfe", ["not valid TOML"]),
    ],
)
def test_one_sentence(write, content, words):
    path = write(content)
    with pytest.raises(ConfigError) as caught:
        load_settings(path)
    sentence = str(caught.value)
    assert str(path) in sentence
    assert "\n" not in sentence.removesuffix("\n")
    assert SECRET not in sentence
    for word in words:
        assert word in sentence


@pytest.mark.parametrize(
    ("content", "words"),
    [
        *[(f"urls = ['{url}']", "https addresses without credentials") for url in (
            "http://mon1:9090", "mon1:9090", "https://", "https://:9090", "https://user:pw@mon1", "https://mon1:70000",
            "https://mon1:port", "https://mon1/?a=1", "https://mon1/#a", "https://m on1", "https://[::1", "",
            "https://mön1", "ftp://mon1", "https://\\\\1:9090", "https://mon1/a b",
        )],
        ("urls = 'https://mon1'", "prometheus.urls"),
        ("url = 'https://mon1'", "prometheus.url is not a known key"),
        (f"password = '{SECRET}'", "user and password must be set together"),
        ("user = 'bank'", "user and password must be set together"),
        (f"user = 'ba:nk'\npassword = '{SECRET}'", "must not hold a colon"),
    ],
)  # fmt: skip
def test_section_prometheus_is_checked(write, content, words):
    with pytest.raises(ConfigError, match="prometheus") as caught:
        load_settings(write(f"{GOOD}[prometheus]\n{content}\n"))
    assert words in str(caught.value)
    assert SECRET not in str(caught.value)


def test_section_prometheus_may_be_missing_or_full(write):
    assert load_settings(write(GOOD)).prometheus.urls == ()
    urls = ["https://mon1.example:9090", "https://[fd00::1]:9090/prometheus/"]
    text = f"{GOOD}[prometheus]\nurls = {urls}\nuser = 'bank'\npassword = {toml_text(HOSTILE)}\n"
    found = load_settings(write(text)).prometheus
    assert found.urls == tuple(urls)
    assert found.password.get_secret_value() == HOSTILE
    assert HOSTILE not in repr(found)


def test_missing_file():
    with pytest.raises(ConfigError, match=r"/nowhere/bank\.toml cannot be read: No such file"):
        load_settings("/nowhere/bank.toml")


def test_environment_overrides_single_values(write, monkeypatch):
    path = write(GOOD + 'user = "bank_app"\nname = "kept"\n')
    monkeypatch.setenv("BANK_CONFIG", str(path))
    monkeypatch.setenv("BANK_DATABASE__USER", "bank_owner")
    monkeypatch.setenv("BANK_DATABASE__PASSWORD", HOSTILE)
    monkeypatch.setenv("BANK_DEMO_PASSWORD", "not a setting")
    settings = load_settings()
    assert settings.database.user == "bank_owner"
    assert settings.database.name == "kept"
    assert settings.database.password.get_secret_value() == HOSTILE


@pytest.mark.parametrize("value", ['{"a": 1}', "[1]", "null", "5", "true", HOSTILE])
def test_any_text_can_be_a_secret(write, monkeypatch, value):
    path = write(GOOD + f"[redis]\npassword = {toml_text(value)}\n")
    monkeypatch.setenv("BANK_DATABASE__PASSWORD", value)
    settings = load_settings(path)
    assert settings.database.password.get_secret_value() == value
    assert settings.redis.password.get_secret_value() == value
    assert value == "5" or value not in repr(settings)


def test_unknown_key_in_the_environment_is_refused(write, monkeypatch):
    monkeypatch.setenv("BANK_DATABASE__PASWORD", SECRET)
    with pytest.raises(ConfigError, match=r"database\.pasword is not a known key") as caught:
        load_settings(write(GOOD))
    assert SECRET not in str(caught.value)


def check(path, *options):
    return CliRunner().invoke(main, ["check-config", *options], env={"BANK_CONFIG": str(path)})


def test_check_config(servers, owner, write):
    path = write(configuration_text(servers))
    assert check(path).exit_code == 0
    assert check(path, "--ready").output == "ready\n"


@pytest.mark.parametrize("section", ["redis", "prometheus"])
def test_check_config_names_a_file_that_cannot_be_read(servers, write, section):
    named = 'ca_certificate = "/no/ca.crt"\n[logging]'
    if section != "redis":
        named = f"[{section}]\n{named}"
    result = check(write(configuration_text(servers).replace("[logging]", named)))
    assert result.exit_code == 1
    assert (
        result.stderr
        == f"bank: {section}.ca_certificate names /no/ca.crt, which cannot be read: No such file or directory.\n"
    )


@pytest.mark.parametrize(
    ("find", "replace", "words"),
    [
        ("port = {postgres}", "port = 1", "database: "),
        ("port = {redis}", "port = 1", "redis: "),
        ('name = "bank"', 'name = "nothing"', "database: "),
        ('name = "bank"', 'name = "postgres"', "schema: has never been migrated"),
        ('user = "bank_app"', 'user = "bank_owner"', "database: "),
    ],
)
def test_check_config_ready_names_what_fails(servers, owner, write, find, replace, words):
    find = find.format(postgres=servers.postgres_port, redis=servers.redis_port)
    result = check(write(configuration_text(servers).replace(find, replace)), "--ready")
    assert result.exit_code == 1
    assert result.stderr.startswith(f"bank: not ready: {words}")
    assert result.stderr.count("\n") == 1
    for secret in (servers.app_password, servers.redis_password, servers.secret_key):
        assert secret not in result.output


def test_check_config_prints_one_sentence_for_a_bad_file(write):
    result = check(write("secret_key = 'short'"))
    assert result.exit_code == 1
    assert result.stderr.startswith("bank: Configuration ")
    assert result.stderr.count("\n") == 1
