"""The audit trail, to be read."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from flask import Blueprint, render_template, request

from bank.permissions import Permission, requires
from bank.resources import resources
from bank.routes import positions
from bank.routes.staff_forms import AuditForm
from bank.services import audit

if TYPE_CHECKING:
    from datetime import date

blueprint = Blueprint("audit", __name__, url_prefix="/staff")


def _midnight(day: date | None, later_days: int = 0) -> datetime | None:
    if day is None:
        return None
    return datetime(day.year, day.month, day.day, tzinfo=UTC) + timedelta(days=later_days)


@blueprint.get("/audit")
@requires(Permission.AUDIT_READ)
def trail() -> str | tuple[str, int]:
    """Show part of the trail, newest first."""
    form = AuditForm(request.args)
    before = positions.from_query("before")
    if not form.validate():
        return render_template("staff/audit.html", form=form, page=audit.Page([], None), asked={}, first=True), 400
    wanted = audit.Filter(
        actor_id=uuid.UUID(form.actor.data) if form.actor.data else None,
        action=form.action.data or None,
        object_id=form.object_id.data or None,
        since=_midnight(form.since.data),
        until=_midnight(form.until.data, 1),
    )
    page = audit.read(resources().engine, wanted, before)
    asked = {field.name: request.args[field.name] for field in form if request.args.get(field.name)}
    return render_template("staff/audit.html", form=form, page=page, asked=asked, first=before is None)
