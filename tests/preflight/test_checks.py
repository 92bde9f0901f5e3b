"""The judgements of preflight one by one, without hosts."""

from __future__ import annotations

import importlib.util
import secrets
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tests.preflight.conftest import PROJECT, Value


def load(path: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(
        "checked_" + path.rsplit("/", 1)[-1].removesuffix(".py"), PROJECT / path
    )
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


checks = load("plugins/filter/preflight_checks.py")
probe = load("roles/preflight/library/preflight_probe.py")
pki = load("tests/unit/pki.py")


@pytest.mark.parametrize(
    "value",
    [
        "changeme",
        "short-but-random",
        "password12345678",
        "ChangeMe-ChangeMe-ChangeMe",
        "Please change this password now!",
        "admin123admin123admin123",
        "aaaaaaaaaaaaaaaaaaaaaaaa",
        "zyzyzyzyzyzyzyzyzyzyzyzyzyzy",
        "bank-demo-secret-key-for-testing",
        "123456789012345678901234567890",
    ],
)
def test_weak_secrets_are_refused(value: str) -> None:
    assert checks.weakness(value, 17)


@pytest.mark.parametrize(
    "value", [" 'quoted\" $HOME `id` %d {{ 7 }} é", "Grüße aus Wien 1873, §5 Abs. 2", "correct-giraffe-battery-ladder"]
)
def test_odd_but_strong_secrets_are_accepted(value: str) -> None:
    assert not checks.weakness(value, 16)


def test_random_secrets_are_accepted() -> None:
    weak = [value for value in (secrets.token_urlsafe(12) for _ in range(2000)) if checks.weakness(value, 16)]
    assert not weak


@pytest.mark.parametrize(
    ("value", "spec", "words"),
    [
        ("abc", {"type": "int"}, "must be a whole number, but is the string"),
        (True, {"type": "int"}, "but is the boolean true"),
        ("maybe", {"type": "bool"}, "must be true or false"),
        ("a,b", {"type": "list", "elements": "str"}, "must be a list"),
        (["a", {}], {"type": "list", "elements": "str"}, "x[1] must be a string, but is a mapping"),
        ([], {"type": "str"}, "must be a string, but is a list"),
        ("c", {"type": "str", "choices": ["a", "b"]}, "must be one of a, b"),
        ({"nmae": "a"}, {"type": "dict", "options": {"name": {"type": "str"}}}, 'no key "nmae"; did you mean "name"'),
        (
            [{}],
            {"type": "list", "elements": "dict", "options": {"name": {"required": True}}},
            'x[0] lacks the key "name"',
        ),
        (
            [{"port": "x"}],
            {"type": "list", "elements": "dict", "options": {"port": {"type": "int"}}},
            "x[0].port must be a whole",
        ),
    ],
)
def test_wrong_values_are_told(value: Value, spec: dict[str, Any], words: str) -> None:
    assert words in checks.type_problem(value, spec, "x", secret=False)


@pytest.mark.parametrize(
    ("value", "spec"),
    [
        (5, {"type": "int"}),
        ("5", {"type": "int"}),
        (5, {"type": "str"}),
        ("yes", {"type": "bool"}),
        (None, {"type": "str"}),
        ([{"name": "a"}], {"type": "list", "elements": "dict", "options": {"name": {"type": "str", "required": True}}}),
        ({"any": 1}, {"type": "dict"}),
    ],
)
def test_right_values_pass(value: Value, spec: dict[str, Any]) -> None:
    assert not checks.type_problem(value, spec, "x", secret=False)


def test_secret_values_are_never_shown() -> None:
    spec = {"type": "list", "elements": "dict", "options": {"password": {"type": "int", "no_log": True}}}
    assert "hunter2" not in checks.type_problem([{"password": "hunter2"}], spec, "x", secret=False)


@pytest.mark.parametrize(
    ("name", "good"),
    [("bank.internal", True), ("a-b.c1.example", True), ("bad_name.com", False), ("-a.com", False), ("a..b", False)],
)
def test_domains(name: str, good: bool) -> None:
    assert bool(checks.DOMAIN.match(name)) is good


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({}, ""),
        ({"days": -1}, "cannot be used: it ended on"),
        ({"starts_in_days": 2}, "cannot be used: it is valid from"),
        ({"authority_days": -1}, "cannot be used: its authority CN=Site intermediate ended on"),
        ({"names": ["other.bank.internal"]}, "cannot be used: it lacks the name app1.bank.internal; order one"),
    ],
    ids=["good", "ended", "not yet valid", "authority ended", "another host's"],
)
def test_certificates_of_the_site_are_judged(tmp_path: Path, wrong: dict[str, Any], sentence: str) -> None:
    pki.supply(tmp_path, **{"names": ["*.bank.internal"], **wrong})
    found = checks.certificate_problem(tmp_path, "app1.bank.internal")
    assert found.startswith(sentence)
    assert bool(found) is bool(sentence)


def test_files_of_a_certificate_that_are_wrong_are_told(tmp_path: Path) -> None:
    pki.supply(tmp_path, ["*.bank.internal"])
    pki.supply(tmp_path / "other", ["*.bank.internal"])
    good = {name: (tmp_path / name).read_bytes() for name in ("tls.crt", "tls.key", "ca.crt")}
    chain = good["tls.crt"].split(b"-----END CERTIFICATE-----\n")[0] + b"-----END CERTIFICATE-----\n"
    vaulted = b"$ANSIBLE_VAULT;1.1;AES256\n6162\n"
    for name, content, sentence in (
        ("tls.key", (tmp_path / "other/tls.key").read_bytes(), "cannot be used: it does not belong to the private key"),
        ("tls.key", vaulted, ""),
        ("tls.crt", vaulted, ""),
        ("tls.crt", chain, "it was not issued by the authority; append the certificate of CN=Site intermediate to"),
        ("ca.crt", b"nonsense", "cannot be used: it holds no certificate in PEM"),
    ):
        (tmp_path / name).write_bytes(content)
        found = checks.certificate_problem(tmp_path, "app1.bank.internal")
        assert sentence in found
        assert bool(found) is bool(sentence)
        (tmp_path / name).write_bytes(good[name])
    (tmp_path / "ca.crt").unlink()
    found = checks.certificate_problem(tmp_path, "app1.bank.internal")
    assert found == "lacks ca.crt; put the files there, or remove the folder if no service uses it."


class Sockets:
    """Stands for the Ansible module when it asks systemd."""

    @staticmethod
    def run_command(_command: list[str]) -> tuple[int, str, str]:
        return 0, "[::]:9090 cockpit.socket cockpit.service\n/run/x.sock x.socket x.service\n", ""


def test_listeners_are_read() -> None:
    text = (
        'LISTEN 0 5 0.0.0.0:9090 0.0.0.0:* users:(("systemd",pid=1,fd=3)) ino:1 sk:1 cgroup:/init.scope <->\n'
        'LISTEN 0 5 [::1]:5432 [::]:* users:(("nobody-here",pid=999999999,fd=3))\n'
        "LISTEN 0 5 127.0.0.1:6379 0.0.0.0:* uid:999 ino:3 sk:1e cgroup:/system.slice/redis.service <->\n"
        "LISTEN 0 5 *:443 *:*\n"
    )
    found = [(row["port"], row["process"], row["unit"]) for row in probe.parse_listeners(Sockets, text)]
    assert found == [
        (443, "", ""),
        (5432, "nobody-here", ""),
        (6379, "", "redis.service"),
        (9090, "systemd", "cockpit.socket"),
    ]


def test_a_path_that_does_not_exist_counts_for_its_parent() -> None:
    assert probe.measure("/no/such/folder")["mount"] == "/"
    assert probe.measure("/no/such/folder")["size_mb"] > 0


def test_sizes_add_up_per_file_system() -> None:
    table = {"all": {"/var": 1}, "postgresql": {"/var/lib/pgsql": 2}, "redis": {"/var/lib/redis": 3}}
    assert checks.paths_of(table, ["postgresql"]) == ["/var", "/var/lib/pgsql"]
    assert checks.paths_of("nonsense", ["postgresql"]) == []
