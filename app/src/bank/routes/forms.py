"""Forms; the CSRF token is part of each."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flask_babel import gettext
from flask_babel import lazy_gettext as _
from flask_wtf import FlaskForm
from wtforms import DateField, HiddenField, PasswordField, SelectChoice, SelectField, StringField
from wtforms.validators import DataRequired, Length, Optional, ValidationError

from bank import account_numbers
from bank.services.beneficiaries import MAX_NAME
from bank.services.ledger import MAX_KEY, MAX_REFERENCE
from bank.services.passwords import MAX_LENGTH
from bank.services.payments import MAX_NAME as MAX_CREDITOR_NAME

if TYPE_CHECKING:
    from wtforms import Field


def printable(_form: FlaskForm, field: Field) -> None:
    """Refuse control characters, which no person types.

    Raises:
        ValidationError: There is one.
    """
    if field.data and not field.data.isprintable():
        raise ValidationError(gettext("Use letters, digits and punctuation only."))


def _account_number(_form: FlaskForm, field: Field) -> None:
    number = account_numbers.normalise(field.data or "")
    if number is None:
        raise ValidationError(gettext("This is not an IBAN of this bank. Check it for a typing error."))
    field.data = number


class ProofForm(FlaskForm):  # type: ignore[misc]
    """What a person proves with that it is they who ask, where that is needed."""

    password = PasswordField(_("Your password"), validators=[Length(max=MAX_LENGTH)])
    code = StringField(_("Code of your app"), validators=[Length(max=64), printable])


class MoneyForm(ProofForm):
    """What every order to move money asks for.

    The hidden key makes it safe to send the form twice, and the hidden seal binds a proof to what was shown.
    """

    key = HiddenField(validators=[DataRequired(_("Reload the page.")), Length(max=MAX_KEY), printable])
    seal = HiddenField(validators=[Length(max=100), printable])
    from_account = SelectField(_("From"), validators=[DataRequired(_("Choose an account to pay from."))], coerce=str)
    amount = StringField(_("Amount"), validators=[DataRequired(_("Enter an amount.")), Length(max=32)])
    reference = StringField(_("Reference"), validators=[Length(max=MAX_REFERENCE), printable])


class OrderForm(MoneyForm):
    """An order to pay to an account of this bank."""

    to_number = StringField(_("To IBAN"), validators=[DataRequired(_("Enter an IBAN.")), _account_number])


def _foreign_iban(_form: FlaskForm, field: Field) -> None:
    number = account_numbers.normalise_iban(field.data or "")
    if number is None:
        raise ValidationError(gettext("This is not an IBAN. Check it for a typing error."))
    if account_numbers.is_own(number):
        raise ValidationError(gettext("This account is at this bank: make a transfer."))
    field.data = number


class PaymentForm(MoneyForm):
    """An order to pay to an account at another bank."""

    creditor_name = StringField(
        _("Name of the recipient"),
        validators=[DataRequired(_("Enter a name.")), Length(max=MAX_CREDITOR_NAME), printable],
    )
    creditor_iban = StringField(_("To IBAN"), validators=[DataRequired(_("Enter an IBAN.")), _foreign_iban])


class BeneficiaryForm(ProofForm):
    """A new beneficiary."""

    name = StringField(_("Name"), validators=[DataRequired(_("Enter a name.")), Length(max=MAX_NAME), printable])
    number = StringField("IBAN", validators=[DataRequired(_("Enter an IBAN.")), _account_number])


class SearchForm(FlaskForm):  # type: ignore[misc]
    """What to look for in a history. It changes nothing and its address can be kept, so it has no token."""

    class Meta(FlaskForm.Meta):  # type: ignore[misc]
        """Without a token."""

        csrf = False

    text = StringField(_("Name, reference or number"), validators=[Length(max=MAX_REFERENCE), printable])
    kind = SelectField(_("Kind"), validate_choice=True)
    least = StringField(_("From amount"), validators=[Length(max=32)])
    most = StringField(_("To amount"), validators=[Length(max=32)])
    since = DateField(_("From date"), validators=[Optional()])
    until = DateField(_("To date"), validators=[Optional()])


class TransferForm(OrderForm):
    """A transfer."""


class StandingOrderForm(OrderForm):
    """A transfer that repeats."""

    frequency = SelectField(
        _("How often"), choices=[SelectChoice("monthly", _("Every month")), SelectChoice("weekly", _("Every week"))]
    )
    first_date = DateField(_("First payment"), validators=[DataRequired(_("Choose a date."))])
    last_date = DateField(_("Last payment"), validators=[Optional()])
