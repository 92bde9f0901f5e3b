"""Dashboards in a folder: read before anything of them reaches a host, and given the site's address of its runbooks."""

from __future__ import annotations

import json
from pathlib import Path

from ansible.errors import AnsibleFilterError

RUNBOOKS = "docs/runbooks/"


def grafana_dashboards(folder: str) -> list[dict[str, str]]:
    """Return file, uid and title of every dashboard of a folder, in the order of their files.

    Raises:
        AnsibleFilterError: a file is no dashboard that Grafana can keep under a name of its own; the text names it.
    """
    found: dict[str, dict[str, str]] = {}
    for path in sorted(Path(folder).glob("*.json")):
        try:
            document = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise AnsibleFilterError(f"{path} is not JSON ({error}): export the dashboard again.") from error
        if not isinstance(document, dict) or not document.get("title") or "panels" not in document:
            raise AnsibleFilterError(f"{path} is no dashboard, which has a title and panels: export it again as JSON.")
        uid = document.get("uid")
        if not uid:
            raise AnsibleFilterError(f"{path} has no uid, so that no link can lead to it: give it one.")
        if document.get("id") is not None:
            raise AnsibleFilterError(f"{path} has the id {document['id']} of another Grafana: set its id to null.")
        if uid in found:
            raise AnsibleFilterError(
                f"{path} and {Path(folder) / found[uid]['file']} have the same uid {uid}: give one of them another."
            )
        found[uid] = {"file": path.name, "uid": uid, "title": document["title"]}
    if not found:
        raise AnsibleFilterError(f"{folder} holds no dashboards (*.json): correct grafana_dashboard_directory.")
    return list(found.values())


def grafana_dashboard_text(path: str, runbook_base_url: str) -> str:
    """Return the text of a dashboard whose links to runbooks lead somewhere.

    Runbooks are named by their paths in the repository. Where nobody says under which address people find it, the links
    are left out.
    """
    document = json.loads(Path(path).read_text(encoding="utf-8"))
    links = []
    for link in document.get("links", []):
        address = link.get("url", "")
        if address.startswith(RUNBOOKS):
            if not runbook_base_url:
                continue
            link["url"] = f"{runbook_base_url.rstrip('/')}/{address}"
        links.append(link)
    document["links"] = links
    return json.dumps(document, indent=1, ensure_ascii=False) + "\n"


class FilterModule:
    """Filters offered to the role."""

    def filters(self) -> dict[str, object]:
        """Return the filters by name."""
        return {"grafana_dashboards": grafana_dashboards, "grafana_dashboard_text": grafana_dashboard_text}
