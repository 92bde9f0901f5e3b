"""Paths of this site, as far as a form or a link may name one to go on with."""

from __future__ import annotations

import re
from urllib.parse import quote

from flask import request

from bank import access

# A single slash, then nothing that a browser could take for another host.
_LOCAL = re.compile(r"/(?:[A-Za-z0-9_.~-][A-Za-z0-9_.~/?=&%+-]*)?", re.ASCII)


def local(wanted: str) -> str:
    """Return the path if it leads to a page of this site, else that of the start page."""
    return wanted if _LOCAL.fullmatch(wanted) else access.start_page()


def here() -> str:
    """Return path and query of this request, as ``local`` understands them."""
    query = request.query_string.decode("latin-1")
    return quote(request.path) + (f"?{query}" if query else "")
