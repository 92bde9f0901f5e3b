"""The lab's hosts: one systemd container for each host of the inventory."""

import hashlib
import ipaddress
import json
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import docker
from docker.errors import APIError
from docker.models.containers import Container
from docker.types import IPAMConfig, IPAMPool

from lab import access
from lab.settings import (
    BANK_NETWORK,
    HOST_IMAGE,
    HOST_LABEL,
    INVENTORY,
    LABEL,
    MONITORING_NETWORK,
    NAME,
    NETWORK_LABEL,
    PROJECT,
    LabError,
)

# A host boots with all its services, of which Elasticsearch alone takes a minute on a busy machine.
BOOT_SECONDS = 300
# Which working copy made a host: the lab's SSH key of that copy, shortened.
OWNER_LABEL = f"{LABEL}.owner"
# Address of the first host in the network; lower ones belong to the engine and the mirror.
FIRST_HOST = 11
# The lab takes /24 networks from here, past those that are in use.
SUBNETS = ipaddress.ip_network("172.29.0.0/16")


@dataclass(frozen=True)
class Host:
    """One host of the inventory, as the lab needs it."""

    name: str
    groups: tuple[str, ...]
    container: str
    fqdn: str
    # "port inside/tcp": port on the loopback of this machine.
    published: dict[str, int]


def inventory(*paths: Path) -> list[Host]:
    """Return the hosts of the given inventory sources, or of the lab's own.

    Raises:
        LabError: Ansible could not read it.
    """
    sources = [word for path in paths or (INVENTORY,) for word in ("-i", str(path))]
    command = [str(Path(sys.executable).parent / "ansible-inventory"), *sources, "--list"]
    answer = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, check=False)
    if answer.returncode:
        raise LabError(f"Ansible cannot read the inventory {sources[1]}: {answer.stderr.strip()}")
    document: dict[str, Any] = json.loads(answer.stdout)
    variables = document.pop("_meta")["hostvars"]
    members: dict[str, list[str]] = {}
    for group, content in document.items():
        for name in content.get("hosts", []):
            members.setdefault(name, []).append(group)
    return [
        Host(
            name=name,
            groups=tuple(sorted(groups)),
            container=f"{NAME}-{name}",
            fqdn=f"{name}.{variables[name]['platform_domain']}",
            published=variables[name].get("lab_published_ports", {}),
        )
        for name, groups in sorted(members.items())
    ]


def ensure_networks(client: docker.DockerClient, *names: str) -> None:
    """Create the networks that do not exist yet, each with the first subnet that is free here.

    Raises:
        LabError: no subnet is free.
    """
    present = {network.name for network in client.networks.list()}
    for name in names:
        if name not in present:
            create_network(client, name)


def create_network(client: docker.DockerClient, name: str) -> None:
    """Create one network; fixed host addresses need a subnet that is named at creation."""
    for candidate in SUBNETS.subnets(new_prefix=24):
        pool = IPAMConfig(pool_configs=[IPAMPool(subnet=str(candidate))])
        try:
            client.networks.create(name, driver="bridge", ipam=pool, labels={LABEL: NETWORK_LABEL})
        except APIError as error:
            if "overlap" not in str(error):
                raise
        else:
            return
    raise LabError(f"No subnet of {SUBNETS} is free for the network {name}: remove unused ones (docker network prune).")


def containers(client: docker.DockerClient) -> dict[str, Container]:
    """Return the lab's host containers by name, running or not."""
    found = client.containers.list(all=True, filters={"label": f"{LABEL}={HOST_LABEL}"})
    return {str(container.name): container for container in found}


def free_address(client: docker.DockerClient, taken: set[str]) -> str:
    """Return the lowest free address of the bank's network, and mark it taken."""
    network = client.networks.get(BANK_NETWORK)
    subnet = ipaddress.ip_network(network.attrs["IPAM"]["Config"][0]["Subnet"])
    for offset in range(FIRST_HOST, subnet.num_addresses - 1):
        address = str(subnet[offset])
        if address not in taken:
            taken.add(address)
            return address
    raise LabError(f"The network {BANK_NETWORK} has no free address left: remove hosts, or run make clean.")


def refuse_foreign(present: dict[str, Container], owner: str) -> None:
    """Refuse hosts that were made from another working copy, or with keys and passwords that are gone.

    Raises:
        LabError: there are such hosts; nothing was changed.
    """
    foreign = sorted(name for name, container in present.items() if container.labels.get(OWNER_LABEL) != owner)
    if foreign:
        raise LabError(
            f"{', '.join(foreign)}: made from another working copy, or with keys and passwords that are no longer "
            "in .lab. Use them from there, or remove them and their data (make clean), then run make up again."
        )


def create(client: docker.DockerClient, host: Host, address: str, owner: str) -> Container:
    """Start the container of one host with a fixed address."""
    container = client.containers.create(
        HOST_IMAGE,
        name=host.container,
        hostname=host.name,
        stop_signal="SIGRTMIN+3",
        # systemd mounts file systems, firewalld writes packet filter rules, and Elasticsearch locks its memory;
        # nothing more is granted.
        cap_add=["SYS_ADMIN", "NET_ADMIN", "IPC_LOCK"],
        security_opt=["seccomp=unconfined"],
        cgroupns="private",
        tmpfs={"/run": "", "/run/lock": "", "/tmp": ""},
        ports={port: ("127.0.0.1", public) for port, public in host.published.items()},
        labels={LABEL: HOST_LABEL, f"{LABEL}.address": address, OWNER_LABEL: owner},
        network=BANK_NETWORK,
        networking_config={
            BANK_NETWORK: client.api.create_endpoint_config(ipv4_address=address, aliases=[host.name, host.fqdn])
        },
    )
    if "prometheus" in host.groups:
        client.networks.get(MONITORING_NETWORK).connect(container)
    return container


def start(client: docker.DockerClient, wanted: list[Host]) -> bool:
    """Start the containers of the wanted hosts and remove those of hosts that left; return whether any changed.

    Raises:
        LabError: a host did not boot, or belongs to another working copy.
    """
    ensure_networks(client, BANK_NETWORK, MONITORING_NETWORK)
    present = containers(client)
    public_key = access.ensure_key()
    owner = hashlib.sha256(public_key.encode()).hexdigest()[:16]
    refuse_foreign(present, owner)
    changed = False
    for name, container in present.items():
        if name not in {host.container for host in wanted}:
            container.remove(force=True, v=True)
            changed = True
    taken = {str(container.labels.get(f"{LABEL}.address")) for container in present.values()}
    for host in wanted:
        container = present.get(host.container) or create(client, host, free_address(client, taken), owner)
        if container.status != "running":
            container.start()
            changed = True
    reached = {}
    for host in wanted:
        wait_for_boot(client, host)
        container = client.containers.get(host.container)
        reached[host.container] = (str(container.labels[f"{LABEL}.address"]), access.admit(container, public_key))
    access.record(reached)
    return changed


def wait_for_boot(client: docker.DockerClient, host: Host) -> None:
    """Wait until systemd of a host has booted.

    Raises:
        LabError: it did not, or a unit failed at boot.
    """
    container = client.containers.get(host.container)
    deadline = time.monotonic() + BOOT_SECONDS
    state = "unknown"
    while time.monotonic() < deadline:
        state = container.exec_run(["systemctl", "is-system-running"]).output.decode().strip()
        if state in {"running", "degraded"}:
            return
        time.sleep(0.5)
    raise LabError(
        f"Host {host.name} did not boot within {BOOT_SECONDS} s (systemd says {state!r}). "
        f"Look with: docker exec {host.container} systemctl list-jobs"
    )


def url(host: Host, port: int) -> str:
    """Return where this machine reaches a TLS port of a host: published on the loopback, or at its address."""
    if public := host.published.get(f"{port}/tcp"):
        return f"https://localhost:{public}"
    address = docker.from_env().containers.get(host.container).labels[f"{LABEL}.address"]
    return f"https://{address}:{port}"


def stop(client: docker.DockerClient) -> int:
    """Stop every host; their data stays. Return how many were running."""
    running = [container for container in containers(client).values() if container.status == "running"]
    for container in running:
        container.stop(timeout=30)
    return len(running)


def remove(client: docker.DockerClient) -> None:
    """Remove hosts and networks, with all their data."""
    for container in containers(client).values():
        container.remove(force=True, v=True)
    for network in client.networks.list(filters={"label": f"{LABEL}={NETWORK_LABEL}"}):
        network.reload()
        for identifier in network.attrs["Containers"]:
            network.disconnect(identifier, force=True)
        network.remove()
