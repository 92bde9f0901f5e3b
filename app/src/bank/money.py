"""Money is a whole number of minor units (cents for EUR) and a currency; it is never a float."""

from __future__ import annotations

import re

# Decimal places of each currency that the bank keeps accounts in (ISO 4217).
EXPONENTS = {"EUR": 2, "GBP": 2, "USD": 2, "CHF": 2, "JPY": 0, "KWD": 3}
MAX_MINOR = 2**63 - 1
_AMOUNT = re.compile(r"(?P<whole>[0-9]{1,19})(?:\.(?P<fraction>[0-9]{1,6}))?", re.ASCII)


class AmountError(ValueError):
    """The text is not an amount of money; the message is for the person who typed it."""


def parse_amount(text: str, currency: str) -> int:
    """Turn what a person typed into minor units.

    Only ASCII digits with at most one point are understood: no sign, exponent, separator or special value.

    Returns:
        A positive number of minor units, at most 2**63 - 1.

    Raises:
        AmountError: The text is no such number, has too many decimals, is zero, or is too large.
    """
    exponent = EXPONENTS[currency]
    match = _AMOUNT.fullmatch(text.strip(" "))
    if match is None:
        raise AmountError("Enter an amount in digits, for example 25.50.")
    fraction = match["fraction"] or ""
    if len(fraction) > exponent:
        raise AmountError(
            f"{currency} has {exponent} decimal places at most." if exponent else f"{currency} has no decimals."
        )
    minor = int(match["whole"] + fraction.ljust(exponent, "0"))
    if minor == 0:
        raise AmountError("Enter an amount above zero.")
    if minor > MAX_MINOR:
        raise AmountError("This amount is too large.")
    return minor


def format_number(minor: int, currency: str) -> str:
    """Write minor units as a number with thousands separators: ``-1,234.50``."""
    exponent = EXPONENTS[currency]
    whole, fraction = divmod(abs(minor), 10**exponent)
    sign = "\N{MINUS SIGN}" if minor < 0 else ""
    return f"{sign}{whole:,}" + (f".{fraction:0{exponent}d}" if exponent else "")


def format_money(minor: int, currency: str) -> str:
    """Write minor units with their currency: ``1,234.50 EUR``."""
    return f"{format_number(minor, currency)} {currency}"
