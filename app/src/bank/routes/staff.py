"""The staff's start page, and looking after users."""

from __future__ import annotations

import uuid  # noqa: TC003  (the router's converter gives this type)
from typing import TYPE_CHECKING

from flask import Blueprint, abort, flash, redirect, render_template, url_for
from flask_babel import gettext
from flask_login import current_user
from werkzeug.wrappers import Response

from bank.access import origin
from bank.permissions import Permission, requires
from bank.resources import resources
from bank.routes.kinds import DECISIONS, STATES
from bank.routes.staff_forms import ROLES, FindUserForm, RoleForm
from bank.services import alerts, approvals, screening, sign_ups, staffing

if TYPE_CHECKING:
    from collections.abc import Callable

blueprint = Blueprint("staff", __name__, url_prefix="/staff")
Page = str | Response | tuple[str, int]
LATEST_RESOLVED = 20


@blueprint.get("")
@requires(Permission.STAFF_HOME)
def home() -> str:
    """Show what the person's role is for, and what waits."""
    engine = resources().engine
    waiting = {}
    if current_user.may(Permission.APPROVALS_READ):
        waiting["approvals"] = approvals.count_pending(engine)
    if current_user.may(Permission.SIGN_UPS_DECIDE):
        waiting["sign_ups"] = len(sign_ups.pending_sign_ups(engine))
    if current_user.may(Permission.ROLES_DECIDE):
        waiting["roles"] = len(staffing.waiting(engine))
    if current_user.may(Permission.ALERTS_READ):
        waiting["alerts"] = len(alerts.list_of(engine, status=alerts.FIRING))
    return render_template("staff/home.html", waiting=waiting, role=ROLES.get(current_user.role, current_user.role))


@blueprint.get("/alerts")
@requires(Permission.ALERTS_READ)
def alerts_open() -> str:
    """Show the alerts that monitoring sent: what is open, and what ended last."""
    engine = resources().engine
    return render_template(
        "staff/alerts.html",
        firing=alerts.list_of(engine, status=alerts.FIRING),
        resolved=alerts.list_of(engine, status=alerts.RESOLVED, length=LATEST_RESOLVED),
    )


@blueprint.get("/fraud")
@requires(Permission.FRAUD_READ)
def fraud() -> str:
    """Show the latest orders that looked like fraud, and what became of them."""
    return render_template(
        "staff/fraud.html", found=screening.suspicious(resources().engine), decisions=DECISIONS, states=STATES
    )


@blueprint.route("/users", methods=["GET", "POST"])
@requires(Permission.USERS_MANAGE)
def users() -> Page:
    """Show everybody who works for the bank, and find any user by email."""
    form = FindUserForm()
    status = 200
    if form.is_submitted():
        found = staffing.find(resources().engine, form.email.data or "") if form.validate() else None
        if found:
            return redirect(url_for("staff.user", user_id=found), 303)
        if not form.errors:
            form.email.errors = [gettext("Nobody has exactly this email.")]
        status = 404
    people = staffing.staff(resources().engine)
    return render_template("staff/users.html", form=form, people=people, roles=ROLES), status


@blueprint.get("/users/<uuid:user_id>")
@requires(Permission.USERS_MANAGE)
def user(user_id: uuid.UUID) -> Page:
    """Show a user and what can be changed."""
    person = staffing.get(resources().engine, user_id)
    if person is None:
        abort(404)
    form = RoleForm(role=person.role)
    asked = [change for change in staffing.waiting(resources().engine) if change.user_id == user_id]
    return render_template("staff/user.html", person=person, form=form, asked=asked, roles=ROLES)


@blueprint.post("/users/<uuid:user_id>/disable")
@requires(Permission.USERS_MANAGE)
def disable(user_id: uuid.UUID) -> Page:
    """Lock a user out at once."""
    return _act(
        user_id,
        lambda: staffing.set_enabled(resources().engine, origin(), user_id, enabled=False),
        gettext("The user is disabled, and every session has ended."),
    )


@blueprint.post("/users/<uuid:user_id>/enable")
@requires(Permission.USERS_MANAGE)
def enable(user_id: uuid.UUID) -> Page:
    """Let a user log in again."""
    return _act(
        user_id,
        lambda: staffing.set_enabled(resources().engine, origin(), user_id, enabled=True),
        gettext("The user can log in again."),
    )


@blueprint.post("/users/<uuid:user_id>/second-factor/remove")
@requires(Permission.USERS_MANAGE)
def remove_second_factor(user_id: uuid.UUID) -> Page:
    """Take a lost second factor away; the user logs in with the password and sets up another."""
    return _act(
        user_id,
        lambda: staffing.remove_second_factor(resources().engine, origin(), user_id),
        gettext("The second factor is removed, and every session has ended."),
    )


@blueprint.post("/users/<uuid:user_id>/role")
@requires(Permission.USERS_MANAGE)
def ask_for_role(user_id: uuid.UUID) -> Page:
    """Ask for another role; somebody else decides."""
    form = RoleForm()
    if not form.validate():
        abort(400)
    return _act(
        user_id,
        lambda: staffing.ask_for_role(resources().engine, origin(), user_id, form.role.data),
        gettext("Asked for. Another administrator or a supervisor must agree."),
    )


def _act(user_id: uuid.UUID, work: Callable[[], None], done: str) -> Page:
    try:
        work()
    except staffing.NotFoundError:
        abort(404)
    except staffing.OwnCaseError:
        flash(gettext("You cannot change anything about yourself."), "error")
    except staffing.AlreadyDoneError:
        flash(gettext("Nothing was changed: it is so already, or it waits for a decision."), "error")
    else:
        flash(done, "success")
    return redirect(url_for("staff.user", user_id=user_id), 303)
