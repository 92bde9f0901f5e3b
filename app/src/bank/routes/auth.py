"""Logging in, in one step or two, and out."""

from __future__ import annotations

import time
import uuid
from typing import TYPE_CHECKING, Any, cast

from flask import Blueprint, flash, g, redirect, render_template, request, session, url_for
from flask_babel import gettext
from flask_login import current_user, login_user
from werkzeug.wrappers import Response

from bank import metrics
from bank.access import VERSION_KEY, start_page
from bank.log import log_security
from bank.permissions import public
from bank.resources import resources
from bank.routes import attempts, devices, judges, log_ins, paths
from bank.routes.people_forms import CodeForm, LoginForm
from bank.services import second_factor, users
from bank.sessions import DEVICE_KEY

if TYPE_CHECKING:
    from bank.sessions import BankSession

blueprint = Blueprint("auth", __name__)
Page = str | Response | tuple[str, int]
PENDING_KEY = "pending"
# How long the second step may take, in seconds.
PENDING_SECONDS = 300
NOBODY = ""
# Looked for when there is nobody to look for, so that the answer takes the same work.
NOBODYS_ID = str(uuid.UUID(int=0))


def own_session() -> BankSession:
    """Return the session itself, past Flask's proxy."""
    return cast("BankSession", session._get_current_object())  # type: ignore[attr-defined]  # noqa: SLF001


def renew_session() -> None:
    """Take an empty session with a new token; the one before, whoever knows it, is worth nothing."""
    own_session().rotate()
    # Forms that this request still shows must carry a token of the new session.
    g.pop("csrf_token", None)


def begin_session(person: users.Person, version: int, seen: dict[str, Any] | None) -> None:
    """Start a session of a person.

    Args:
        person: Whose it is.
        version: Of the credentials that it was begun with.
        seen: What is new about it, from :func:`bank.routes.judges.seen` or the session before it.
    """
    renew_session()
    login_user(person)
    session[VERSION_KEY] = version
    if seen is not None:
        session[judges.NOVELTY_KEY] = seen
    session[DEVICE_KEY] = devices.describe(request.user_agent.string)


@blueprint.route("/login", methods=["GET", "POST"])
@public
def login() -> Page:
    """Show the form; with the right email and password start a new session, or ask for a code.

    Whatever does not log in leads to the same page, which asks for a code: neither that somebody has this email,
    nor that the password was right, can be told from the answer.
    """
    if current_user.is_authenticated:
        return redirect(start_page())
    form = LoginForm()
    if not form.validate_on_submit():
        return render_template("login.html", form=form), 400 if form.is_submitted() else 200
    email = users.normal_email(form.email.data)
    counters = attempts.log_in_counters(email)
    reached = attempts.reserve(counters)
    try:
        person = users.authenticate(resources().engine, email, form.password.data)
        if person is None or person.has_second_factor:
            _refuse_or_ask(person, email, reached=reached)
            return _code_page(CodeForm(formdata=None)), 401
        return _complete(person, email, "password", tries=1)
    except Exception:
        metrics.LOGINS.labels("error", "password").inc()
        raise


def _refuse_or_ask(person: users.Person | None, email: str, *, reached: bool) -> None:
    user_id = person.get_id() if person else NOBODY
    renew_session()
    session[PENDING_KEY] = {"user": user_id, "email": email, "until": time.time() + PENDING_SECONDS, "tries": 1}
    # Both write about as much, so that the time does not tell that the password was right.
    if person is None:
        log_ins.refused("password", None, reached=reached)
    else:
        log_ins.code_asked(person)


def _code_page(form: CodeForm) -> str:
    return render_template("login_code.html", form=form, next=request.args.get("next"))


@blueprint.route("/login/code", methods=["GET", "POST"])
@public
def code() -> Page:
    """Take the second step; a wrong code, a wrong password before it and an unknown email answer alike."""
    pending = session.get(PENDING_KEY)
    if pending is None or time.time() > pending["until"]:
        session.pop(PENDING_KEY, None)
        return redirect(url_for("auth.login", next=request.args.get("next")), 303)
    form = CodeForm()
    if not form.validate_on_submit():
        return _code_page(form), 400 if form.is_submitted() else 200
    email, user_id = pending["email"], pending["user"] or None
    counters = attempts.log_in_counters(email)
    reached = attempts.reserve(counters)
    session[PENDING_KEY] = pending | {"tries": pending["tries"] + 1}
    found = resources()
    factor = second_factor.use(found.engine, found.keys, uuid.UUID(user_id) if user_id else None, form.code.data)
    person = users.find(found.engine, user_id or NOBODYS_ID)
    if factor is None or person is None:
        log_ins.refused("totp", user_id, reached=reached)
        form.code.data = ""
        return _code_page(form), 401
    return _complete(person, email, factor, tries=pending["tries"] + 1)


def _complete(person: users.Person, email: str, factor: str, *, tries: int) -> Response:
    novelty = log_ins.accepted(person, email, factor, tries=tries, knows_device=attempts.knows_device(email))
    begin_session(person, person.credentials_version, judges.seen(novelty))
    if factor == "recovery":
        flash(gettext("You used a recovery code. Make new ones before you run out of them."), "info")
    response = redirect(paths.local(request.args.get("next", "")), 303)
    attempts.remember_device(response, email)
    return response


@blueprint.post("/logout")
@public
def logout() -> Page:
    """End the session here and in Redis."""
    if current_user.is_authenticated:
        log_security("logged out", action="log-out", outcome="success", kind="end", user_id=current_user.get_id())
    renew_session()
    flash(gettext("You are logged out."), "info")
    return redirect(url_for("auth.login"), 303)
