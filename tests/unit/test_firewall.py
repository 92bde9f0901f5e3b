"""What the table of flows opens on a host."""

import runpy
from pathlib import Path

import pytest
from ansible.errors import AnsibleFilterError

FILTERS = runpy.run_path(str(Path(__file__).parents[2] / "roles/firewall/filter_plugins/firewall.py"))
DIFFERENCES = FILTERS["firewall_differences"]
GROUPS = {"bank_app": ["app1", "app2"], "postgresql": ["db1"], "redis": ["db1"]}
HOSTVARS = {"app1": {"platform_address": "192.0.2.1"}, "app2": {"platform_address": "2001:db8::2"}, "db1": {}}
POSTGRESQL = {"name": "PostgreSQL", "to": "postgresql", "from": ["bank_app"], "port": "5432"}
LISTING = """public (default, active)
  target: default
  interfaces: eth0
  sources: {sources}
  services: {services}
  ports: 22/tcp
  forward-ports: {forwarded}
  rich rules:
\trule family="ipv4" source address="192.0.2.1" port port="5432" protocol="tcp" accept
{rule}"""


def openings(*flows: dict[str, object], group: str = "postgresql") -> list[str]:
    """Return what a host of a group opens, one short text for each opening."""
    found = FILTERS["firewall_openings"](flows, [group], GROUPS, HOSTVARS, ["198.51.100.0/24"], ["load_balancer"])
    return [f"{entry['port']}/{entry['protocol']} {entry['family']} {entry['source']}".strip() for entry in found]


def listing(*, sources: str = "", services: str = "ssh", forwarded: str = "", rule: str = "") -> str:
    """Return what firewall-cmd prints."""
    return LISTING.format(sources=sources, services=services, forwarded=forwarded, rule=rule)


def test_every_host_of_an_admitted_group_is_let_in() -> None:
    assert openings(POSTGRESQL) == ["5432/tcp ipv4 192.0.2.1", "5432/tcp ipv6 2001:db8::2"]
    assert openings(POSTGRESQL, group="redis") == []


def test_operators_networks_and_everybody() -> None:
    flow = {**POSTGRESQL, "to": "all", "from": ["operators"], "sources": ["192.0.2.9/32"], "protocol": "udp"}
    assert openings(flow, group="redis") == ["5432/udp ipv4 192.0.2.9", "5432/udp ipv4 198.51.100.0/24"]
    assert openings(flow, {**flow, "from": ["anywhere"]}) == ["5432/udp"]


def test_planned_group_without_hosts_opens_nothing() -> None:
    assert openings({**POSTGRESQL, "from": ["load_balancer"]}) == []


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"port": "0"}, 'has the port "0"'),
        ({"port": "90-80"}, 'has the port "90-80"'),
        ({"port": "65536"}, 'has the port "65536"'),
        ({"protocol": "icmp"}, 'has the protocol "icmp"'),
        ({"from": ["bank_apps"]}, 'admits the group "bank_apps"'),
        ({"from": ["redis"]}, 'admits host "db1", whose address is unknown'),
        ({"sources": ["192.0.2.1/24"]}, 'has the source "192.0.2.1/24"'),
    ],
)
def test_bad_flow_is_refused(change: dict[str, object], sentence: str) -> None:
    with pytest.raises(AnsibleFilterError, match="PostgreSQL") as error:
        openings({**POSTGRESQL, **change})
    assert sentence in str(error.value)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (listing(), []),
        ("", ["default zone public is missing"]),
        (listing().replace("public", "drop", 1), ["default zone public is missing", "default zone drop is not wanted"]),
        (listing(services="ssh cockpit"), ["service cockpit is not wanted"]),
        (listing(sources="203.0.113.0/24"), ["source 203.0.113.0/24 is not wanted"]),
        (
            listing(forwarded="port=1:proto=tcp:toport=2:toaddr="),
            ["forwarded port port=1:proto=tcp:toport=2:toaddr= is"],
        ),
        (listing(rule='\trule service name="ftp" accept'), ['rich rule service name="ftp" accept is not wanted']),
    ],
)
def test_what_is_in_force_is_compared(text: str, expected: list[str]) -> None:
    wanted = [
        {"port": "22", "protocol": "tcp", "family": "", "source": ""},
        {"port": "5432", "protocol": "tcp", "family": "ipv4", "source": "192.0.2.1"},
    ]
    found = DIFFERENCES(text, "public", wanted, ["ssh"])
    assert len(found) >= len(expected)
    assert all(any(entry.startswith(part) for entry in found) for part in expected)
    assert bool(found) == bool(expected)
