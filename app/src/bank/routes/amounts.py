"""Amounts of money in forms."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bank import i18n, money

if TYPE_CHECKING:
    from wtforms import Field


def read(field: Field, currency: str) -> int | None:
    """Return the amount that a field holds in minor units, or None with the reason beside the field."""
    if field.errors:
        return None
    try:
        return i18n.parse_amount(field.data or "", currency)
    except money.AmountError as error:
        field.errors = [i18n.explain(error)]
        return None
