"""Which Go module and which packages make each upstream release that the lab builds."""

from collections.abc import Callable

from lab.build.go_release import GoRelease


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


def alertmanager(version: str) -> GoRelease:
    """Return Alertmanager, whose module carries no web pages."""
    return GoRelease(
        name="alertmanager",
        version=version,
        module="github.com/prometheus/alertmanager",
        module_version=f"v{version}",
        programs={"alertmanager": "cmd/alertmanager", "amtool": "cmd/amtool"},
        absent_files={"ui/app/dist/index.html": "No pages are built here: use the API or amtool.\n"},
    )


def postgres_exporter(version: str) -> GoRelease:
    """Return the exporter of PostgreSQL."""
    return GoRelease(
        name="postgres_exporter",
        version=version,
        module="github.com/prometheus-community/postgres_exporter",
        module_version=f"v{version}",
        programs={"postgres_exporter": "cmd/postgres_exporter"},
    )


def redis_exporter(version: str) -> GoRelease:
    """Return the exporter of Redis."""
    return GoRelease(
        name="redis_exporter",
        version=version,
        module="github.com/oliver006/redis_exporter",
        module_version=f"v{version}",
        programs={"redis_exporter": "."},
        version_prefix="v",
        version_variable="main.BuildVersion",
    )


def blackbox_exporter(version: str) -> GoRelease:
    """Return the exporter that looks at services from outside."""
    return GoRelease(
        name="blackbox_exporter",
        version=version,
        module="github.com/prometheus/blackbox_exporter",
        module_version=f"v{version}",
        programs={"blackbox_exporter": "."},
    )


def elasticsearch_exporter(version: str) -> GoRelease:
    """Return the exporter of Elasticsearch."""
    return GoRelease(
        name="elasticsearch_exporter",
        version=version,
        module="github.com/prometheus-community/elasticsearch_exporter",
        module_version=f"v{version}",
        programs={"elasticsearch_exporter": "."},
    )


def pushgateway(version: str) -> GoRelease:
    """Return the gateway that keeps the metrics of jobs that ended."""
    return GoRelease(
        name="pushgateway",
        version=version,
        module="github.com/prometheus/pushgateway",
        module_version=f"v{version}",
        programs={"pushgateway": "."},
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


# By the name of the role that installs it, which is also the name of its version.
RELEASES: dict[str, Callable[[str], GoRelease]] = {
    recipe.__name__: recipe
    for recipe in (
        prometheus,
        node_exporter,
        alertmanager,
        postgres_exporter,
        redis_exporter,
        blackbox_exporter,
        elasticsearch_exporter,
        pushgateway,
    )
}
