"""Money is a whole number of minor units (cents for EUR) and a currency; it is never a float."""

from __future__ import annotations

import re
from dataclasses import dataclass

from bank.texts import marked

# Decimal places of each currency that the bank keeps accounts in (ISO 4217).
EXPONENTS = {"EUR": 2, "GBP": 2, "USD": 2, "CHF": 2, "JPY": 0, "KWD": 3}
MAX_MINOR = 2**63 - 1
_AMOUNT = re.compile(r"(?P<whole>[0-9]{1,19})(?:[.](?P<fraction>[0-9]{1,6}))?", re.ASCII)


class AmountError(ValueError):
    """What was typed is not an amount of money; the message is for the person who typed it.

    ``text`` is the message before ``values`` are put in, for translation.
    """

    def __init__(self, text: str, **values: object) -> None:
        super().__init__(text % values)
        self.text = text
        self.values = values


@dataclass(frozen=True)
class Marks:
    """How a language writes numbers."""

    decimal: str = "."
    group: str = ","


ENGLISH = Marks()


def parse_amount(text: str, currency: str, decimal_marks: str = ".") -> int:
    """Turn what a person typed into minor units.

    Only ASCII digits with at most one decimal mark are understood: no sign, exponent, separator or special value.

    Args:
        text: What was typed; spaces around it do not count.
        currency: One of those the bank keeps accounts in.
        decimal_marks: Characters that stand before the decimals.

    Returns:
        A positive number of minor units, at most 2**63 - 1.

    Raises:
        AmountError: The text is no such number, has too many decimals, is zero, or is too large.
    """
    exponent = EXPONENTS[currency]
    match = _AMOUNT.fullmatch(text.strip(" ").translate({ord(mark): "." for mark in decimal_marks}))
    if match is None:
        raise AmountError(marked("Enter an amount in digits, for example 25.50."))
    fraction = match["fraction"] or ""
    if len(fraction) > exponent:
        if not exponent:
            raise AmountError(marked("%(currency)s has no decimals."), currency=currency)
        raise AmountError(
            marked("%(currency)s has %(places)d decimal places at most."), currency=currency, places=exponent
        )
    minor = int(match["whole"] + fraction.ljust(exponent, "0"))
    if minor == 0:
        raise AmountError(marked("Enter an amount above zero."))
    if minor > MAX_MINOR:
        raise AmountError(marked("This amount is too large."))
    return minor


def format_number(minor: int, currency: str, marks: Marks = ENGLISH) -> str:
    """Write minor units as a number with thousands separators: ``-1,234.50``."""
    exponent = EXPONENTS[currency]
    whole, fraction = divmod(abs(minor), 10**exponent)
    sign = "\N{MINUS SIGN}" if minor < 0 else ""
    grouped = f"{whole:,}".replace(",", marks.group)
    return f"{sign}{grouped}" + (f"{marks.decimal}{fraction:0{exponent}d}" if exponent else "")


def format_money(minor: int, currency: str) -> str:
    """Write minor units with their currency: ``1,234.50 EUR``."""
    return f"{format_number(minor, currency)} {currency}"
