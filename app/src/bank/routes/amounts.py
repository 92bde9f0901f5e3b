"""Amounts of money in forms."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flask import abort

from bank import i18n, money

if TYPE_CHECKING:
    from wtforms import Field

    from bank.routes.forms import MoneyForm
    from bank.services.accounts import AccountView


def read(field: Field, currency: str) -> int | None:
    """Return the amount that a field holds in minor units, or None with the reason beside the field."""
    if field.errors:
        return None
    try:
        return i18n.parse_amount(field.data or "", currency)
    except money.AmountError as error:
        field.errors = [i18n.explain(error)]
        return None


def source_and_amount(form: MoneyForm, own: list[AccountView]) -> tuple[AccountView, int] | None:
    """Check an order's form; return the account to pay from and the amount, or None with the reasons in the form.

    An account that is not among the person's ``own`` does not exist.
    """
    source = next((account for account in own if str(account.id) == form.from_account.data), None)
    if form.from_account.data and source is None:
        abort(404)
    is_complete = form.validate()
    amount = read(form.amount, source.currency) if source else None
    return (source, amount) if is_complete and source is not None and amount is not None else None
