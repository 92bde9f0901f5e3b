"""The lab's own machinery: a cache that notices damage, builds of what is asked for, and secrets that stay."""

import io
import os
import re
import stat
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import docker
import pytest
import yaml
from docker.models.containers import Container
from rich.console import Console

from lab import access, cache, cli, engine, hosts, mirror, secrets, settings
from lab.build import beats, elasticsearch, grafana, rpm
from lab.build.releases import prometheus, redis_exporter
from lab.build.rpm import upstream_version
from lab.cli import raise_kernel_limits, unit_states
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
    assert sum(value.endswith(secrets.HOSTILE) for value in hostile) == len(hostile) - len(secrets.PRINTABLE_ASCII)
    sent = first["vault_bank_webhook_secret"]
    assert sent.endswith(secrets.HOSTILE_ASCII) and sent.isascii() and " " not in sent


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
    assert redis_exporter("1.88.0").directory == "redis_exporter-v1.88.0.linux-amd64"


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
    assert {"prometheus", "bank_app", "redis"} <= roles_of()


def write_versions(project: Path, common: str, lab: str) -> None:
    """Write the two files that hold versions below a project's folder."""
    for name, text in (("group_vars/all/versions.yml", common), ("inventories/lab/group_vars/all/lab.yml", lab)):
        path = project / name
        path.parent.mkdir(parents=True)
        path.write_text(text, encoding="utf-8")


def test_a_version_may_follow_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    common = 'platform_version_elastic: 8.19.8\nplatform_version_beats: "{{ platform_version_elastic }}"\n'
    write_versions(tmp_path, common, 'platform_version_python: "3.11"\n')
    monkeypatch.setattr(settings, "PROJECT", tmp_path)
    assert settings.versions() == {"elastic": "8.19.8", "beats": "8.19.8", "python": "3.11"}


def test_the_lab_may_keep_a_version_that_follows_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    common = 'platform_version_elastic: 8.19.8\nplatform_version_beats: "{{ platform_version_elastic }}"\n'
    write_versions(tmp_path, common, "platform_version_beats: 9.0.0~dev\n")
    monkeypatch.setattr(settings, "PROJECT", tmp_path)
    assert settings.versions() == {"elastic": "8.19.8", "beats": "9.0.0~dev"}


def test_the_lab_knows_the_source_of_its_beats() -> None:
    assert settings.versions()["beats"] in beats.SOURCES
    assert set(beats.SUMMARIES) == set(mirror.BEATS)


def test_the_lab_chooses_a_grafana_that_it_can_build(tmp_path: Path) -> None:
    assert settings.versions()["grafana"] in grafana.SOURCES
    with pytest.raises(LabError, match=r"^The lab knows no source of Grafana 12\.4\.9.*set platform_version_grafana"):
        grafana.compile_server("12.4.9", tmp_path)


def test_a_beat_of_unknown_source_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(LabError, match=r"^The lab knows no source of filebeat 8\.19\.8.*set platform_version_beats"):
        beats.compile_beat("filebeat", "8.19.8", tmp_path / "filebeat")


@pytest.fixture
def prepared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Put names in the place of everything that ``mirror.prepare`` builds; return what was built, in order."""
    built: list[str] = []
    monkeypatch.setattr(mirror, "CACHE", tmp_path / "cache")

    def record(name: str) -> tuple[Path, bool]:
        built.append(name)
        return tmp_path, True

    monkeypatch.setattr(mirror, "install_build_tools", lambda roles: built.append(f"tools of {sorted(roles)}"))
    monkeypatch.setattr(rpm, "signing_key", lambda home: "key")
    monkeypatch.setattr(mirror, "build_image", lambda client: bool(record("image")))
    monkeypatch.setattr(mirror, "build_packages", lambda: record("packages"))
    monkeypatch.setattr(mirror, "build_bank", lambda: record("bank"))
    monkeypatch.setattr(mirror, "build_release", lambda release: record(release.name))
    monkeypatch.setattr(mirror, "build_for_vendor", lambda role, how, version: record(f"{role} {version}"))
    monkeypatch.setattr(mirror, "index", lambda vendor: record(f"index of {vendor}"))
    monkeypatch.setattr(mirror, "vendor_packages", lambda vendor: [])
    monkeypatch.setattr(mirror, "publish", lambda folders: tmp_path)
    monkeypatch.setattr(mirror, "start", lambda client, site: None)
    return built


@pytest.mark.parametrize(
    ("roles", "expected"),
    [
        ({"redis"}, {"tools of []", "image", "packages"}),
        (
            {"elasticsearch"},
            {"tools of ['elasticsearch']", "image", "packages", "elasticsearch 8.19.8", "index of elastic"},
        ),
        ({"filebeat"}, {"tools of ['filebeat']", "image", "packages", "filebeat 9.0.0~dev", "index of elastic"}),
        ({"kibana"}, {"tools of ['kibana']", "image", "packages", "kibana 8.19.8", "index of elastic"}),
        ({"grafana"}, {"tools of ['grafana']", "image", "packages", "grafana 10.0.0~preview", "index of grafana"}),
    ],
)
def test_of_the_vendors_packages_only_those_of_wanted_roles_are_built(
    prepared: list[str], monkeypatch: pytest.MonkeyPatch, roles: set[str], expected: set[str]
) -> None:
    chosen = {**settings.versions(), "elastic": "8.19.8", "beats": "9.0.0~dev", "grafana": "10.0.0~preview"}
    monkeypatch.setattr(mirror, "versions", lambda: chosen)
    progress = io.StringIO()
    assert mirror.prepare(SimpleNamespace(), Console(file=progress, width=120), roles)
    assert set(prepared) == expected
    # The metadata needs the packages.
    assert not [name for name in expected if "index" in name] or prepared[-1].startswith("index of ")
    for role in roles & {"elasticsearch", "filebeat"}:
        assert f"built  {role} " in progress.getvalue()


def add_package(folder: Path, name: str) -> None:
    """Put a package where a build of it would."""
    repository = folder / mirror.repository("elastic")
    repository.mkdir(parents=True, exist_ok=True)
    (repository / name).write_text(name, encoding="utf-8")


def test_metadata_is_written_again_when_a_package_joins_and_no_other_is_built(
    cache_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mirror, "CACHE", cache_folder)
    indexed: list[list[str]] = []

    def write(name: str, *command: str | Path) -> None:
        indexed.append(sorted(word.name for word in command if isinstance(word, Path) and word.suffix == ".rpm"))

    monkeypatch.setattr(mirror, "run_logged", write)
    server = cache.cached("elastic-elasticsearch", "a", lambda folder: add_package(folder, "server.rpm"))
    assert [mirror.index("elastic")[1], mirror.index("elastic")[1]] == [True, False]
    shipper = cache.cached("elastic-filebeat", "b", lambda folder: add_package(folder, "shipper.rpm"))
    assert mirror.index("elastic")[1]
    # A build that was cut off has no checksums yet.
    add_package(cache_folder / "elastic-packetbeat" / "c", "half.rpm")
    assert not mirror.index("elastic")[1]
    assert indexed == [["server.rpm"], ["server.rpm", "shipper.rpm"]]
    assert mirror.vendor_packages("elastic") == [server[0], shipper[0]]


def test_a_further_release_is_served_beside_the_current_one(
    cache_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    published: list[list[str]] = []
    monkeypatch.setattr(mirror, "CACHE", cache_folder)
    monkeypatch.setattr(mirror, "versions", lambda: {"elastic": "8.19.8"})
    monkeypatch.setattr(mirror, "install_build_tools", lambda roles: None)
    monkeypatch.setattr(mirror.rpm, "signing_key", lambda home: None)
    monkeypatch.setattr(mirror, "start", lambda client, site: None)
    monkeypatch.setattr(
        mirror,
        "publish",
        lambda folders: published.append(sorted(file.name for folder in folders for file in folder.rglob("*.rpm"))),
    )

    def write(name: str, *command: str | Path) -> None:
        if "--version" in command:
            add_package(Path(command[-1]).parents[2], f"{command[command.index('--version') + 1]}.rpm")

    monkeypatch.setattr(mirror, "run_logged", write)
    server = mirror.vendor_build("elasticsearch")
    assert server
    mirror.build_for_vendor("elasticsearch", server, "8.19.8")
    client = cast(docker.DockerClient, object())
    assert [mirror.add_release(client, "elasticsearch", "8.19.5") for _ in range(2)] == [True, False]
    assert published == [["8.19.5.rpm", "8.19.8.rpm"]] * 2
    assert mirror.build_for_vendor("elasticsearch", server, "8.19.8")[1] is False


@pytest.mark.parametrize(
    ("role", "version", "reason"),
    [
        ("filebeat", "8.19.5", "filebeat can be built in one release only"),
        ("redis", "7.0.0", "redis can be built in one release only"),
        ("elasticsearch", "8.19", "8.19 is no release of the Elastic stack"),
        ("elasticsearch", "../../8.19.5", "is no release of the Elastic stack"),
    ],
)
def test_a_further_release_that_cannot_be_built_is_refused(role: str, version: str, reason: str) -> None:
    with pytest.raises(LabError, match=reason):
        mirror.add_release(cast(docker.DockerClient, object()), role, version)


@pytest.mark.parametrize("installed", [True, False])
def test_hosts_are_removed_by_an_engine_that_has_to_be_started_first(
    installed: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    removed: list[object] = []
    monkeypatch.setattr(engine, "answers", lambda: False)
    monkeypatch.setattr(engine.shutil, "which", lambda program: f"/usr/sbin/{program}" if installed else None)
    monkeypatch.setattr(engine, "ensure", lambda: "engine")
    monkeypatch.setattr(hosts, "remove", removed.append)
    monkeypatch.setattr(mirror, "remove", removed.append)
    monkeypatch.setattr(cli, "STATE", tmp_path / "state")
    cli.STATE.mkdir()
    cli.clean(Console(file=io.StringIO()))
    assert removed == (["engine", "engine"] if installed else [])
    assert not cli.STATE.exists()


def test_missing_build_tools_are_installed_by_role(monkeypatch: pytest.MonkeyPatch) -> None:
    installed: list[tuple[str, ...]] = []
    monkeypatch.setattr(engine, "apt_install", lambda *packages: installed.append(packages))
    monkeypatch.setattr(mirror.shutil, "which", lambda tool: None if tool == "mvn" else f"/usr/bin/{tool}")
    mirror.install_build_tools(set())
    assert installed == []
    mirror.install_build_tools({"elasticsearch"})
    assert installed == [("maven",)]


def test_text_that_a_new_version_lost_is_named(tmp_path: Path) -> None:
    file = tmp_path / "jvm.options"
    file.write_text("-XX:+UseG1GC\n", encoding="utf-8")
    elasticsearch.replace(file, ("UseG1GC", "UseZGC"))
    assert file.read_text(encoding="utf-8") == "-XX:+UseZGC\n"
    with pytest.raises(ValueError, match=r"jvm\.options: 'UseG1GC' is not in it"):
        elasticsearch.replace(file, ("UseZGC", "UseParallelGC"), ("UseG1GC", "UseZGC"))
    assert file.read_text(encoding="utf-8") == "-XX:+UseZGC\n"


def kernel(folder: Path, monkeypatch: pytest.MonkeyPatch, present: dict[str, str]) -> dict[str, Path]:
    """Make the kernel's files of the limits in a folder; return them by name."""
    monkeypatch.setattr(engine, "KERNEL_SETTINGS", folder)
    files = {limit.name: folder / limit.name.replace(".", "/") for limit in engine.KERNEL_LIMITS}
    for name, file in files.items():
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(present.get(name, "99999999\n"), encoding="ascii")
    return files


@pytest.mark.parametrize(
    ("name", "present", "expected"),
    [
        ("vm.max_map_count", "65530\n", "262144"),
        ("vm.max_map_count", "1048576\n", "1048576\n"),
        ("fs.inotify.max_user_instances", "128\n", "1024"),
        ("fs.inotify.max_user_instances", "8192\n", "8192\n"),
    ],
)
def test_kernel_limits_are_raised_and_never_lowered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, present: str, expected: str
) -> None:
    files = kernel(tmp_path, monkeypatch, {name: present})
    raise_kernel_limits(Console(file=io.StringIO()), {"elasticsearch"}, is_needed=True)
    assert files.pop(name).read_text(encoding="ascii") == expected
    assert {file.read_text(encoding="ascii") for file in files.values()} == {"99999999\n"}


def test_kernel_limit_of_a_role_that_does_not_run_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = kernel(tmp_path, monkeypatch, {"vm.max_map_count": "65530\n"})["vm.max_map_count"]
    raise_kernel_limits(Console(file=io.StringIO()), {"redis"}, is_needed=True)
    assert file.read_text(encoding="ascii") == "65530\n"


@pytest.mark.parametrize(
    ("name", "is_needed", "is_refused"),
    [
        ("vm.max_map_count", True, True),
        ("vm.max_map_count", False, False),
        ("fs.inotify.max_user_instances", True, False),
    ],
)
def test_kernel_limit_that_may_not_be_raised_is_named_with_the_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, is_needed: bool, is_refused: bool
) -> None:
    kernel(tmp_path, monkeypatch, {name: "100\n"})

    def refuse(self: Path, text: str, encoding: str) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "write_text", refuse)
    shown = Console(file=io.StringIO(), width=600)
    words = rf"this machine has 100.*\(Permission denied\).*sysctl -w {re.escape(name)}="
    if is_refused:
        with pytest.raises(LabError, match=words):
            raise_kernel_limits(shown, {"elasticsearch"}, is_needed=is_needed)
    else:
        raise_kernel_limits(shown, {"elasticsearch"}, is_needed=is_needed)
        assert re.search(words, shown.file.getvalue())


class HostWithKey:
    """A container whose file with the host's key reads differently each time, the last answer for ever."""

    name = "bank-lab-app1"

    def __init__(self, *answers: str) -> None:
        self.answers = list(answers)

    def exec_run(self, _words: list[str]) -> SimpleNamespace:
        """Answer with the next text."""
        text = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        return SimpleNamespace(exit_code=0, output=text.encode())


HOST_KEY = "ssh-ed25519 " + "A" * 68


@pytest.mark.parametrize("first", ["", "useradd: warning: the home directory exists", HOST_KEY[:-20]])
def test_a_half_written_host_key_is_read_again(first: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(access.time, "sleep", lambda _seconds: None)
    container = cast(Container, HostWithKey(first, f"{HOST_KEY} root@app1\n"))
    assert access.host_key(container) == HOST_KEY


def test_a_host_without_a_key_of_its_own_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(access, "HOST_KEY_SECONDS", 0)
    with pytest.raises(LabError, match=r"bank-lab-app1 has no SSH key of its own.*is empty"):
        access.host_key(cast(Container, HostWithKey("")))
