"""Logging in and out."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from flask import Blueprint, flash, redirect, render_template, request, session, url_for
from flask_babel import gettext
from flask_login import current_user, login_user
from werkzeug.wrappers import Response

from bank import metrics
from bank.access import VERSION_KEY, start_page
from bank.log import log_security
from bank.permissions import public
from bank.resources import resources
from bank.routes import paths
from bank.routes.forms import LoginForm
from bank.services import users

if TYPE_CHECKING:
    from bank.sessions import BankSession

blueprint = Blueprint("auth", __name__)
Page = str | Response | tuple[str, int]


@blueprint.route("/login", methods=["GET", "POST"])
@public
def login() -> Page:
    """Show the form; with the right email and password start a new session."""
    if current_user.is_authenticated:
        return redirect(start_page())
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
        log_security("log-in refused", action="log-in", outcome="failure", kind="start")
        return render_template("login.html", form=form, refused=True), 401
    cast("BankSession", session._get_current_object()).rotate()  # type: ignore[attr-defined]  # noqa: SLF001
    login_user(person)
    session[VERSION_KEY] = person.credentials_version
    metrics.LOGINS.labels("success", "password").inc()
    log_security("logged in", action="log-in", outcome="success", kind="start", user_id=person.get_id())
    return redirect(paths.local(request.args.get("next", "")), 303)


@blueprint.post("/logout")
@public
def logout() -> Page:
    """End the session here and in Redis."""
    if current_user.is_authenticated:
        log_security("logged out", action="log-out", outcome="success", kind="end", user_id=current_user.get_id())
    cast("BankSession", session._get_current_object()).rotate()  # type: ignore[attr-defined]  # noqa: SLF001
    flash(gettext("You are logged out."), "info")
    return redirect(url_for("auth.login"), 303)
