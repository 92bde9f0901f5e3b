"""Asking to become a customer."""

from __future__ import annotations

import uuid

from flask import Blueprint, flash, redirect, render_template, url_for
from flask_babel import gettext
from flask_login import current_user
from werkzeug.wrappers import Response  # noqa: TC002  (part of the views' types)

from bank.access import start_page
from bank.log import log_security
from bank.permissions import public
from bank.resources import resources
from bank.routes import attempts
from bank.routes.people_forms import SignUpForm
from bank.services import passwords, sign_ups

blueprint = Blueprint("sign_up", __name__)


@blueprint.route("/sign-up", methods=["GET", "POST"])
@public
def form() -> str | Response | tuple[str, int]:
    """Show the form and take the request; a known email gets the same answer as a new one."""
    if current_user.is_authenticated:
        return redirect(start_page())
    sheet = SignUpForm()
    if not sheet.is_submitted():
        sheet.key.data = str(uuid.uuid4())
    if not sheet.validate_on_submit():
        return render_template("sign_up.html", form=sheet), 400 if sheet.is_submitted() else 200
    attempts.reserve([attempts.address_counter("sign-up", resources().settings.login.sign_ups_per_address)])
    try:
        sign_ups.ask(
            resources().engine,
            uuid.UUID(sheet.key.data),
            email=sheet.email.data,
            display_name=sheet.display_name.data,
            password=sheet.password.data,
        )
    except passwords.PasswordError as error:
        sheet.password.errors = [gettext(error.text)]
        return render_template("sign_up.html", form=sheet), 400
    log_security("sign-up asked", action="sign-up", outcome="success", category="iam", kind="creation")
    flash(gettext("Thank you. We check your details; you can log in once we have opened your account."), "success")
    return redirect(url_for("auth.login"), 303)
