"""Forms about people and their log-in; the CSRF token is part of each."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING

from flask_babel import gettext
from flask_babel import lazy_gettext as _
from flask_wtf import FlaskForm
from wtforms import HiddenField, PasswordField, StringField
from wtforms.validators import DataRequired, Length, Regexp, ValidationError

from bank.routes.forms import printable
from bank.services.passwords import MAX_LENGTH
from bank.services.sign_ups import MAX_NAME
from bank.services.users import MAX_EMAIL

if TYPE_CHECKING:
    from wtforms import Field


def _no_nul(_form: FlaskForm, field: Field) -> None:
    # PostgreSQL cannot store it, and nobody types it.
    if "\x00" in (field.data or ""):
        raise ValidationError(gettext("Use letters, digits and punctuation only."))


def _uuid(_form: FlaskForm, field: Field) -> None:
    try:
        uuid.UUID(field.data)
    except ValueError:
        raise ValidationError(gettext("Reload the page.")) from None


class LoginForm(FlaskForm):  # type: ignore[misc]
    """Email and password; nothing is said about which of them is wrong."""

    email = StringField(_("Email"), validators=[DataRequired(_("Enter your email.")), Length(max=MAX_EMAIL)])
    password = PasswordField(
        _("Password"), validators=[DataRequired(_("Enter your password.")), Length(max=MAX_LENGTH)]
    )


class CodeForm(FlaskForm):  # type: ignore[misc]
    """A code of the authenticator app, or a recovery code."""

    code = StringField(_("Code"), validators=[DataRequired(_("Enter the code.")), Length(max=64), printable])


class SignUpForm(FlaskForm):  # type: ignore[misc]
    """What a new customer tells the bank. The hidden key makes it safe to send the form twice."""

    key = HiddenField(validators=[DataRequired(_("Reload the page.")), _uuid])
    display_name = StringField(
        _("Name"), validators=[DataRequired(_("Enter your name.")), Length(max=MAX_NAME), printable]
    )
    email = StringField(
        _("Email"),
        validators=[
            DataRequired(_("Enter your email.")),
            Length(max=MAX_EMAIL),
            printable,
            Regexp(r"\s*[^@\s]+@[^@\s]+\s*$", message=_("Enter an email address, such as name@example.com.")),
        ],
    )
    # How long it must be is for the bank's own rules to say, in one place.
    password = PasswordField(_("Password"), validators=[DataRequired(_("Enter a password.")), _no_nul])


class PasswordForm(FlaskForm):  # type: ignore[misc]
    """The password now, and the one from now on."""

    current = PasswordField(
        _("Current password"), validators=[DataRequired(_("Enter your password.")), Length(max=MAX_LENGTH)]
    )
    new = PasswordField(_("New password"), validators=[DataRequired(_("Enter a password.")), _no_nul])


class EnrolForm(FlaskForm):  # type: ignore[misc]
    """Proof that the authenticator app works, and of who sets it up."""

    code = StringField(
        _("Code"), validators=[DataRequired(_("Enter the code that the app shows.")), Length(max=64), printable]
    )
    password = PasswordField(
        _("Password"), validators=[DataRequired(_("Enter your password.")), Length(max=MAX_LENGTH)]
    )


class EndSessionForm(FlaskForm):  # type: ignore[misc]
    """Which session to end."""

    session = HiddenField(validators=[DataRequired(), Length(max=64), printable])
