"""Three nodes are one cluster, stay one, and lose nothing while they are upgraded and restarted."""

from __future__ import annotations

import base64
import json
import re
import ssl
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import testinfra
import yaml
from companions import Companion
from lines import LINES, Search, assert_all_arrive, count, start_writing
from testinfra.host import Host

if TYPE_CHECKING:
    from conftest import Apply, Run

PROJECT = Path(__file__).parents[3]

NODES = ("elasticsearch-node1", "elasticsearch-node2", "elasticsearch-node3")
APP = "elasticsearch-app1"
INDEX, NEXT_INDEX = "app-logs-2026.11.22", "app-logs-2026.11.23"
# The scenario's inventory has an older one.
VERSIONS = yaml.safe_load((PROJECT / "group_vars/all/versions.yml").read_text(encoding="utf-8"))
RELEASE = VERSIONS["platform_version_elastic"]


class Store:
    """The cluster as its clients see it: any node will do."""

    def __init__(self, hosts: dict[str, Host], password: str) -> None:
        """Find out where the nodes are and whom to trust."""
        self.addresses = [host.check_output("hostname -i").split()[0] for host in hosts.values()]
        authority = hosts[NODES[0]].check_output("cat /etc/elasticsearch/certs/ca.crt")
        self.context = ssl.create_default_context(cadata=authority)
        self.login = base64.b64encode(f"elastic:{password}".encode()).decode()

    def ask(self, method: str, path: str, body: object = None, node: int | None = None) -> dict[str, Any]:
        """Send a request to one node, or to the first that answers."""
        problem: Exception | None = None
        for address in self.addresses if node is None else [self.addresses[node]]:
            request = urllib.request.Request(
                f"https://{address}:9200{path}",
                method=method,
                data=None if body is None else json.dumps(body).encode(),
                headers={"Content-Type": "application/json", "Authorization": f"Basic {self.login}"},
            )
            try:
                with urllib.request.urlopen(request, timeout=10, context=self.context) as answer:
                    return json.loads(answer.read())
            except urllib.error.HTTPError as error:
                if error.code == 409:
                    return {"result": "was there"}
                problem = error
            except OSError as error:
                problem = error
        assert problem
        raise problem

    def green(self) -> dict[str, Any]:
        """Wait until the cluster is green, and return its health."""
        # The cluster itself waits a minute for a node that is gone before it makes new copies.
        deadline = time.monotonic() + 120
        while (health := self.ask("GET", "/_cluster/health"))["status"] != "green" and time.monotonic() < deadline:
            time.sleep(0.5)
        return health


@pytest.fixture(scope="session")
def hosts() -> dict[str, Host]:
    """Return the hosts of the nodes."""
    return {name: testinfra.get_host(f"docker://{name}") for name in NODES}


@pytest.fixture(scope="session")
def store(hosts: dict[str, Host], secrets: dict[str, str]) -> Store:
    """Return the cluster."""
    return Store(hosts, secrets["vault_elasticsearch_elastic_password"])


@pytest.fixture(scope="session")
def app() -> Host:
    """Return the host that ships."""
    return testinfra.get_host(f"docker://{APP}")


@pytest.fixture(scope="session")
def search(store: Store) -> Search:
    """Return a function that asks whichever node answers."""

    def ask(path: str, body: object) -> dict[str, Any]:
        try:
            return store.ask("POST", path, body)
        except OSError:
            return {}

    return ask


@pytest.fixture(scope="session")
def apply(apply: Apply) -> Apply:
    """Return the function that runs a playbook, with the platform's own release: the upgrade is the first such run."""

    def run(playbook: Path = PROJECT / "playbooks/logging.yml", /, **variables: object) -> Run:
        return apply(playbook, **{"platform_version_elastic": RELEASE, **variables})

    return run


@pytest.fixture(scope="session")
def changed(hosts: dict[str, Host]) -> str:
    """Return settings that two nodes do not have yet, also when the tests run a second time."""
    name = "indices.recovery.max_bytes_per_sec"
    written = hosts[NODES[0]].file("/etc/elasticsearch/elasticsearch.yml").content_string
    settings = {name: "60mb" if f'{name}: "50mb"' in written else "50mb"}
    return f"{{{{ {settings} if inventory_hostname in {list(NODES[:2])} else {{}} }}}}"


def clusters(store: Store) -> set[str]:
    """Return the clusters that the nodes say they belong to."""
    return {store.ask("GET", "/_cluster/state/version", node=number)["cluster_uuid"] for number in range(len(NODES))}


def started(hosts: dict[str, Host]) -> list[float]:
    """Return when each node was started, in seconds since the boot of the machine."""
    command = "systemctl show elasticsearch.service --property=ExecMainStartTimestampMonotonic --value"
    return [int(host.check_output(command)) / 1e6 for host in hosts.values()]


def releases(store: Store) -> dict[str, str]:
    """Return the release that each node runs."""
    return {node["name"]: node["version"] for node in store.ask("GET", "/_cat/nodes?format=json&h=name,version")}


def test_all_nodes_are_one_green_cluster(store: Store) -> None:
    health = store.ask("GET", "/_cluster/health")
    assert (health["status"], health["number_of_nodes"]) == ("green", 3)
    assert len(clusters(store)) == 1


def test_first_masters_are_gone_everywhere(hosts: dict[str, Host]) -> None:
    for host in hosts.values():
        assert "initial_master" not in host.file("/etc/elasticsearch/elasticsearch.yml").content_string


def test_indices_have_a_copy_on_another_node(store: Store) -> None:
    store.ask("PUT", f"/{INDEX}/_create/copy?refresh=true", {"message": "copied"})
    store.green()
    shards = [shard for shard in store.ask("GET", "/_cat/shards?format=json") if shard["index"] == INDEX]
    assert len(shards) == 2
    assert len({shard["node"] for shard in shards}) == 2


def test_maintenance_runs_on_one_node_for_all(hosts: dict[str, Host]) -> None:
    timers = {name: host.service("elasticsearch-maintenance.timer").is_running for name, host in hosts.items()}
    assert timers == {NODES[0]: True, NODES[1]: False, NODES[2]: False}
    settings = json.loads(hosts[NODES[0]].file("/etc/elasticsearch_maintenance/config.json").content_string)
    assert settings["nodes"] == [f"https://{name}.bank.internal:9200" for name in NODES]
    assert settings["snapshots"] is None, "the nodes share no file system"
    hosts[NODES[0]].check_output("systemctl start elasticsearch-maintenance.service")


def bulk_requests(store: Store) -> dict[str, int]:
    """Return how many bulk requests each running node has had since its start: only Filebeat sends any."""
    nodes = store.ask("GET", "/_nodes/stats/http")["nodes"].values()
    # A route that nobody has asked is not listed.
    routes = {node["name"]: node["http"]["routes"].get("/_bulk") for node in nodes}
    return {name: route["requests"]["count"] if route else 0 for name, route in routes.items()}


def test_filebeat_ships_to_all_nodes_alike(app: Host, store: Store, search: Search) -> None:
    before = bulk_requests(store)
    run = start_writing(app, seconds=20)
    assert_all_arrive(search, run, seconds=60)
    requests = {name: number - before[name] for name, number in bulk_requests(store).items()}
    print(f"{LINES} lines arrived, bulk requests: {requests}")
    assert set(requests) == set(NODES)
    # What a node has more of is that it was free more often.
    assert min(requests.values()) >= sum(requests.values()) / 6


def test_filebeat_goes_on_with_two_nodes_and_takes_the_third_back(
    app: Host, hosts: dict[str, Host], store: Store, search: Search
) -> None:
    away = NODES[1]
    run = start_writing(app, seconds=120)
    time.sleep(3)
    hosts[away].check_output("systemctl stop elasticsearch.service")
    try:
        left, stored = bulk_requests(store), count(search, run)[0]
        assert set(left) == set(NODES) - {away}
        time.sleep(15)
        meanwhile = {name: number - left[name] for name, number in bulk_requests(store).items()}
        arrived = count(search, run)[0]
        assert min(meanwhile.values()) > 0
        assert stored < arrived < LINES, "lines arrive while the node is away"
    finally:
        hosts[away].check_output("systemctl start elasticsearch.service")
    joined = time.monotonic()
    while not bulk_requests(store).get(away):
        assert time.monotonic() < joined + 25, "the backoff ends after 10 s"
        time.sleep(0.2)
    back = time.monotonic() - joined
    assert count(search, run)[0] < LINES, "the program still writes"
    assert_all_arrive(search, run, seconds=90)
    print(f"{arrived - stored} lines arrived without {away} by {meanwhile}; it had its part again after {back:.1f} s")
    assert store.green()["status"] == "green"


class Writer(Companion):
    """Writes one document after the other until it is stopped, and repeats what was not acknowledged."""

    def __init__(self, store: Store) -> None:
        """Start with nothing written."""
        super().__init__()
        self.store = store
        self.name, self.written = uuid.uuid4().hex, 0

    def run(self) -> None:
        """Write."""
        while not self.stopped.is_set():
            try:
                path = f"/{INDEX}/_create/{self.name}-{self.written}"
                self.store.ask("PUT", path, {"message": "written meanwhile", "labels": {"run": self.name}})
                self.written += 1
            except OSError:
                time.sleep(0.1)

    def stored(self) -> int:
        """Stop, and return how many of the documents can be found."""
        self.stopped.set()
        self.join()
        self.store.ask("POST", f"/{INDEX}/_refresh")
        return self.store.ask("POST", f"/{INDEX}/_count", {"query": {"term": {"labels.run": self.name}}})["count"]


@pytest.fixture
def writer(store: Store) -> Iterator[Writer]:
    """Write while a test runs."""
    with Writer(store) as thread:
        yield thread


@dataclass(frozen=True)
class Sight:
    """What a node said at one moment: how many there are, their health, and what may be allocated."""

    nodes: int
    status: str
    held: bool


class Observer(Companion):
    """Looks at the cluster again and again until it is stopped."""

    def __init__(self, store: Store) -> None:
        """Start with nothing seen."""
        super().__init__()
        self.store = store
        self.seen: list[Sight] = []

    def held(self) -> bool:
        """Return whether copies of shards must stay unassigned."""
        settings = self.store.ask("GET", "/_cluster/settings?flat_settings=true")["persistent"]
        return settings.get("cluster.routing.allocation.enable") == "primaries"

    def run(self) -> None:
        """Look."""
        while not self.stopped.is_set():
            try:
                before = self.held()
                health = self.store.ask("GET", "/_cluster/health")
                # Released or held between the questions counts as held: the node may have come or gone meanwhile.
                sight = Sight(health["number_of_nodes"], health["status"], before or self.held())
                if not self.seen or self.seen[-1] != sight:
                    self.seen.append(sight)
            except OSError:
                pass
            time.sleep(0.2)


@pytest.fixture
def observer(store: Store) -> Iterator[Observer]:
    """Look at the cluster while a test runs."""
    with Observer(store) as thread:
        yield thread


WHOLE_BETWEEN = "[wn]*w[wn]*"


def assert_one_after_another(seen: list[Sight], after_the_first: str = WHOLE_BETWEEN) -> None:
    """Require that one node at a time was away, that copies stayed in place, and that all was green in between."""
    assert min(sight.nodes for sight in seen) == 2, f"never two nodes away at a time: {seen}"
    assert all(sight.held for sight in seen if sight.nodes == 2), f"copies stay where they are meanwhile: {seen}"

    def letter(sight: Sight) -> str:
        # Away, whole, neither.
        return "a" if sight.nodes == 2 else "w" if sight.status == "green" and not sight.held else "n"

    course = "".join(letter(sight) for sight in seen)
    wanted = f"{WHOLE_BETWEEN}a+{after_the_first}a+{WHOLE_BETWEEN}a+{WHOLE_BETWEEN}"
    assert re.fullmatch(wanted, course), f"each absence begins after a moment in which the cluster was whole: {seen}"


class Midnight(Companion):
    """Makes an index on the first node with the new release: a day may begin in the middle of an upgrade."""

    def __init__(self, store: Store) -> None:
        """Start with nothing made."""
        super().__init__()
        self.store = store
        self.upgraded: list[str] = []

    def make(self, settings: dict[str, str]) -> None:
        """Make the index, unless a try before this one has."""
        try:
            self.store.ask("PUT", f"/{NEXT_INDEX}", {"settings": settings})
        except urllib.error.HTTPError as error:
            if error.code != 400:
                raise

    def run(self) -> None:
        """Wait for the node, then make the index."""
        pin = "index.routing.allocation.include._name"
        while not self.stopped.wait(0.1) and not self.upgraded:
            try:
                found = [name for name, release in releases(self.store).items() if release == RELEASE]
                if found:
                    self.make({pin: found[0]})
                    self.store.ask("PUT", f"/{NEXT_INDEX}/_create/first", {"message": "written at midnight"})
                    # Its copy may go anywhere; no older node will have it.
                    self.store.ask("PUT", f"/{NEXT_INDEX}/_settings", {pin: None})
                    self.upgraded = found
            except OSError:
                continue


@pytest.fixture
def midnight(store: Store) -> Iterator[Midnight]:
    """Let a day begin in the middle of an upgrade."""
    with Midnight(store) as thread:
        yield thread


def test_releases_that_cannot_work_are_refused(hosts: dict[str, Host], store: Store, apply: Apply) -> None:
    before = started(hosts), releases(store)
    wanted = dict(zip(NODES, ("8.14.3", "10.0.0", RELEASE), strict=True))
    answer = apply(platform_version_elastic=f"{{{{ {wanted}[inventory_hostname] }}}}")
    assert answer.failed
    assert "want different releases (8.14.3, 10.0.0" in answer.words
    assert f"{NODES[0]} has Elasticsearch or data of release {before[1][NODES[0]]}" in answer.words
    assert "data cannot go back, so set platform_version_elastic to" in answer.words
    assert "from which 10.0.0 cannot be reached in one step" in answer.words
    assert not any(answer.changed.values())
    assert (started(hosts), releases(store)) == before


LIBRARIES = "/usr/share/elasticsearch/lib"


def test_release_that_the_mirror_lacks_stops_no_node(hosts: dict[str, Host], store: Store, apply: Apply) -> None:
    before = started(hosts), releases(store)
    missing = RELEASE.rpartition(".")[0] + ".99"
    answer = apply(platform_version_elastic=missing)
    assert answer.failed
    assert f"Elasticsearch {missing} could not be installed on" in answer.words
    assert (started(hosts), releases(store)) == before


@pytest.fixture
def closed_libraries(hosts: dict[str, Host]) -> Iterator[None]:
    """Leave no room where the server's libraries are: on a file system of their own, which cannot be written to."""
    fill = f"mount -t tmpfs tmpfs {LIBRARIES} && cp -a /tmp/lib/. {LIBRARIES} && mount -o remount,ro {LIBRARIES}"
    for host in hosts.values():
        host.check_output(f"cp -a {LIBRARIES} /tmp/lib && {fill} && rm -r /tmp/lib")
    yield
    # A node that runs has files there open.
    for host in hosts.values():
        host.check_output(f"umount --lazy {LIBRARIES}")


@pytest.mark.usefixtures("closed_libraries")
def test_node_runs_again_when_its_package_cannot_be_installed(
    hosts: dict[str, Host], store: Store, apply: Apply, writer: Writer, observer: Observer
) -> None:
    before = started(hosts), releases(store)
    answer = apply()
    assert answer.failed
    assert "The node runs again as it was." in answer.words, answer.output
    assert releases(store) == before[1]
    assert sum(new > old for new, old in zip(started(hosts), before[0], strict=True)) == 1, "the first node was tried"
    assert writer.stored() == writer.written > 50
    health = store.ask("GET", "/_cluster/health")
    assert (health["status"], health["number_of_nodes"], observer.held()) == ("green", 3, False)


@dataclass(frozen=True)
class Replacement:
    """When the unit of a node ended, its program was replaced, and the unit was started, in seconds."""

    ended: int
    replaced: int
    started: int


def replacement(host: Host) -> Replacement:
    """Return when the program of a node was replaced."""
    names = "InactiveEnterTimestamp", "ExecMainStartTimestamp"
    shown = host.check_output(f"systemctl show elasticsearch.service --timestamp=unix --property={','.join(names)}")
    times = dict(line.split("=@") for line in shown.splitlines())
    library = host.check_output(f"stat --format=%Z {LIBRARIES}/elasticsearch-{RELEASE}.jar")
    return Replacement(int(times[names[0]]), int(library), int(times[names[1]]))


def test_upgrade_goes_node_by_node_and_loses_nothing(
    hosts: dict[str, Host], store: Store, apply: Apply, writer: Writer, observer: Observer, midnight: Midnight
) -> None:
    before, cluster = started(hosts), clusters(store)
    leader = store.ask("GET", "/_cat/master?format=json")[0]["node"]
    assert RELEASE not in releases(store).values()
    begun = time.monotonic()
    answer = apply()
    seconds = time.monotonic() - begun
    assert not answer.failed, answer.output
    assert writer.stored() == writer.written > 50
    print(f"upgrade after {seconds:.0f} s, {writer.written} documents written meanwhile")
    assert releases(store) == dict.fromkeys(NODES, RELEASE)
    assert {host.package("elasticsearch").version for host in hosts.values()} == {RELEASE}
    after = dict(zip(NODES, started(hosts), strict=True))
    assert all(new > old for new, old in zip(after.values(), before, strict=True)), "every node was restarted"
    assert max(after, key=after.get) == leader, "the elected master last"
    times = {name: replacement(host) for name, host in hosts.items()}
    print(times)
    assert all(node.ended <= node.replaced <= node.started for node in times.values()), (
        "no program that runs is replaced"
    )
    # The index of midnight has its copy only when a second node can hold it.
    assert len(midnight.upgraded) == 1
    assert_one_after_another(observer.seen, after_the_first="[wn]+")
    assert any(sight == Sight(3, "yellow", False) for sight in observer.seen)
    shards = [shard for shard in store.ask("GET", "/_cat/shards?format=json") if shard["index"] == NEXT_INDEX]
    assert [shard["state"] for shard in shards] == ["STARTED", "STARTED"]
    store.ask("POST", f"/{NEXT_INDEX}/_refresh")
    assert store.ask("GET", f"/{NEXT_INDEX}/_count")["count"] == 1
    assert clusters(store) == cluster


def test_nodes_are_restarted_one_after_another_and_lose_nothing(
    hosts: dict[str, Host], store: Store, apply: Apply, writer: Writer, observer: Observer
) -> None:
    before, cluster = started(hosts), clusters(store)
    leader = store.ask("GET", "/_cat/master?format=json")[0]["node"]
    answer = apply(PROJECT / "playbooks/rolling_restart_elasticsearch.yml")
    assert not answer.failed, answer.output
    assert writer.stored() == writer.written > 50
    after = dict(zip(NODES, started(hosts), strict=True))
    assert all(new > old for new, old in zip(after.values(), before, strict=True)), "every node was restarted"
    assert max(after, key=after.get) == leader, "the elected master last"
    assert_one_after_another(observer.seen)
    assert clusters(store) == cluster


def test_changed_setting_goes_node_by_node(
    hosts: dict[str, Host], store: Store, apply: Apply, writer: Writer, observer: Observer, changed: str
) -> None:
    """On two of the nodes; the third is left alone."""
    before = started(hosts)
    answer = apply(elasticsearch_settings=changed)
    assert not answer.failed, answer.output
    assert [new > old for new, old in zip(started(hosts), before, strict=True)] == [True, True, False]
    assert writer.stored() == writer.written > 50
    assert min(sight.nodes for sight in observer.seen) == 2
    health = store.ask("GET", "/_cluster/health")
    assert (health["status"], health["number_of_nodes"]) == ("green", 3)
    assert not observer.held()


def test_node_that_lost_its_data_joins_again(hosts: dict[str, Host], store: Store, apply: Apply, changed: str) -> None:
    """A node without data is what a new host is, too: no second cluster is ever formed."""
    cluster = clusters(store)
    lost = hosts[NODES[2]]
    lost.check_output("systemctl stop elasticsearch.service")
    lost.check_output("find /var/lib/elasticsearch -mindepth 1 -delete")
    answer = apply(elasticsearch_settings=changed)
    assert not answer.failed, answer.output
    assert clusters(store) == cluster
    health = store.green()
    assert (health["status"], health["number_of_nodes"]) == ("green", 3)


def test_data_of_different_clusters_are_refused(hosts: dict[str, Host], apply: Apply) -> None:
    for number, host in enumerate(hosts.values()):
        name, value = "cluster_uuid", f"cluster-{number}-of-the-test"
        content = f"\\x{len(name):02x}{name}\\x{len(value):02x}{value}"
        host.check_output(f"mkdir -p /srv/other/_state && printf '{content}' > /srv/other/_state/segments_1")
    before = started(hosts)
    answer = apply(elasticsearch_data_directory="/srv/other")
    assert answer.failed
    assert "hold the data of different clusters (elasticsearch-node1: cluster-0-of-the-test" in answer.words
    assert not any(answer.changed.values())
    assert started(hosts) == before


def test_node_that_leaves_is_emptied_first(hosts: dict[str, Host], store: Store, apply: Apply) -> None:
    """The last test: node 3 is out of service afterwards."""
    query = {"query": {"match": {"message": "written meanwhile"}}}
    before = store.ask("POST", f"/{INDEX}/_count", query)["count"]
    leaving = NODES[2]
    answer = apply(PROJECT / "playbooks/decommission.yml", decommission_host=leaving)
    assert not answer.failed, answer.output
    # Replicas that the cluster makes again have their place on the nodes that stay.
    health = store.green()
    assert (health["status"], health["number_of_nodes"]) == ("green", 2)
    assert store.ask("POST", f"/{INDEX}/_count", query)["count"] == before
    assert not hosts[leaving].service("elasticsearch").is_running
    assert not hosts[leaving].file("/etc/elasticsearch/certs").exists
    assert hosts[leaving].file("/var/lib/elasticsearch/_state").exists, "data stays"
