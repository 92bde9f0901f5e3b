"""Account numbers: ``BK``, two check digits (ISO 7064 MOD 97-10, as in an IBAN) and 16 digits."""

from __future__ import annotations

import re

_SHAPE = re.compile(r"BK[0-9]{18}", re.ASCII)
_COUNTRY_VALUE = "1120"  # B = 11, K = 20
BODY_LENGTH = 16


def make(body: int) -> str:
    """Return the account number whose last 16 digits are ``body``."""
    digits = f"{body:0{BODY_LENGTH}d}"
    return f"BK{98 - int(digits + _COUNTRY_VALUE + '00') % 97:02d}{digits}"


def normalise(text: str) -> str | None:
    """Return the number without spaces and in capitals, or None if its shape or check digits are wrong."""
    number = re.sub(r"[ \-]", "", text).upper()
    if not _SHAPE.fullmatch(number):
        return None
    return number if int(number[4:] + _COUNTRY_VALUE + number[2:4]) % 97 == 1 else None


def grouped(number: str) -> str:
    """Write a number in groups of four, as people read it."""
    return " ".join(number[start : start + 4] for start in range(0, len(number), 4))


def masked(number: str) -> str:
    """Show the last four digits only."""
    return f"\N{BULLET}\N{BULLET}\N{BULLET}\N{BULLET} {number[-4:]}"
