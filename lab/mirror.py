"""The lab's software: what has to be built, built side by side, and the mirror that serves it."""

import os
import re
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import docker
from docker.errors import ImageNotFound, NotFound
from rich.console import Console
from rich.live import Live
from rich.table import Table

from lab import engine
from lab.build import go_release, rpm
from lab.build.go_release import GoRelease
from lab.build.releases import RELEASES, logstash_config
from lab.cache import CHECKSUMS, cached, digest_of, locked
from lab.settings import (
    CACHE,
    HOST_IMAGE,
    LABEL,
    MIRROR,
    MIRROR_PORT,
    PROJECT,
    LabError,
    versions,
)

BUILD = PROJECT / "lab" / "build"
APP = PROJECT / "app"
KEY_HOME = CACHE / "signing-key"
# Vendors who publish their packages in a repository of their own; so does the mirror.
VENDORS = ("elastic", "grafana")
MAINTENANCE = "elasticsearch_maintenance"
BEATS = ("filebeat", "metricbeat", "packetbeat")
# Products that no package registry carries.
STANDINS = ("logstash", "kibana", "apm_server")
IMAGE_CHANGES = ['CMD ["/lib/systemd/systemd"]', "ENV container=docker"]


def run_logged(name: str, *command: str | Path) -> None:
    """Run one build command with its output in a log.

    Raises:
        LabError: it failed; the text names the log.
    """
    log = CACHE / f"{name}.log"
    with log.open("w") as stream:
        words = [str(word) for word in command]
        if subprocess.run(words, cwd=PROJECT, stdout=stream, stderr=stream, check=False).returncode:
            raise LabError(f"Building {name} failed; the reason is at the end of {log}.")


def build_image(client: docker.DockerClient) -> bool:
    """Make the host image current; return whether it had to be built or loaded."""
    digest = digest_of([BUILD / "host_image.py", BUILD / "image"])

    def build(directory: Path) -> None:
        output = directory / "host.tar"
        run_logged("host image", sys.executable, "-m", "lab.build.host_image", "--output", output)

    with locked("image-load"):
        try:
            if client.images.get(HOST_IMAGE).labels.get(LABEL) == digest:
                return False
        except ImageNotFound:
            pass
        directory, _ = cached("image", digest, build)
        repository, tag = HOST_IMAGE.split(":")
        changes = [*IMAGE_CHANGES, f"LABEL {LABEL}={digest}"]
        client.api.import_image_from_file(str(directory / "host.tar"), repository=repository, tag=tag, changes=changes)
        return True


def build_packages() -> tuple[Path, bool]:
    """Return the folder of the RPM repository."""
    digest = digest_of([BUILD / "rpm.py", BUILD / "packages.py", BUILD / "packages"])

    def build(directory: Path) -> None:
        module = ("-m", "lab.build.packages", "--output", directory / "rpm", "--key-home", KEY_HOME)
        run_logged("packages", sys.executable, *module)

    return cached("packages", digest, build)


@dataclass(frozen=True)
class VendorBuild:
    """How the package of one role is made, which a vendor publishes in a repository of its own."""

    module: str
    sources: tuple[Path, ...]
    options: tuple[str, ...] = ()
    # Name of its release in ``versions()``.
    release: str = "elastic"
    is_standin: bool = False
    vendor: str = "elastic"


def vendor_build(role: str) -> VendorBuild | None:
    """Return how the package of a role is made, or nothing if no vendor publishes it."""
    if role == "elasticsearch":
        return VendorBuild("lab.build.elasticsearch", (BUILD / "elasticsearch.py", BUILD / "elasticsearch"))
    if role in BEATS:
        sources = (BUILD / "go.py", BUILD / "beats.py", BUILD / "beats")
        return VendorBuild("lab.build.beats", sources, ("--beat", role), release="beats")
    if role in STANDINS:
        folder = BUILD / "standins"
        sources = (folder / "__init__.py", folder / "build.py", folder / "shared.py", folder / role)
        return VendorBuild("lab.build.standins.build", sources, ("--product", role), is_standin=True)
    if role == "grafana":
        sources = (BUILD / "go.py", BUILD / "grafana.py", BUILD / "grafana")
        return VendorBuild("lab.build.grafana", sources, release="grafana", vendor="grafana")
    return None


def repository(vendor: str) -> Path:
    """Return where the mirror serves the packages of a vendor."""
    return Path("rpm", vendor, rpm.ARCHITECTURE)


def build_for_vendor(role: str, how: VendorBuild, version: str) -> tuple[Path, bool]:
    """Return the folder that holds the package of one role."""
    # A further release has a folder of its own: the current one would take its place otherwise.
    name = role if version == versions()[how.release] else f"{role}-{version}"
    sources: list[Path] = [BUILD / "rpm.py", *how.sources]
    options: list[str | Path] = [*how.options, "--version", version, "--key-home", KEY_HOME]
    if role == "logstash":
        # Its stand-in reads pipelines with a real parser.
        parser, _ = build_release(logstash_config())
        sources.append(parser / CHECKSUMS)
        options += ["--parser", next(parser.rglob("*.tar.gz"))]

    def build(directory: Path) -> None:
        run_logged(name, sys.executable, "-m", how.module, *options, "--output", directory / repository(how.vendor))

    return cached(f"{how.vendor}-{name}", digest_of(sources, *how.options[1:], version), build)


def vendor_packages(vendor: str) -> list[Path]:
    """Return the folders of every package of a vendor that was built whole, whoever asked for it."""
    listings = sorted(CACHE.glob(f"{vendor}-*/*/{CHECKSUMS}"))
    return [listing.parent for listing in listings if any((listing.parent / repository(vendor)).glob("*.rpm"))]


def index(vendor: str) -> tuple[Path, bool]:
    """Return the folder of the signed metadata over the packages of a vendor."""
    folders = vendor_packages(vendor)
    contents = [(folder / CHECKSUMS).read_text(encoding="utf-8") for folder in folders]

    def build(directory: Path) -> None:
        packages = [package for folder in folders for package in (folder / repository(vendor)).glob("*.rpm")]
        options = ("--output", directory / repository(vendor), "--key-home", KEY_HOME)
        run_logged(f"{vendor}-repository", sys.executable, "-m", "lab.build.rpm", *options, *packages)

    return cached(f"{vendor}-repository", digest_of([BUILD / "rpm.py"], *contents), build)


def build_release(release: GoRelease) -> tuple[Path, bool]:
    """Return the folder that holds the archive of one Go release."""
    digest = digest_of([BUILD / "go_release.py"], release.recipe)
    return cached(f"release-{release.name}", digest, lambda directory: go_release.build(release, directory))


def build_bank() -> tuple[Path, bool]:
    """Return the folder that holds the release archive of the bank application."""
    chosen = versions()
    sources = [APP / "src", APP / "pyproject.toml", APP / "requirements.lock", APP / "build_release.py"]
    digest = digest_of(sources, chosen["bank"], chosen["python"])

    def build(directory: Path) -> None:
        output = directory / "bank" / chosen["bank"]
        options = ("--output", output, "--version", chosen["bank"], "--python", chosen["python"])
        run_logged("bank", sys.executable, APP / "build_release.py", *options)

    return cached("release-bank", digest, build)


def build_maintenance() -> tuple[Path, bool]:
    """Return the folder that holds the archive of the job that maintains Elasticsearch."""
    version = versions()[MAINTENANCE]
    source = PROJECT / "roles" / MAINTENANCE / "release"

    def build(directory: Path) -> None:
        options = ("--output", directory / MAINTENANCE / version, "--version", version)
        run_logged(MAINTENANCE, sys.executable, source / "build_release.py", *options)

    return cached(f"release-{MAINTENANCE}", digest_of([source], version), build)


class Progress:
    """A table of builds with their state and seconds, redrawn while they run."""

    def __init__(self, console: Console, names: list[str]) -> None:
        """Start with every build waiting."""
        self._console = console
        self._lock = threading.Lock()
        self._states = dict.fromkeys(names, ("waiting", 0.0, 0.0))

    def step(self, name: str, state: str) -> None:
        """Record that a build has begun or ended."""
        with self._lock:
            _, begun, _ = self._states[name]
            now = time.monotonic()
            self._states[name] = (state, now if state == "running" else begun, now)
        if state in ("built", "failed"):
            self._console.print(f"{state}  {name}  {now - begun:.0f} s", highlight=False)

    def __rich__(self) -> Table:
        """Draw the current state."""
        table = Table("build", "state", "seconds", box=None)
        for name, (state, begun, ended) in self._states.items():
            seconds = (time.monotonic() if state == "running" else ended) - begun
            table.add_row(name, state, f"{seconds:.0f}" if begun else "")
        return table


def prepare(client: docker.DockerClient, console: Console, roles: set[str]) -> bool:
    """Build what is missing, side by side, and start the mirror; return whether anything was built.

    Only what ``roles`` install is built. What was built before stays in the mirror.

    Raises:
        LabError: a build failed.
    """
    chosen = versions()
    packages: dict[str, tuple[str, Callable[[], tuple[Path, bool]]]] = {}
    vendors: set[str] = set()
    for role in sorted(roles):
        if how := vendor_build(role):
            version = chosen[how.release]
            shown = f"stand-in {version}" if how.is_standin else version
            packages[role] = (shown, lambda role=role, how=how, version=version: build_for_vendor(role, how, version))
            vendors.add(how.vendor)
    install_build_tools(set(packages))
    with locked("signing-key"):
        # Builds that begin at the same time would make one each.
        rpm.signing_key(KEY_HOME)
    go_releases = [recipe(chosen[role]) for role, recipe in RELEASES.items() if role in roles]
    # What only waits for downloads first: the Go compiler then uses every core it finds.
    jobs: dict[str, Callable[[], tuple[Path, bool] | bool]] = {
        "RPM packages": build_packages,
        "host image": lambda: build_image(client),
    }
    jobs |= {f"{role} {version}": build for role, (version, build) in packages.items()}
    for release in go_releases:
        jobs[f"{release.name} {release.version}"] = lambda release=release: build_release(release)
    if MAINTENANCE in roles:
        jobs[f"{MAINTENANCE} {chosen[MAINTENANCE]}"] = build_maintenance
    if "bank_app" in roles:
        jobs[f"bank {chosen['bank']}"] = build_bank
    indexes = {f"{vendor} repository": lambda vendor=vendor: index(vendor) for vendor in VENDORS if vendor in vendors}
    progress = Progress(console, [*jobs, *indexes])

    def work(name: str) -> tuple[Path, bool] | bool:
        progress.step(name, "running")
        try:
            result = {**jobs, **indexes}[name]()
        except BaseException:
            progress.step(name, "failed")
            raise
        built = result if isinstance(result, bool) else result[1]
        progress.step(name, "built" if built else "cached")
        return result

    with Live(progress, console=console, refresh_per_second=2, transient=True):
        with ThreadPoolExecutor(max_workers=3) as pool:
            futures = {name: pool.submit(work, name) for name in jobs}
        results = {name: future.result() for name, future in futures.items()}
        results |= {name: work(name) for name in indexes}
    folders = [result[0] for result in results.values() if not isinstance(result, bool)]
    for vendor in vendors:
        # The metadata names those of earlier runs, too.
        folders += [folder for folder in vendor_packages(vendor) if folder not in folders]
    start(client, publish(folders))
    return any(result if isinstance(result, bool) else result[1] for result in results.values())


def add_release(client: docker.DockerClient, role: str, version: str) -> bool:
    """Build a further release of an Elastic product and serve it beside the current one; return whether it was built.

    Raises:
        LabError: the role is of no product that can be built in several releases, or the build failed.
    """
    how = vendor_build(role)
    if how is None or how.release != "elastic":
        raise LabError(
            f"{role} can be built in one release only; those of several: elasticsearch, {', '.join(STANDINS)}."
        )
    if not re.fullmatch(r"\d+\.\d+\.\d+", version):
        raise LabError(f"{version} is no release of the Elastic stack: give one like 8.19.5.")
    install_build_tools({role})
    with locked("signing-key"):
        rpm.signing_key(KEY_HOME)
    _, is_built = build_for_vendor(role, how, version)
    metadata, _ = index(how.vendor)
    start(client, publish([metadata, *vendor_packages(how.vendor)]))
    return is_built


# Program, or file: the Debian package that brings it.
TOOLS = {
    "mmdebstrap": "mmdebstrap",
    "rpmbuild": "rpm",
    "rpmsign": "rpm",
    "createrepo_c": "createrepo-c",
    "gpg": "gnupg",
}
COMPILER = {"gcc": "gcc", "/usr/include/stdio.h": "libc6-dev"}
# Further ones that the build for one role calls.
ROLE_TOOLS = {
    "elasticsearch": {"mvn": "maven", "javac": "openjdk-17-jdk-headless", **COMPILER},
    "packetbeat": {"/usr/include/pcap/pcap.h": "libpcap-dev", **COMPILER},
    "grafana": COMPILER,
}


def install_build_tools(roles: set[str]) -> None:
    """Install the Debian tools that the builds for ``roles`` call, where they are missing."""
    tools = dict(TOOLS)
    for role in roles:
        tools |= ROLE_TOOLS.get(role, {})
    missing = {package for tool, package in tools.items() if not shutil.which(tool) and not Path(tool).is_file()}
    if missing:
        with locked("apt"):
            engine.apt_install(*sorted(missing))


def publish(folders: list[Path]) -> Path:
    """Bring the builds into one tree as a site mirror lays them out: rpm/ and releases/."""
    site = CACHE / "mirror"
    with locked("mirror"):
        for folder in folders:
            packages = (folder / "rpm").exists()
            for source in folder.rglob("*"):
                if source.is_file() and source.name != "checksums.json":
                    target = site / ("" if packages else "releases") / source.relative_to(folder)
                    target.parent.mkdir(parents=True, exist_ok=True)
                    if not target.exists() or not target.samefile(source):
                        target.unlink(missing_ok=True)
                        os.link(source, target)
        for target in site.rglob("*"):
            # A hard link whose build left the cache belongs to an older version.
            if target.is_file() and target.stat().st_nlink == 1:
                target.unlink()
    return site


def start(client: docker.DockerClient, site: Path) -> None:
    """Serve ``site`` over HTTP to the networks of the lab."""
    with locked("mirror"):
        networks: list[str] = []
        try:
            container = client.containers.get(MIRROR)
            if [mount["Source"] for mount in container.attrs["Mounts"]] == [str(site)]:
                container.start()
                return
            # It serves another cache folder, whose builds are not these.
            networks = list(container.attrs["NetworkSettings"]["Networks"])
            container.remove(force=True)
        except NotFound:
            pass
        client.containers.run(
            HOST_IMAGE,
            ["python3", "-m", "http.server", "--directory", "/mirror", str(MIRROR_PORT)],
            name=MIRROR,
            detach=True,
            labels={LABEL: "mirror"},
            volumes={str(site): {"bind": "/mirror", "mode": "ro"}},
        )
        for network in networks:
            connect(client, network)


def connect(client: docker.DockerClient, network: str) -> None:
    """Make the mirror reachable in a network under the name ``mirror``."""
    container = client.containers.get(MIRROR)
    if network not in container.attrs["NetworkSettings"]["Networks"]:
        client.networks.get(network).connect(container, aliases=["mirror"])


def remove(client: docker.DockerClient) -> None:
    """Remove the mirror's container; what it served stays in the cache."""
    try:
        client.containers.get(MIRROR).remove(force=True)
    except NotFound:
        return
