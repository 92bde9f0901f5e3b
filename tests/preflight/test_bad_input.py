"""Bad input stops in preflight with one sentence that names the culprit and the remedy, and changes nothing."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from docker.models.containers import Container

from tests.preflight.conftest import GROUPS, PROJECT, UNREACHABLE, Run, expect, good_secrets, parse, reach, site
from tests.preflight.test_checks import pki

MIRROR = {"package_source": "mirror", "package_mirror_url": "http://mirror:8080"}
# Ansible itself writes there while it works on a host.
ANSIBLE_OWN = ("/root/.ansible", "/tmp", "/run", "/var/tmp", "/var/log", "/root", "/var", "/var/lib/systemd")


def changes_of(container: Container) -> set[str]:
    """Every path that differs from the image, except where Ansible and the journal write."""
    found = {change["Path"] for change in container.diff() or []}
    return {path for path in found if not path.startswith(ANSIBLE_OWN[:5]) and path not in ANSIBLE_OWN}


def everywhere(host: str) -> dict[str, list[str]]:
    return {group: [host] for group in GROUPS}


def test_a_good_host_passes_and_stays_as_it_is(preflight: Callable[..., Run], good_host: Container) -> None:
    before = changes_of(good_host)
    run = preflight(site({"single1": reach(good_host)}, everywhere("single1"), **MIRROR, **good_secrets()))
    assert run.code == 0, run.output[-3000:]
    assert run.tasks["Change a file"] == 1, "the next play must run"
    assert run.changed == 1
    assert good_host.exec_run(["rm", "/root/was-changed"]).exit_code == 0
    assert changes_of(good_host) == before
    on_host = [
        name
        for name in run.tasks
        if name.startswith("preflight : ") and name.split(" : ")[1].startswith(("Gather", "Look at ports"))
    ]
    assert len(on_host) == 2, "every site run pays for each task on each host"


def test_bad_inventory(preflight: Callable[..., Run], tmp_path: Path) -> None:
    """Nothing here can be reached, and still everything that the inventory gets wrong is told."""
    ended = tmp_path / "certificates/db1/postgresql"
    pki.supply(ended, ["db1.bank.internal"], days=-1)
    pki.supply(tmp_path / "certificates/db1/redis", ["*.bank.internal"])
    values = good_secrets()
    del values["vault_redis_bank_password"]
    values["vault_bank_secret_key"] = values["vault_bank_secret_key"][:20]
    values["vault_certificates_authority_passphrase"] = "Please-Change-Me-123456"
    values["vault_prometheus_web_password"] = values["vault_haproxy_stats_password"]
    hosts = {
        "app1": UNREACHABLE,
        "db1": UNREACHABLE
        | {
            "postgresql_max_conections": 10,
            "platform_fqdn": "db1.bank.internal",
            "certificates_source": "site",
            "certificates_site_directory": str(tmp_path / "certificates"),
        },
        "db2": UNREACHABLE | {"certificates_source": "site"},
        "mon1": UNREACHABLE | {"platform_version_elastic": "8.19.5", "kibana_version": "8.18.0"},
    }
    groups = {
        "bank_app": ["app1"],
        "postgresql": ["db1", "db2"],
        "redis": [],
        "load_balancers": ["app1"],
        "elasticsearch": ["mon1"],
        "prometheus": ["mon1"],
    }
    run = preflight(
        site(
            hosts,
            groups,
            **values,
            package_source="mirror",
            package_mirror_url="mirror.example.com",
            platform_port_prometheus="nine thousand",
            platform_domain="not a domain",
            preflight_supported_releases="9",
            vault_bank_databse_password="a-misspelt-secret-value",
        )
    )
    unreachable = [
        ("Host", name, "127.0.0.1", "cannot be reached", "ansible_host", f"decommission_host={name}") for name in hosts
    ]
    expect(
        run,
        *unreachable,
        ('Group "postgresql"', "db1, db2", "keep 1"),
        ('Group "redis" is empty', "put a host into it"),
        ('Group "load_balancer" is empty', "put a host into it"),
        ('Group "load_balancers" is unknown', 'did you mean "load_balancer"?'),
        ('Variable "postgresql_max_conections"', "hosts.yml", 'did you mean "postgresql_max_connections"?'),
        ('Variable "vault_bank_databse_password"', 'did you mean "vault_bank_database_password"?'),
        ('Variable "platform_port_prometheus"', "whole number", "nine thousand", "correct it"),
        ('Variable "platform_domain"', "domain name", "not a domain", "correct it"),
        ('Variable "preflight_supported_releases"', "must be a list", "correct it"),
        ('Variable "package_mirror_url"', "http", "mirror.example.com", "correct it"),
        (f"The certificate in {ended} cannot be used: it ended on", "put its successor there"),
        ('Variable "kibana_version" is 8.18.0', "8.19.5", "take kibana_version out of the inventory"),
        ("different releases of the Elastic stack", "8.19.5 on mon1", "app1, db1, db2", "once for all of them"),
        ('Secret "vault_redis_bank_password" is missing', "roles bank_app and redis need it", "ansible-vault edit"),
        ('Secret "vault_bank_secret_key" has 20 characters', "at least 32", "ansible-vault edit"),
        ('Secret "vault_certificates_authority_passphrase" is a well-known default', "ansible-vault edit"),
        # Metricbeat reads the load balancer's page, and every site has a load balancer.
        ('"vault_haproxy_stats_password" and "vault_prometheus_web_password" have the same value', "set a random one"),
    )
    told = "\n".join(run.findings)
    assert not [name for name, value in values.items() if value in told], "a secret was shown"


@pytest.mark.parametrize("name", ["example", "example-ha"])
def test_examples_lack_secrets_and_hosts_only(name: str) -> None:
    """Whoever starts from an example has to fill in what only they can know, and nothing else."""
    nowhere = UNREACHABLE | {"preflight_test_hosts": "none"}
    command = ["ansible-playbook", "-i", f"inventories/{name}", "playbooks/preflight.yml", "-e", json.dumps(nowhere)]
    env = {**os.environ, "ANSIBLE_STDOUT_CALLBACK": "ansible.posix.json"}
    run = parse(subprocess.run(command, cwd=PROJECT, env=env, capture_output=True, text=True, check=False))
    own = [finding for finding in run.findings if 'Variable "preflight_test_hosts"' in finding]
    secrets = [
        finding for finding in run.findings if finding.startswith("Secret ") and " is missing, but role" in finding
    ]
    down = [finding for finding in run.findings if "cannot be reached" in finding]
    assert own, "names that nothing reads are found"
    assert {finding.split('"')[1] for finding in secrets} == set(good_secrets()) - {"vault_bank_demo_password"}
    inventory = (PROJECT / "inventories" / name / "hosts.yml").read_text(encoding="utf-8")
    assert len(down) == len({line.strip() for line in inventory.splitlines() if line.endswith(".example.com:")})
    assert set(run.findings) == {*own, *secrets, *down}


def test_bad_hosts(preflight: Callable[..., Run], good_host: Container, old_host: Container) -> None:
    """Hosts that are too small, too old, taken or cut off from the mirror, and one that is down."""
    values = good_secrets()
    values["vault_prometheus_web_password"] = values["vault_haproxy_stats_password"]
    good_host.exec_run(["python3", "-m", "http.server", "9090"], detach=True)
    before = changes_of(good_host)
    too_small = {
        "preflight_minimum_memory_mb": {"all": 512, "postgresql": 99_999_999},
        "preflight_minimum_disk_mb": {"postgresql": {"/var/lib/pgsql": 99_999_999}, "redis": {"/var/lib/redis": 1}},
    }
    hosts = {
        "single1": reach(good_host) | too_small | {"package_mirror_url": "http://mirror:1", "bank_app_port": 443},
        "old1": reach(old_host) | {"preflight_minimum_free_mb": 99_999_999},
        "down1": UNREACHABLE,
    }
    groups = everywhere("single1") | {"bank_app": ["single1", "old1", "down1"]}
    run = preflight(site(hosts, groups, **{**MIRROR, **values}))
    expect(
        run,
        ('Host "single1"', "MiB of memory", "100000511", "postgresql 99999999", "preflight_minimum_memory_mb"),
        ("File system", "single1", "/var/lib/pgsql", "100000000", "preflight_minimum_disk_mb"),
        ('Port 9090 of host "single1"', "prometheus_port", "python3", "pid", "stop that process"),
        ('Port 443 of host "single1"', "bank_app_port", "haproxy_https_port", "another port"),
        ("Package mirror http://mirror:1", "package_mirror_url", "refused", "start or fill the mirror"),
        (
            'Secrets "vault_haproxy_stats_password" and "vault_prometheus_web_password" have the same value',
            "ansible-vault edit",
        ),
        ('Host "old1" runs RedHat 8.10', "not supported", "9 or 10"),
        ("File system", "old1", "MiB free", "99999999", "preflight_minimum_free_mb"),
        ('Host "down1"', "cannot be reached", "decommission_host=down1"),
    )
    assert good_host.exec_run(["test", "-e", "/root/was-changed"]).exit_code != 0
    assert changes_of(good_host) == before


def test_mirror_without_packages_and_no_root(preflight: Callable[..., Run], good_host: Container) -> None:
    """A web server that answers, but serves something else; and an account that may change nothing."""
    url = {"package_source": "mirror", "package_mirror_url": "http://mirror:8080/elsewhere"}
    nobody = {"ansible_user": "nobody", "ansible_remote_tmp": "/tmp/.ansible-nobody"}
    good_host.exec_run(["pkill", "-f", "http.server 9090"])
    run = preflight(site({"single1": reach(good_host) | nobody}, everywhere("single1"), **url, **good_secrets()))
    expect(
        run,
        ("Package mirror http://mirror:8080/elsewhere", "package_mirror_url", "404", "start or fill the mirror"),
        ('Tasks on host "single1" do not run as root', "ansible_become: true"),
    )


def test_settings_of_the_project_not_in_effect(
    preflight: Callable[..., Run], good_host: Container, tmp_path: Path
) -> None:
    settings = tmp_path / "ansible.cfg"
    settings.write_text("[defaults]\nnocows = true\n", encoding="utf-8")
    run = preflight(
        site({"single1": reach(good_host)}, everywhere("single1"), **good_secrets()),
        {"ANSIBLE_CONFIG": str(settings), "ANSIBLE_ROLES_PATH": "roles"},
    )
    assert run.code != 0
    assert "The project's ansible.cfg is not in effect" in run.output
    assert "unset ANSIBLE_CONFIG" in run.output
    assert "Change a file" not in run.tasks


@pytest.fixture(autouse=True)
def ansible_is_quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANSIBLE_NOCOLOR", "1")
    monkeypatch.delenv("ANSIBLE_FORCE_COLOR", raising=False)
