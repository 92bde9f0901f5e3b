"""Forms of the bank's staff; the CSRF token is part of each."""

from __future__ import annotations

from flask_babel import lazy_gettext as _
from flask_wtf import FlaskForm
from wtforms import DateField, HiddenField, RadioField, SelectChoice, SelectField, StringField
from wtforms.validators import UUID, DataRequired, Length, Optional

from bank.permissions import Role
from bank.routes.forms import printable
from bank.services.ledger import MAX_KEY, MAX_REFERENCE
from bank.services.users import MAX_EMAIL

MAX_REASON = 140
ROLES = {
    Role.CUSTOMER: _("Customer"),
    Role.TELLER: _("Teller"),
    Role.SUPERVISOR: _("Supervisor"),
    Role.AUDITOR: _("Auditor"),
    Role.ADMIN: _("Administrator"),
}


def _reason() -> StringField:
    checks = [DataRequired(_("Enter a reason.")), Length(max=MAX_REASON), printable]
    return StringField(_("Reason"), validators=checks)


class FindForm(FlaskForm):  # type: ignore[misc]
    """Whom to look for. It changes nothing; it is sent as a form so that no address holds an email."""

    words = StringField(
        _("Email or IBAN"), validators=[DataRequired(_("Enter an email or an IBAN.")), Length(max=MAX_EMAIL)]
    )


class FindUserForm(FlaskForm):  # type: ignore[misc]
    """Which user to look for, by email."""

    email = StringField(_("Email"), validators=[DataRequired(_("Enter an email.")), Length(max=MAX_EMAIL)])


class CashForm(FlaskForm):  # type: ignore[misc]
    """Cash at the counter. The hidden key makes it safe to send the form twice."""

    key = HiddenField(validators=[DataRequired(_("Reload the page.")), Length(max=MAX_KEY), printable])
    kind = RadioField(
        _("What the customer does"),
        choices=[SelectChoice("deposit", _("Pays in")), SelectChoice("withdrawal", _("Takes out"))],
        validators=[DataRequired(_("Choose one."))],
    )
    amount = StringField(_("Amount"), validators=[DataRequired(_("Enter an amount.")), Length(max=32)])
    reference = StringField(_("Reference"), validators=[Length(max=MAX_REFERENCE), printable])


class ReversalForm(FlaskForm):  # type: ignore[misc]
    """The reason of a reversal, which the customer sees."""

    key = HiddenField(validators=[DataRequired(_("Reload the page.")), Length(max=MAX_KEY), printable])
    reason = StringField(
        _("Reason"), validators=[DataRequired(_("Enter a reason.")), Length(max=MAX_REASON), printable]
    )


class ReasonForm(FlaskForm):  # type: ignore[misc]
    """Why something is done."""

    reason = StringField(
        _("Reason"), validators=[DataRequired(_("Enter a reason.")), Length(max=MAX_REASON), printable]
    )


class RoleForm(FlaskForm):  # type: ignore[misc]
    """Another role for a user."""

    role = SelectField(
        _("New role"), choices=[SelectChoice(str(role), name) for role, name in ROLES.items()], coerce=Role
    )


class AuditForm(FlaskForm):  # type: ignore[misc]
    """Which part of the audit trail to read. It changes nothing, so it has no token."""

    class Meta(FlaskForm.Meta):  # type: ignore[misc]
        """Without a token."""

        csrf = False

    action = StringField(_("Act"), validators=[Length(max=64), printable])
    object_id = StringField(_("Object's id"), validators=[Length(max=64), printable])
    actor = StringField(_("Actor's id"), validators=[Optional(), UUID(_("Enter an id as the table shows it."))])
    since = DateField(_("From date"), validators=[Optional()])
    until = DateField(_("To date"), validators=[Optional()])
