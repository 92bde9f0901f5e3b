"""Make sure of a container engine: the one that answers, else Debian's, else say what to do."""

import os
import shutil
import subprocess
import time
from pathlib import Path
from typing import NamedTuple

import docker
from docker.errors import DockerException

from lab.settings import CACHE, LabError

START_SECONDS = 60
KERNEL_SETTINGS = Path("/proc/sys")


class KernelLimit(NamedTuple):
    """A setting of the kernel that containers share and cannot change, and the least value that the lab asks for."""

    name: str
    least: int
    reason: str
    # The role that cannot do without it; none if it depends on what else the machine runs.
    role: str = ""


KERNEL_LIMITS = (
    KernelLimit("vm.max_map_count", 262144, "Elasticsearch maps many areas of memory", "elasticsearch"),
    KernelLimit(
        "fs.inotify.max_user_instances", 1024, "each host takes about ten, and beyond the limit none boots any more"
    ),
)


def apt_install(*packages: str) -> None:
    """Install Debian packages, where this user may.

    Raises:
        LabError: this is not Debian as root, or the installation failed.
    """
    if not shutil.which("apt-get") or os.geteuid() != 0:
        raise LabError(
            f"The lab needs {', '.join(packages)}, and can install them only on Debian as root. "
            "Install them with this machine's package manager, then run the same command again."
        )
    log = CACHE / "apt.log"
    CACHE.mkdir(parents=True, exist_ok=True)
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    with log.open("a") as stream:
        for command in (["apt-get", "update"], ["apt-get", "install", "--yes", "--no-install-recommends", *packages]):
            # Another apt on this machine may hold the lock for a while.
            command[1:1] = ["--quiet", "-o", "DPkg::Lock::Timeout=300", "-o", "Acquire::Retries=3"]
            if subprocess.run(command, env=environment, stdout=stream, stderr=stream, check=False).returncode:
                raise LabError(f"Installing {', '.join(packages)} failed; the reason is at the end of {log}.")


def raise_kernel_limit(limit: KernelLimit) -> None:
    """Give a limit of the kernel the value that the hosts need; a higher one stays as it is.

    Raises:
        LabError: it is too low, and this user may not change that.
    """
    file = KERNEL_SETTINGS / limit.name.replace(".", "/")
    present = int(file.read_text(encoding="ascii"))
    if present >= limit.least:
        return
    try:
        file.write_text(str(limit.least), encoding="ascii")
    except OSError as error:
        raise LabError(
            f"The lab needs {limit.name} of {limit.least} at least, because {limit.reason}; this machine has "
            f"{present}, and its containers cannot change it ({error.strerror}). Set it as root, then run the same "
            f"command again: sysctl -w {limit.name}={limit.least}"
        ) from error


def answers() -> bool:
    """Return whether an engine answers on the configured socket."""
    try:
        return bool(docker.from_env().ping())
    except DockerException:
        return False


def is_installed() -> bool:
    """Return whether this machine has an engine, running or not, that may hold containers."""
    return answers() or shutil.which("dockerd") is not None


# Where the engine notes its processes; a machine that was cut off leaves these behind.
PROCESS_FILES = {
    Path("/var/run/docker.pid"): "dockerd",
    Path("/var/run/docker/containerd/containerd.pid"): "containerd",
}


def forget_dead_processes() -> None:
    """Remove notes of processes that are gone, because their numbers may belong to others by now."""
    for file, program in PROCESS_FILES.items():
        if file.exists():
            name = Path("/proc", file.read_text(encoding="utf-8").strip(), "comm")
            if not name.exists() or name.read_text(encoding="utf-8").strip() != program:
                file.unlink()


def start_daemon() -> None:
    """Start Debian's engine in the background and wait until it answers.

    Raises:
        LabError: it did not answer in time.
    """
    log = CACHE / "dockerd.log"
    if os.path.isdir("/run/systemd/system"):
        subprocess.run(["systemctl", "start", "docker.service"], check=False)
    else:
        forget_dead_processes()
        with log.open("a") as stream:
            subprocess.Popen(["dockerd"], stdout=stream, stderr=stream, start_new_session=True)
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        if answers():
            return
        time.sleep(1)
    raise LabError(f"The container engine did not answer within {START_SECONDS} s; the reason is in {log}.")


def ensure() -> docker.DockerClient:
    """Return a client of an engine that answers.

    Raises:
        LabError: none answers and none could be installed or started.
    """
    CACHE.mkdir(parents=True, exist_ok=True)
    if not answers():
        if os.geteuid() != 0:
            raise LabError(
                "No container engine answers. Start Docker, or let this user reach it "
                "(group docker, or DOCKER_HOST), then run the same command again."
            )
        if not shutil.which("dockerd"):
            apt_install("docker.io", "iptables", "ca-certificates")
        start_daemon()
    if not shutil.which("docker"):
        raise LabError("An engine answers, but the docker command is missing: install the Docker command line.")
    return docker.from_env(timeout=300)
