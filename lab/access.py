"""How Ansible reaches the lab's hosts: over SSH with a key of the lab, and host keys that are known beforehand."""

import re
import shlex
import shutil
import subprocess
import time
from pathlib import Path

import yaml
from docker.models.containers import Container

from lab import engine
from lab.cache import locked
from lab.settings import ADDRESSES, KNOWN_HOSTS, SSH_KEY, STATE, LabError

# inventories/lab logs in under the same name.
ACCOUNT = "ansible"
HOST_KEY_FILE = "/etc/ssh/ssh_host_ed25519_key.pub"
# The 51 bytes of an Ed25519 key, as OpenSSH writes them.
HOST_KEY = re.compile(r"(ssh-ed25519 [A-Za-z0-9+/]{68})(\s|$)")
HOST_KEY_SECONDS = 20


def ensure_key() -> str:
    """Make the lab's SSH key if there is none; return its public half."""
    if not shutil.which("ssh-keygen"):
        engine.apt_install("openssh-client")
    STATE.mkdir(mode=0o700, parents=True, exist_ok=True)
    with locked("ssh-key"):
        if not SSH_KEY.exists():
            command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "bank lab", "-f", str(SSH_KEY)]
            subprocess.run(command, check=True)
    return SSH_KEY.with_suffix(".pub").read_text(encoding="utf-8").strip()


def admit(container: Container, public_key: str) -> str:
    """Give Ansible an account with the lab's key and sudo on a host, as real hosts have; return the host's public key.

    Raises:
        LabError: the host refused the commands, or has no key of its own.
    """
    script = f"""
        set -e
        id {ACCOUNT} > /dev/null 2>&1 || useradd --create-home --password '*' {ACCOUNT}
        umask 077
        mkdir -p /home/{ACCOUNT}/.ssh
        printf '%s\\n' {shlex.quote(public_key)} > /home/{ACCOUNT}/.ssh/authorized_keys
        chown -R {ACCOUNT}: /home/{ACCOUNT}/.ssh
        echo '{ACCOUNT} ALL=(ALL) NOPASSWD: ALL' > /etc/sudoers.d/{ACCOUNT}
    """
    answer = container.exec_run(["sh", "-c", script])
    if answer.exit_code:
        raise LabError(f"{container.name} did not accept the lab's SSH key: {answer.output.decode().strip()}")
    return host_key(container)


def host_key(container: Container) -> str:
    """Return the type and the public key of a host, without its comment.

    Raises:
        LabError: the host showed no such key within ``HOST_KEY_SECONDS``.
    """
    deadline = time.monotonic() + HOST_KEY_SECONDS
    while True:
        answer = container.exec_run(["cat", HOST_KEY_FILE])
        text = answer.output.decode().strip()
        # A key that is half written, or an answer that the engine cut short, must not become the known one.
        if found := HOST_KEY.match(text):
            return found[1]
        if time.monotonic() > deadline:
            raise LabError(
                f"{container.name} has no SSH key of its own in {HOST_KEY_FILE}: {text or 'the file is empty'}. "
                f"Look with: docker exec {container.name} systemctl status ssh"
            )
        time.sleep(0.5)


def record(hosts: dict[str, tuple[str, str]]) -> None:
    """Write the addresses and host keys of the lab, given (address, public key) by host name.

    Hosts of another lab on this machine keep their lines.
    """
    with locked("addresses"):
        known = yaml.safe_load(ADDRESSES.read_text(encoding="utf-8")) if ADDRESSES.exists() else None
        addresses: dict[str, str] = (known or {}).get("lab_addresses", {})
        lines = KNOWN_HOSTS.read_text(encoding="utf-8").splitlines() if KNOWN_HOSTS.exists() else []
        keys = dict(line.split(" ", 1) for line in lines)
        for name, (address, key) in hosts.items():
            addresses[name] = address
            keys[address] = key
        replace(ADDRESSES, "---\n" + yaml.safe_dump({"lab_addresses": addresses}))
        replace(KNOWN_HOSTS, "".join(f"{address} {key}\n" for address, key in sorted(keys.items())))


def replace(path: Path, text: str) -> None:
    """Write a file in one step: Ansible may be reading it for another lab."""
    fresh = path.with_suffix(".new")
    fresh.write_text(text, encoding="utf-8")
    fresh.replace(path)
