"""What Metricbeat has read, by its figures about itself."""

from __future__ import annotations

from typing import Any

# Each set is asked for within two seconds of a start, and has eight to answer. One that is silent then has nothing
# to say, such as the keys of an empty Redis.
SILENT_MS = 12_000


def metricbeat_unread(modules: list[dict[str, Any]], stats: dict[str, Any]) -> list[str]:
    """Return the declared sets of figures that were not read, or may still be, such as ``redis.info``.

    Args:
        modules: Entries with ``module`` and ``metricsets``.
        stats: The answer of Metricbeat's own ``/stats``.
    """
    figures = stats.get("metricbeat") or {}
    uptime = (((stats.get("beat") or {}).get("info") or {}).get("uptime") or {}).get("ms", 0)
    unread = []
    for entry in modules:
        for name in entry["metricsets"]:
            counts = (figures.get(entry["module"]) or {}).get(name) or {}
            if not counts.get("success") and (counts.get("failures") or uptime < SILENT_MS):
                unread.append(f"{entry['module']}.{name}")
    return unread


class FilterModule:
    """Offer the filter to Ansible."""

    def filters(self) -> dict[str, Any]:
        """Return the filter by its name."""
        return {"metricbeat_unread": metricbeat_unread}
