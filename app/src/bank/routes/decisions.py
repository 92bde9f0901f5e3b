"""What waits for a second pair of eyes: movements of money, and changes of roles."""

from __future__ import annotations

import uuid  # noqa: TC003  (the router's converter gives this type)
from typing import TYPE_CHECKING

from flask import Blueprint, abort, flash, redirect, render_template, request, url_for
from flask_babel import gettext
from flask_login import current_user

from bank import metrics
from bank.access import origin
from bank.log import logger
from bank.permissions import Permission, requires
from bank.resources import resources
from bank.routes import refusals
from bank.routes.staff_forms import ROLES
from bank.services import approvals, ledger, sign_ups, staffing, users

if TYPE_CHECKING:
    from werkzeug.wrappers import Response

blueprint = Blueprint("decisions", __name__, url_prefix="/staff")
MAX_REASON = 140


@blueprint.get("/approvals")
@requires(Permission.APPROVALS_READ)
def queue() -> str:
    """Show the movements that wait, the oldest first, with who asked for them."""
    return render_template("staff/approvals.html", waiting=approvals.pending(resources().engine))


@blueprint.post("/approvals/<uuid:approval_id>/approve")
@requires(Permission.APPROVALS_DECIDE)
def approve(approval_id: uuid.UUID) -> Response:
    """Carry out a movement that somebody else asked for."""
    try:
        approvals.approve(resources().engine, approval_id, current_user.id, origin())
    except ledger.LedgerError as error:
        return _refused(error, "approve")
    _log("approve", "success")
    flash(gettext("Approved and carried out."), "success")
    return redirect(url_for("decisions.queue"), 303)


@blueprint.post("/approvals/<uuid:approval_id>/reject")
@requires(Permission.APPROVALS_DECIDE)
def reject(approval_id: uuid.UUID) -> Response:
    """Refuse a movement that somebody else asked for; its money is available again."""
    reason = request.form.get("reason", "").strip()
    if len(reason) > MAX_REASON or not reason.isprintable():
        abort(400)
    try:
        approvals.reject(resources().engine, approval_id, current_user.id, reason, origin())
    except ledger.LedgerError as error:
        return _refused(error, "reject")
    _log("reject", "success")
    flash(gettext("Rejected. The amount is available again."), "success")
    return redirect(url_for("decisions.queue"), 303)


def _refused(error: ledger.LedgerError, action: str) -> Response:
    if isinstance(error, approvals.ApprovalNotFoundError):
        abort(404)
    _log(action, "failure", type(error).__name__)
    if isinstance(error, approvals.OwnApprovalError):
        abort(403)
    flash(refusals.explain(error), "error")
    return redirect(url_for("decisions.queue"), 303)


def _log(action: str, outcome: str, reason: str = "") -> None:
    if outcome == "success":
        metrics.TRANSFERS.labels("approval", "approved" if action == "approve" else "rejected").inc()
    logger.info(
        f"approval: {action} {outcome}",
        **{
            "event.dataset": "bank.audit",
            "event.kind": "event",
            "event.category": ["process"],
            "event.type": ["change"],
            "event.action": f"approval-{action}",
            "event.outcome": outcome,
            "event.reason": reason,
            "user.id": current_user.get_id(),
        },
    )


@blueprint.get("/sign-ups")
@requires(Permission.SIGN_UPS_DECIDE)
def waiting_sign_ups() -> str:
    """Show who asks to become a customer, the oldest first."""
    return render_template("staff/sign_ups.html", waiting=sign_ups.pending_sign_ups(resources().engine))


@blueprint.post("/sign-ups/<uuid:sign_up_id>/approve")
@requires(Permission.SIGN_UPS_DECIDE)
def approve_sign_up(sign_up_id: uuid.UUID) -> Response:
    """Make a customer of who asked, with a first account."""
    try:
        sign_ups.approve_sign_up(resources().engine, sign_up_id, origin())
    except sign_ups.SignUpNotFoundError:
        abort(404)
    except users.EmailTakenError:
        flash(gettext("A user has this email already; the sign-up can only be rejected."), "error")
    else:
        flash(gettext("Approved: the customer can log in and has a first account."), "success")
    return redirect(url_for("decisions.waiting_sign_ups"), 303)


@blueprint.post("/sign-ups/<uuid:sign_up_id>/reject")
@requires(Permission.SIGN_UPS_DECIDE)
def reject_sign_up(sign_up_id: uuid.UUID) -> Response:
    """Turn somebody down and forget what they told."""
    try:
        sign_ups.reject_sign_up(resources().engine, sign_up_id, origin())
    except sign_ups.SignUpNotFoundError:
        abort(404)
    flash(gettext("Rejected; what was told is deleted."), "success")
    return redirect(url_for("decisions.waiting_sign_ups"), 303)


@blueprint.get("/role-changes")
@requires(Permission.ROLES_DECIDE)
def role_changes() -> str:
    """Show the changes of roles that wait."""
    return render_template("staff/role_changes.html", waiting=staffing.waiting(resources().engine), roles=ROLES)


@blueprint.post("/role-changes/<uuid:change_id>/approve")
@requires(Permission.ROLES_DECIDE)
def approve_role(change_id: uuid.UUID) -> Response:
    """Agree to a change of role that somebody else asked for."""
    return _decide_role(change_id, approve=True)


@blueprint.post("/role-changes/<uuid:change_id>/reject")
@requires(Permission.ROLES_DECIDE)
def reject_role(change_id: uuid.UUID) -> Response:
    """Refuse a change of role."""
    return _decide_role(change_id, approve=False)


def _decide_role(change_id: uuid.UUID, *, approve: bool) -> Response:
    try:
        staffing.decide(resources().engine, origin(), change_id, approve=approve)
    except staffing.NotFoundError:
        abort(404)
    except staffing.OwnCaseError:
        abort(403)
    except staffing.AlreadyDoneError:
        flash(gettext("Somebody has decided about this already."), "error")
    else:
        flash(gettext("The role was changed.") if approve else gettext("The role stays as it was."), "success")
    return redirect(url_for("decisions.role_changes"), 303)
