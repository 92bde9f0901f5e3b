"""Command line of the lab: python -m lab up | prepare | start | down | ps | logs | seed | clean | a report.

The reports: capacity-report, dashboards-preview.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import TypeVar

import docker
from docker.errors import NotFound
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from lab import engine, glance, hosts, mirror, secrets
from lab.settings import (
    AUTHORITY,
    BANK_NETWORK,
    DEFAULT_NAME,
    INVENTORY,
    LABEL,
    LOGS,
    MOLECULE_NETWORK,
    NAME,
    PLATFORM,
    PROJECT,
    SECRETS,
    STATE,
    LabError,
    platform_roles,
    roles_of,
)
from reports.grafana import Grafana
from reports.prometheus import Prometheus, PrometheusError
from reports.service import Service, ServiceError

BIN = Path(sys.executable).parent
# Lines of Ansible's output that say what it is doing now.
PROGRESS = re.compile(r"^(PLAY|TASK|RUNNING HANDLER) \[(.*?)\] \*")
# Every layer imports it, and after the first time it does nothing.
REPEATED_PLAY = "Gather facts"
DEMONSTRATION_CUSTOMERS = 20


def prepare(console: Console, wanted: list[hosts.Host] | None = None) -> docker.DockerClient:
    """Bring up the engine, the host image, the mirror and the secrets: what the wanted hosts need, or everything."""
    client = engine.ensure()
    secrets.ensure()
    hosts.ensure_networks(client, MOLECULE_NETWORK, BANK_NETWORK)
    if PLATFORM == "standin":
        roles = roles_of(None if wanted is None else {group for host in wanted for group in host.groups})
        raise_kernel_limits(console, roles, is_needed=wanted is not None)
        built = mirror.prepare(client, console, roles)
        for network in (MOLECULE_NETWORK, BANK_NETWORK):
            mirror.connect(client, network)
        console.print("host image and mirror: built" if built else "host image and mirror: nothing to do")
    return client


def raise_kernel_limits(console: Console, roles: set[str], *, is_needed: bool) -> None:
    """Give this machine's containers what the hosts of these roles need of the kernel.

    Molecule prepares everything, for scenarios most of which do well without: there a refusal is only shown.

    Raises:
        LabError: a role that is to run cannot do without, and this user may not change the kernel's setting.
    """
    for limit in engine.KERNEL_LIMITS:
        if limit.role and limit.role not in roles:
            continue
        try:
            engine.raise_kernel_limit(limit)
        except LabError as error:
            if limit.role and is_needed:
                raise
            console.print(f"lab: {error}", markup=False)


def playbook(console: Console, name: str, *options: str) -> None:
    """Run a playbook against the lab, showing the task at hand; the whole output goes to a log.

    Raises:
        LabError: it failed; the end of its output has been shown.
    """
    LOGS.mkdir(parents=True, exist_ok=True)
    log = LOGS / f"{Path(name).stem}.log"
    command = [str(BIN / "ansible-playbook"), "-i", str(INVENTORY), name, *options]
    environment = {**os.environ, "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}", "ANSIBLE_FORCE_COLOR": "0"}
    begun = time.monotonic()
    lines: list[str] = []
    with log.open("w", buffering=1) as stream, console.status(f"{name}: starting") as status:
        process = subprocess.Popen(
            command, cwd=PROJECT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        assert process.stdout is not None
        for line in process.stdout:
            stream.write(line)
            lines.append(line)
            if found := PROGRESS.match(line):
                kind, title = found.groups()
                status.update(f"{time.monotonic() - begun:4.0f} s  {title}")
                if kind == "PLAY" and title != REPEATED_PLAY:
                    console.print(f"{time.monotonic() - begun:4.0f} s  {title}", highlight=False)
        code = process.wait()
    recap = [line for line in lines if "changed=" in line]
    changed = sum(int(re.findall(r"changed=(\d+)", line)[0]) for line in recap)
    if code:
        console.print("".join(lines[-60:]), markup=False, highlight=False)
        raise LabError(f"{name} failed; the whole output is in {log}. Mend the cause and run the same command again.")
    console.print(f"{name}: {changed} changed, {time.monotonic() - begun:.0f} s")


def start(console: Console) -> list[hosts.Host]:
    """Start the hosts of the inventory, without running a playbook; return them."""
    wanted = hosts.inventory()
    hosts.start(prepare(console, wanted), wanted)
    return wanted


def up(console: Console) -> None:
    """Bring the whole platform up; safe to repeat."""
    begun = time.monotonic()
    wanted = start(console)
    playbook(console, "site.yml")
    seed(console)
    summary(console, wanted)
    console.print(f"The platform is up, after {time.monotonic() - begun:.0f} s.")


def seed(console: Console) -> None:
    """Load the demonstration data; what is there already stays."""
    first = next(host for host in hosts.inventory() if "bank_app" in host.groups)
    password = secrets.ensure()["vault_bank_demo_password"]
    # The password goes in by the environment of docker's own process, not by an argument.
    command = ["docker", "exec", "--env", "BANK_DEMO_PASSWORD", "--user", "bank", first.container]
    command += ["/opt/bank/current/bin/bank", "seed", "--customers", str(DEMONSTRATION_CUSTOMERS), "--seed", "1"]
    environment = {**os.environ, "BANK_DEMO_PASSWORD": password}
    answer = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if answer.returncode:
        raise LabError(f"Loading demonstration data on {first.name} failed: {answer.stderr.strip()}")
    console.print(answer.stdout.strip() or "demonstration data: loaded", highlight=False)


LOG_INS = (
    ("bank", "load_balancer", 443, "/", "user@demo.local", "vault_bank_demo_password"),
    ("HAProxy statistics", "load_balancer", 8405, "/stats", "operator", "vault_haproxy_stats_password"),
    (
        "Elasticsearch",
        "elasticsearch",
        9200,
        "/app-logs-*/_search",
        "operator",
        "vault_elasticsearch_operator_password",
    ),
    ("Grafana API (no pages)", "grafana", 3030, "/api/search", "operator", "vault_grafana_operator_password"),
    ("Kibana (stand-in)", "kibana", 5601, "/", "operator", "vault_elasticsearch_operator_password"),
    ("Alertmanager", "alertmanager", 9093, "/", "operator", "vault_alertmanager_web_password"),
    ("Prometheus API", "prometheus", 9090, "/api/v1/targets", "operator", "vault_prometheus_web_password"),
)


def summary(console: Console, wanted: list[hosts.Host]) -> None:
    """Show what runs where and how to get in."""
    ps(console, wanted)
    values = secrets.ensure()
    table = Table("what", "address", "user", "password", title="How to log in")
    for what, group, port, path, user, secret in LOG_INS:
        host = next((host for host in wanted if group in host.groups), None)
        if host is None:
            continue
        table.add_row(what, hosts.url(host, port) + path, user, values[secret])
    console.print(table)
    console.print(f"certificate authority to trust: {AUTHORITY}    all secrets: {SECRETS}", highlight=False)
    console.print("stop: make down    remove everything: make clean    more: make help", highlight=False)


def ps(console: Console, wanted: list[hosts.Host]) -> None:
    """Show every host with its address, groups and services, then figures and alerts."""
    client = engine.ensure()
    present = hosts.containers(client)
    units = [unit for role in platform_roles().values() for unit in role.get("units", [])]
    query = ["systemctl", "show", "--property=Id,ActiveState,LoadState", "firewalld.service"]
    table = Table("host", "groups", "address", "published on 127.0.0.1", "services", title="Lab")
    for host in wanted:
        container = present.get(host.container)
        services = "not running: make up"
        address = ""
        if container is not None and container.status == "running":
            address = str(container.labels[f"{LABEL}.address"])
            services = unit_states(container.exec_run([*query, *units]).output.decode())
        ports = " ".join(f"{public}->{port}" for port, public in host.published.items())
        table.add_row(host.name, " ".join(host.groups), address, ports, services)
    console.print(table)
    try:
        console.print(glance.table(prometheus(wanted)))
    except (LabError, PrometheusError) as error:
        console.print(f"[red]No figures and alerts: {escape(str(error))}[/red]")


Kind = TypeVar("Kind", bound=Service)


def service(kind: type[Kind], wanted: list[hosts.Host], group: str, port: int, secret: str) -> Kind:
    """Return a service of the lab, to be asked as its operator.

    Raises:
        LabError: no host of it is there.
    """
    server = next((host for host in wanted if group in host.groups), None)
    if server is None:
        raise LabError(f"the inventory has no host in group {group}")
    try:
        url = hosts.url(server, port)
    except NotFound:
        raise LabError(f"{server.name} does not run: make up") from None
    return kind(url, "operator", secrets.ensure()[secret], AUTHORITY / "ca.crt")


def prometheus(wanted: list[hosts.Host]) -> Prometheus:
    """Return the lab's Prometheus.

    Raises:
        LabError: no host of it is there.
    """
    return service(Prometheus, wanted, "prometheus", 9090, "vault_prometheus_web_password")


def unit_states(answer: str) -> str:
    """Return the loaded services of ``systemctl show`` with any state that is not active."""
    shown = []
    for block in answer.strip().split("\n\n"):
        unit = dict(line.split("=", 1) for line in block.splitlines())
        if unit.get("LoadState") == "loaded":
            name = unit["Id"].removesuffix(".service")
            state = unit["ActiveState"]
            shown.append(name if state == "active" else f"[red]{name} ({state})[/red]")
    return " ".join(shown)


def logs(arguments: argparse.Namespace) -> None:
    """Follow the journal of one host, or the last lines of all."""
    for host in hosts.inventory():
        if arguments.host in (None, host.name):
            words = ["journalctl", "--no-pager", "--lines", str(arguments.lines)]
            if arguments.service:
                words += ["--unit", arguments.service]
            print(f"== {host.name}", flush=True)
            subprocess.run(["docker", "exec", host.container, *words], check=False)


def capacity_report(console: Console) -> None:
    """Write the capacity report of the lab."""
    # Plotting is slow to load, and nothing else here needs it.
    from reports import capacity

    try:
        console.print(
            capacity.write(prometheus(hosts.inventory()), 30, STATE / "reports" / "capacity.html"), highlight=False
        )
    except PrometheusError as error:
        raise LabError(str(error)) from None


def dashboards_preview(console: Console) -> None:
    """Write the dashboards of the lab with the data of now."""
    from reports import preview

    grafana = service(Grafana, hosts.inventory(), "grafana", 3030, "vault_grafana_operator_password")
    try:
        console.print(preview.write(grafana, STATE / "reports" / "dashboards"), highlight=False)
    except ServiceError as error:
        raise LabError(str(error)) from None


def clean(console: Console) -> None:
    """Remove hosts, data, keys and passwords; the build cache stays, and so does what other labs share."""
    # An engine that does not run keeps its containers, which would be in the way of the next lab.
    if engine.is_installed():
        client = engine.ensure()
        hosts.remove(client)
        if NAME == DEFAULT_NAME:
            mirror.remove(client)
    if NAME == DEFAULT_NAME:
        shutil.rmtree(STATE, ignore_errors=True)
    console.print("lab removed; builds stay in the cache")


def main() -> None:
    """Parse the command line and act."""
    parser = argparse.ArgumentParser(prog="python -m lab", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    for name in ("up", "prepare", "start", "down", "ps", "seed", "capacity-report", "dashboards-preview", "clean"):
        commands.add_parser(name)
    release = commands.add_parser("add-release")
    release.add_argument("role")
    release.add_argument("version")
    log_parser = commands.add_parser("logs")
    log_parser.add_argument("--host")
    log_parser.add_argument("--service")
    log_parser.add_argument("--lines", type=int, default=50)
    arguments = parser.parse_args()
    console = Console(width=None if sys.stdout.isatty() else 160)
    try:
        match arguments.command:
            case "up":
                up(console)
            case "prepare":
                prepare(console)
            case "add-release":
                built = mirror.add_release(engine.ensure(), arguments.role, arguments.version)
                console.print(f"{arguments.role} {arguments.version}: {'built' if built else 'nothing to do'}")
            case "start":
                start(console)
            case "down":
                console.print(f"{hosts.stop(engine.ensure())} hosts stopped; make up starts them again")
            case "ps":
                ps(console, hosts.inventory())
            case "seed":
                seed(console)
            case "capacity-report":
                capacity_report(console)
            case "dashboards-preview":
                dashboards_preview(console)
            case "logs":
                logs(arguments)
            case "clean":
                clean(console)
    except LabError as error:
        console.print(f"lab: {error}", style="bold red", markup=False)
        sys.exit(1)
