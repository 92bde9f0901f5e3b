"""One's own log-in: password, second factor and sessions."""

from __future__ import annotations

from flask import Blueprint, render_template

from bank.permissions import Permission, requires

blueprint = Blueprint("security", __name__, url_prefix="/security")


@blueprint.get("")
@requires(Permission.OWN_SECURITY)
def overview() -> str:
    """Show what protects the person's log-in."""
    return render_template("security/overview.html")
