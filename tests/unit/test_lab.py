"""The lab's own machinery: a cache that notices damage, and secrets that stay as they are."""

import os
import stat
from pathlib import Path

import pytest
import yaml
from docker.models.containers import Container

from lab import cache, engine, hosts, secrets
from lab.build.packages import upstream_version
from lab.build.releases import prometheus
from lab.cli import unit_states
from lab.settings import LabError, roles_of


@pytest.fixture(autouse=True)
def cache_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Keep the cache of this test to itself."""
    monkeypatch.setattr(cache, "CACHE", tmp_path / "cache")
    return tmp_path / "cache"


class Build:
    """A build that counts how often it ran."""

    def __init__(self) -> None:
        self.runs = 0

    def __call__(self, directory: Path) -> None:
        """Write the product."""
        self.runs += 1
        (directory / "product").write_text("good", encoding="utf-8")


def test_an_unchanged_build_is_made_once() -> None:
    build = Build()
    assert cache.cached("x", "abc", build)[1] is True
    assert cache.cached("x", "abc", build)[1] is False
    assert build.runs == 1


@pytest.mark.parametrize("damage", ["changed", "removed", "added"])
def test_a_damaged_build_is_made_again(damage: str) -> None:
    build = Build()
    directory, _ = cache.cached("x", "abc", build)
    product = directory / "product"
    if damage == "changed":
        product.write_text("goof", encoding="utf-8")
    elif damage == "removed":
        product.unlink()
    else:
        (directory / "stranger").touch()
    assert cache.cached("x", "abc", build) == (directory, True)
    assert product.read_text(encoding="utf-8") == "good"
    assert not (directory / "stranger").exists()


def test_a_build_that_was_cut_off_is_made_again() -> None:
    def cut_off(directory: Path) -> None:
        (directory / "half").touch()
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cache.cached("x", "abc", cut_off)
    directory, built = cache.cached("x", "abc", Build())
    assert built
    assert not (directory / "half").exists()


def test_new_content_replaces_the_old_build(cache_folder: Path) -> None:
    cache.cached("x", "old", Build())
    cache.cached("x", "new", Build())
    assert [folder.name for folder in (cache_folder / "x").iterdir()] == ["new"]


def test_the_digest_follows_content_and_names(tmp_path: Path) -> None:
    folder = tmp_path / "source"
    folder.mkdir()
    (folder / "a").write_text("1", encoding="utf-8")
    first = cache.digest_of([folder])
    assert cache.digest_of([folder]) == first
    assert cache.digest_of([folder], "other") != first
    (folder / "a").rename(folder / "b")
    assert cache.digest_of([folder]) != first


def test_secrets_are_made_once_and_readable_by_their_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "state" / "secrets.yml"
    first = secrets.ensure_file(path, {"vault_bank_demo_password"})
    assert secrets.ensure_file(path, {"vault_bank_demo_password"}) == first
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert len(set(first.values())) == len(first)
    assert first["vault_bank_demo_password"].isalnum()
    hostile = [value for name, value in first.items() if name != "vault_bank_demo_password"]
    assert sum(value.endswith(secrets.HOSTILE) for value in hostile) == len(hostile) - len(secrets.SENT_IN_HEADERS)
    sent = first["vault_bank_webhook_secret"]
    assert sent.endswith(secrets.HOSTILE_IN_HEADERS) and sent.isascii() and " " not in sent


def test_secrets_are_never_templated(tmp_path: Path) -> None:
    path = tmp_path / "secrets.yml"
    secrets.ensure_file(path, set())
    tags = {type(node).__name__: node.tag for _, node in yaml.compose(path.read_text(encoding="utf-8")).value}
    assert set(tags.values()) == {"!unsafe"}


def test_a_new_secret_joins_those_that_exist(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "secrets.yml"
    first = secrets.ensure_file(path, set())
    monkeypatch.setattr(secrets, "names", lambda: [*first, "vault_new"])
    second = secrets.ensure_file(path, set())
    assert {name: second[name] for name in first} == first
    assert second["vault_new"]


def test_versions_are_named_as_their_projects_name_them() -> None:
    assert upstream_version("5:7.0.15-1~deb12u10") == "7.0.15"
    assert prometheus("3.13.3").module_version == "v0.313.3"
    assert prometheus("3.13.3").directory == "prometheus-3.13.3.linux-amd64"


def test_a_service_that_is_not_active_stands_out() -> None:
    answer = (
        "Id=bank.service\nActiveState=failed\nLoadState=loaded\n\n"
        "Id=redis.service\nActiveState=inactive\nLoadState=not-found\n\n"
        "Id=haproxy.service\nActiveState=active\nLoadState=loaded\n"
    )
    assert unit_states(answer) == "[red]bank (failed)[/red] haproxy"


@pytest.mark.parametrize(
    ("number", "program", "kept"),
    [(os.getpid(), "dockerd", False), (2**22 + 1, "dockerd", False), (os.getpid(), None, True)],
)
def test_a_note_of_a_process_that_is_gone_or_another_is_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, program: str | None, kept: bool
) -> None:
    note = tmp_path / "docker.pid"
    note.write_text(str(number), encoding="utf-8")
    own = Path("/proc/self/comm").read_text(encoding="utf-8").strip()
    monkeypatch.setattr(engine, "PROCESS_FILES", {note: program or own})
    engine.forget_dead_processes()
    assert note.exists() == kept


def test_hosts_of_another_working_copy_are_named_and_refused() -> None:
    own, other, unlabelled = (
        Container(attrs={"Config": {"Labels": labels}})
        for labels in ({hosts.OWNER_LABEL: "a"}, {hosts.OWNER_LABEL: "b"}, {})
    )
    hosts.refuse_foreign({"lab-app1": own}, "a")
    with pytest.raises(LabError, match=r"^lab-db1, lab-lb1: made from another working copy"):
        hosts.refuse_foreign({"lab-app1": own, "lab-lb1": unlabelled, "lab-db1": other}, "a")


def test_only_what_the_inventory_asks_for_is_built() -> None:
    assert {"node_exporter", "bank_app"} <= roles_of({"bank_app"})
    assert "prometheus" not in roles_of({"bank_app"})
    assert {"prometheus", "node_exporter"} <= roles_of({"prometheus"})
