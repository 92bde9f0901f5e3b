"""Build release archives from Go modules, named and laid out as the upstream projects publish them."""

import hashlib
import json
import os
import shutil
import subprocess
import tarfile
from dataclasses import asdict, dataclass, field
from pathlib import Path

from lab.build.go import go_command
from lab.settings import CACHE, LabError

ARCHITECTURE = "linux-amd64"


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
    # Stands before the version in the names of the archive and its folder.
    version_prefix: str = ""
    # Go variable that holds the version.
    version_variable: str = "github.com/prometheus/common/version.Version"
    # Files that the module embeds and does not carry, each with what stands in for it.
    absent_files: dict[str, str] = field(default_factory=dict)

    @property
    def directory(self) -> str:
        """Name of the folder that the archive unpacks to."""
        return f"{self.name}-{self.version_prefix}{self.version}.{ARCHITECTURE}"

    @property
    def recipe(self) -> str:
        """Everything that tells this release from another."""
        return json.dumps(asdict(self), sort_keys=True)


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
        source = Path(json.loads(answer.stdout)["Dir"])
        if release.absent_files:
            source = with_files(source, release.absent_files, output / "source")
        stage = output / release.directory
        stage.mkdir(parents=True)
        for program, package in release.programs.items():
            variable = f"-X {release.version_variable}={release.version}"
            command = [go, "build", "-trimpath", "-tags", release.build_tags, "-ldflags", f"-s -w {variable}"]
            command += ["-o", str(stage / program), f"./{package}"]
            if subprocess.run(
                command, env=environment, cwd=source, stdout=stream, stderr=stream, check=False
            ).returncode:
                raise LabError(f"Building {program} {release.version} failed; the reason is at the end of {log}.")
    shutil.rmtree(output / "source", ignore_errors=True)
    publish(stage, output / release.name / release.version)


def with_files(source: Path, files: dict[str, str], copy: Path) -> Path:
    """Return a copy of a module, which as Go keeps it cannot be written to, with further files."""
    shutil.copytree(source, copy, copy_function=shutil.copyfile)
    for folder in (copy, *(path for path in copy.rglob("*") if path.is_dir())):
        folder.chmod(0o755)
    for name, text in files.items():
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        (copy / name).write_text(text, encoding="utf-8")
    return copy


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
