"""One's own log-in: password, second factor and sessions."""

from __future__ import annotations

import base64

import segno
from flask import Blueprint, abort, flash, redirect, render_template, session, url_for
from flask_babel import gettext
from flask_login import current_user
from markupsafe import Markup
from werkzeug.wrappers import Response

from bank.access import origin
from bank.keys import UnsealError
from bank.log import log_security
from bank.permissions import Permission, requires
from bank.resources import resources
from bank.routes import attempts, judges
from bank.routes.auth import begin_session, own_session
from bank.routes.people_forms import CodeForm, EndSessionForm, EnrolForm, PasswordForm
from bank.services import passwords, second_factor, users
from bank.sessions import SessionDirectory

blueprint = Blueprint("security", __name__, url_prefix="/security")
Page = str | Response | tuple[str, int]
SEED_KEY = "enrolment"
SEED_PURPOSE = "enrolment"


@blueprint.get("")
@requires(Permission.OWN_SECURITY)
def overview() -> str:
    """Show what protects the person's log-in, and where they are logged in."""
    found = resources()
    return render_template(
        "security/overview.html",
        factor=second_factor.state(found.engine, current_user.id),
        sessions=SessionDirectory(found.redis).of(current_user.get_id()),
        current=own_session().id,
        form=EndSessionForm(),
    )


def _changed(action: str, message: str) -> None:
    log_security(message, action=action, outcome="success", category="iam", kind="change")


def _refused(action: str, reason: str) -> None:
    log_security("change refused", action=action, outcome="failure", category="iam", kind="change", reason=reason)


def _renew_session(version: int) -> None:
    """End every session of the person and go on in a new one."""
    SessionDirectory(resources().redis).end_all(current_user.get_id(), keep=own_session().id)
    begin_session(
        users.Person(current_user.id, current_user.display_name, current_user.role),
        version,
        session.get(judges.NOVELTY_KEY),
    )


@blueprint.route("/password", methods=["GET", "POST"])
@requires(Permission.OWN_SECURITY)
def password() -> Page:
    """Change the password; all other sessions end."""
    form = PasswordForm()
    if not form.validate_on_submit():
        return render_template("security/password.html", form=form), 400 if form.is_submitted() else 200
    counters = [attempts.own_counter(current_user.get_id())]
    attempts.reserve(counters)
    try:
        version = users.change_password(resources().engine, current_user.id, form.current.data, form.new.data, origin())
    except users.WrongPasswordError:
        _refused("password-change", "wrong password")
        form.current.errors = [gettext("This is not your password.")]
    except passwords.PasswordError as error:
        attempts.succeeded(counters)
        form.new.errors = [gettext(error.text)]
    else:
        attempts.succeeded(counters)
        _changed("password-change", "password changed")
        _renew_session(version)
        flash(gettext("Your password is changed, and all other sessions are ended."), "success")
        return redirect(url_for("security.overview"), 303)
    return render_template("security/password.html", form=form), 422


def _seed() -> str:
    """Return the seed that the person is setting up; it waits in the session, encrypted."""
    keys, owner = resources().keys, current_user.get_id()
    if waiting := session.get(SEED_KEY):
        try:
            return keys.unseal(SEED_PURPOSE, base64.b64decode(waiting), owner)[0].decode()
        except UnsealError:  # the secret was changed meanwhile
            pass
    seed = second_factor.new_seed()
    session[SEED_KEY] = base64.b64encode(keys.seal(SEED_PURPOSE, seed.encode(), owner)).decode()
    return seed


def _enrolment_page(form: EnrolForm, status: int) -> Page:
    seed = _seed()
    uri = second_factor.enrolment_uri(seed, users.email_of(resources().engine, current_user.id))
    # The picture is made here from our own text, without any style that the content policy would refuse.
    picture = Markup(segno.make(uri, error="m").svg_inline(scale=5, border=2, dark="#000", light="#fff"))  # noqa: S704
    seed_groups = " ".join(seed[start : start + 4] for start in range(0, len(seed), 4))
    return render_template("security/enrol.html", form=form, picture=picture, seed=seed_groups), status


@blueprint.route("/second-factor", methods=["GET", "POST"])
@requires(Permission.OWN_SECURITY)
def enrol() -> Page:
    """Set the second factor up; then show the recovery codes, this one time."""
    if current_user.has_second_factor:
        return redirect(url_for("security.overview"), 303)
    form = EnrolForm()
    if not form.validate_on_submit():
        return _enrolment_page(form, 400 if form.is_submitted() else 200)
    counters = [attempts.own_counter(current_user.get_id())]
    attempts.reserve(counters)
    found = resources()
    try:
        users.confirm_password(found.engine, current_user.id, form.password.data)
        codes, version = second_factor.enrol(
            found.engine, found.keys, current_user.id, seed=_seed(), code=form.code.data, origin=origin()
        )
    except users.WrongPasswordError:
        _refused("second-factor-enrol", "wrong password")
        form.password.errors = [gettext("This is not your password.")]
    except second_factor.WrongCodeError:
        _refused("second-factor-enrol", "wrong code")
        form.code.errors = [gettext("This code does not fit. Check the clock of your phone and use the next code.")]
    except second_factor.AlreadyEnrolledError:
        return redirect(url_for("security.overview"), 303)
    else:
        attempts.succeeded(counters)
        _changed("second-factor-enrol", "second factor set up")
        _renew_session(version)
        return render_template("security/recovery_codes.html", codes=codes)
    form.code.data = ""
    return _enrolment_page(form, 422)


@blueprint.route("/recovery-codes", methods=["GET", "POST"])
@requires(Permission.OWN_SECURITY)
def recovery_codes() -> Page:
    """Make new recovery codes against a code of the app, and show them, this one time."""
    if not current_user.has_second_factor:
        return redirect(url_for("security.enrol"), 303)
    form = CodeForm()
    if not form.validate_on_submit():
        return render_template("security/renew_codes.html", form=form), 400 if form.is_submitted() else 200
    counters = [attempts.own_counter(current_user.get_id())]
    attempts.reserve(counters)
    found = resources()
    if second_factor.use(found.engine, found.keys, current_user.id, form.code.data) is None:
        _refused("recovery-codes-renew", "wrong code")
        form.code.errors = [gettext("This code does not fit. Check the clock of your phone and use the next code.")]
        form.code.data = ""
        return render_template("security/renew_codes.html", form=form), 422
    attempts.succeeded(counters)
    codes = second_factor.renew_recovery_codes(found.engine, current_user.id, origin())
    _changed("recovery-codes-renew", "recovery codes renewed")
    return render_template("security/recovery_codes.html", codes=codes)


@blueprint.post("/sessions/end")
@requires(Permission.OWN_SECURITY)
def end_session() -> Page:
    """End one of the person's sessions; one of somebody else does not exist."""
    form = EndSessionForm()
    if not form.validate_on_submit():
        abort(400)
    if not SessionDirectory(resources().redis).end(current_user.get_id(), form.session.data):
        abort(404)
    log_security("session ended", action="session-end", outcome="success", kind="end")
    flash(gettext("The session is ended."), "success")
    return redirect(url_for("security.overview"), 303)


@blueprint.post("/sessions/end-others")
@requires(Permission.OWN_SECURITY)
def end_other_sessions() -> Page:
    """End all of the person's sessions but this one."""
    SessionDirectory(resources().redis).end_all(current_user.get_id(), keep=own_session().id)
    log_security("other sessions ended", action="session-end", outcome="success", kind="end")
    flash(gettext("All other sessions are ended."), "success")
    return redirect(url_for("security.overview"), 303)
