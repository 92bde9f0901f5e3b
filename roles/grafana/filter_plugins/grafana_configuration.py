"""Parts of Grafana's configuration that follow from lists: data sources of servers, settings by their whole names."""

from __future__ import annotations

from typing import Any


def provisioned(secret: str) -> str:
    """Return a secret as a provisioning file holds it, where a dollar sign begins the name of a variable."""
    return secret.replace("$", "$$")


def prometheus_data_sources(names: list[str], port: int, password: str, authority: str) -> list[dict[str, Any]]:
    """Return the data source of every Prometheus; the first has the plain uid, which dashboards name.

    Args:
        names: Host names with their domain.
        port: Port of all of them.
        password: Password of the reader ``grafana``.
        authority: The certificate authority, or how Grafana reads it from a file.
    """
    return [
        {
            "name": f"Prometheus {name}" if place > 1 else "Prometheus",
            "uid": f"prometheus-{place}" if place > 1 else "prometheus",
            "type": "prometheus",
            "url": f"https://{name}:{port}",
            "isDefault": place == 1,
            "basicAuth": True,
            "basicAuthUser": "grafana",
            "jsonData": {
                "httpMethod": "POST",
                "timeInterval": "15s",
                "tlsAuthWithCACert": True,
                "manageAlerts": False,
            },
            "secureJsonData": {"basicAuthPassword": provisioned(password), "tlsCACert": authority},
        }
        for place, name in enumerate(names, start=1)
    ]


def whole_names(settings: dict[str, Any]) -> dict[str, Any]:
    """Return settings that are given by section under their whole names, as in ``server.http_port``."""
    return {
        f"{section}.{name}": value
        for section, values in settings.items()
        if isinstance(values, dict)
        for name, value in values.items()
    }


class FilterModule:
    """Filters offered to the role."""

    def filters(self) -> dict[str, object]:
        """Return the filters by name."""
        return {
            "grafana_prometheus_data_sources": prometheus_data_sources,
            "grafana_provisioned": provisioned,
            "grafana_whole_names": whole_names,
        }
