"""What a host opens in its firewall, from the platform's table of flows."""

import ipaddress
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from ansible.errors import AnsibleFilterError

PROTOCOLS = ("tcp", "udp", "sctp")
PORT = re.compile(r"(\d+)(?:-(\d+))?")
HIGHEST_PORT = 65535


class Opening(NamedTuple):
    """One port that one source may reach; an empty source stands for everybody."""

    port: str
    protocol: str
    family: str = ""
    source: str = ""

    def rich_rule(self) -> str:
        """Return the opening as firewalld prints it."""
        return (
            f'rule family="{self.family}" source address="{self.source}" '
            f'port port="{self.port}" protocol="{self.protocol}" accept'
        )


def checked_port(flow: Mapping[str, Any]) -> tuple[str, str]:
    """Return port and protocol of a flow.

    Raises:
        AnsibleFilterError: they cannot be.
    """
    label, port = f'Flow "{flow.get("name", flow)}"', str(flow.get("port", ""))
    found = PORT.fullmatch(port)
    numbers = [int(number) for number in found.groups() if number] if found else []
    if not numbers or numbers != sorted(numbers) or not 1 <= numbers[0] <= numbers[-1] <= HIGHEST_PORT:
        raise AnsibleFilterError(
            f'{label} has the port "{port}": correct it in platform_flows or firewall_extra_flows to 1-{HIGHEST_PORT}.'
        )
    protocol = str(flow.get("protocol", "tcp"))
    if protocol not in PROTOCOLS:
        raise AnsibleFilterError(f'{label} has the protocol "{protocol}": use one of {", ".join(PROTOCOLS)}.')
    return port, protocol


def checked_source(label: str, source: str) -> tuple[str, str]:
    """Return family and address of a source; both empty for everybody.

    Raises:
        AnsibleFilterError: it is no address or network.
    """
    if source == "anywhere":
        return "", ""
    try:
        network = ipaddress.ip_network(source)
    except ValueError as error:
        raise AnsibleFilterError(
            f'{label} has the source "{source}", which is no address or network: {error}.'
        ) from error
    single = network.num_addresses == 1
    return f"ipv{network.version}", str(network.network_address if single else network)


def sources_of(
    flow: Mapping[str, Any],
    groups: Mapping[str, list[str]],
    hostvars: Mapping[str, Any],
    operators: list[str],
    known: list[str],
) -> list[str]:
    """Return the addresses and networks that a flow admits.

    Raises:
        AnsibleFilterError: the flow names a group that nothing knows, or a host whose address is not known.
    """
    label, found = f'Flow "{flow.get("name", flow)}"', list(flow.get("sources", []))
    for word in flow.get("from", []):
        if word == "anywhere":
            found.append(word)
        elif word == "operators":
            found += operators
        elif word not in groups and word not in known:
            raise AnsibleFilterError(
                f'{label} admits the group "{word}", which is neither in the inventory nor in platform_groups.'
            )
        else:
            for host in groups.get(word, []):
                try:
                    found.append(str(hostvars[host]["platform_address"]))
                except Exception as error:
                    raise AnsibleFilterError(
                        f'{label} admits host "{host}", whose address is unknown: start it or set platform_address.'
                    ) from error
    return found


def firewall_openings(
    flows: list[Mapping[str, Any]],
    group_names: list[str],
    groups: Mapping[str, list[str]],
    hostvars: Mapping[str, Any],
    operators: list[str],
    known: list[str],
) -> list[dict[str, str]]:
    """Return what a host in some groups has to open, in a stable order."""
    openings = set()
    for flow in flows:
        port, protocol = checked_port(flow)
        if flow.get("to", "all") in [*group_names, "all"]:
            label = f'Flow "{flow.get("name", flow)}"'
            for source in sources_of(flow, groups, hostvars, operators, known):
                openings.add(Opening(port, protocol, *checked_source(label, source)))
    everybody = {(opening.port, opening.protocol) for opening in openings if not opening.source}
    needed = {
        opening for opening in openings if not opening.source or (opening.port, opening.protocol) not in everybody
    }
    return [opening._asdict() for opening in sorted(needed)]


def firewall_differences(listing: str, zone: str, openings: list[dict[str, str]], services: list[str]) -> list[str]:
    """Compare the output of ``firewall-cmd --list-all`` with what has to be open."""
    lines = [line.strip() for line in listing.splitlines()]
    values = dict(line.split(":", 1) for line in lines if re.match(r"[a-z -]+:", line))
    wanted = [Opening(**opening) for opening in openings]
    pairs = {
        "default zone": ({zone}, set(lines[0].split()[:1] if lines else [])),
        "service": (set(services), set(values.get("services", "").split())),
        "port": (
            {f"{opening.port}/{opening.protocol}" for opening in wanted if not opening.source},
            set(values.get("ports", "").split()),
        ),
        "rich": (
            {opening.rich_rule() for opening in wanted if opening.source},
            {line for line in lines if line.startswith("rule ")},
        ),
        "source": (set(), set(values.get("sources", "").split())),
        "forwarded port": (set(), set(values.get("forward-ports", "").split())),
    }
    return [
        f"{kind} {entry} is {state}"
        for kind, (expected, actual) in pairs.items()
        for state, entries in (("missing", expected - actual), ("not wanted", actual - expected))
        for entry in sorted(entries)
    ]


class FilterModule:
    """Filters of this role."""

    def filters(self) -> dict[str, Any]:
        """Return the filters by name."""
        return {"firewall_openings": firewall_openings, "firewall_differences": firewall_differences}
