"""What a browser is called in the list of sessions."""

from __future__ import annotations

from flask_babel import gettext

# The first that fits: browsers that pretend to be others come before them.
_BROWSERS = (("Edg", "Edge"), ("OPR/", "Opera"), ("Firefox/", "Firefox"), ("Chrome/", "Chrome"), ("Safari/", "Safari"))
_SYSTEMS = (("Android", "Android"), ("iPhone", "iPhone"), ("iPad", "iPad"), ("Windows", "Windows"),
            ("Mac OS", "macOS"), ("Linux", "Linux"))  # fmt: skip


def describe(user_agent: str) -> str:
    """Return a few words for a browser and its system, such as ``Firefox, Linux``; nothing that it sent itself."""
    parts = [next((name for mark, name in known if mark in user_agent), None) for known in (_BROWSERS, _SYSTEMS)]
    return ", ".join(part for part in parts if part) or gettext("Other device")
