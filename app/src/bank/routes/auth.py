"""Logging in and out."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import structlog
from flask import Blueprint, flash, redirect, render_template, request, session, url_for
from flask_babel import gettext
from flask_login import current_user, login_user
from werkzeug.wrappers import Response

from bank import metrics
from bank.log import logger
from bank.resources import resources
from bank.routes import paths
from bank.routes.forms import LoginForm
from bank.services import users

if TYPE_CHECKING:
    from bank.sessions import BankSession

blueprint = Blueprint("auth", __name__)
Page = str | Response | tuple[str, int]


def _event(outcome: str, user_id: str | None = None) -> dict[str, object]:
    fields: dict[str, object] = {
        "event.dataset": "bank.user_behavior",
        "event.kind": "event",
        "event.category": ["authentication"],
        "event.type": ["start"],
        "event.action": "log-in",
        "event.outcome": outcome,
    }
    return fields | ({"user.id": user_id} if user_id else {})


@blueprint.route("/login", methods=["GET", "POST"])
def login() -> Page:
    """Show the form; with the right email and password start a new session."""
    if current_user.is_authenticated:
        return redirect(url_for("accounts.overview"))
    form = LoginForm()
    if not form.validate_on_submit():
        return render_template("login.html", form=form), 400 if form.is_submitted() else 200
    try:
        person = users.authenticate(resources().engine, form.email.data, form.password.data)
    except Exception:
        metrics.LOGINS.labels("error", "password").inc()
        raise
    if person is None:
        metrics.LOGINS.labels("failure", "password").inc()
        logger.warning("log-in refused", **_event("failure"))
        return render_template("login.html", form=form, refused=True), 401
    target = paths.local(request.args.get("next", ""))
    cast("BankSession", session._get_current_object()).rotate()  # type: ignore[attr-defined]  # noqa: SLF001
    login_user(person)
    metrics.LOGINS.labels("success", "password").inc()
    logger.info("logged in", **_event("success", person.get_id()))
    return redirect(target, 303)


@blueprint.post("/logout")
def logout() -> Page:
    """End the session here and in Redis."""
    if current_user.is_authenticated:
        structlog.contextvars.bind_contextvars(**{"user.id": current_user.get_id()})
        logger.info("logged out", **(_event("success") | {"event.action": "log-out", "event.type": ["end"]}))
    cast("BankSession", session._get_current_object()).rotate()  # type: ignore[attr-defined]  # noqa: SLF001
    flash(gettext("You are logged out."), "info")
    return redirect(url_for("auth.login"), 303)
