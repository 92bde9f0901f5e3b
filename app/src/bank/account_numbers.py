"""Account numbers, in the form of an IBAN (ISO 13616): ``BK``, two check digits (ISO 7064 MOD 97-10), 16 digits.

ISO 3166 has not assigned the country code BK, so none of these numbers can be a real account somewhere.
"""

from __future__ import annotations

import re

COUNTRY = "BK"
BODY_LENGTH = 16
_OWN = re.compile(COUNTRY + r"[0-9]{18}", re.ASCII)
# The shortest IBAN in use has 15 characters (Norway), the longest allowed by ISO 13616 has 34.
_ANY = re.compile(r"[A-Z]{2}[0-9]{2}[A-Z0-9]{11,30}", re.ASCII)


def _remainder(number: str) -> int:
    """Return the remainder by 97 of the number with its first four characters moved to the end, A = 10 to Z = 35."""
    return int("".join(str(int(character, 36)) for character in number[4:] + number[:4])) % 97


def make(body: int) -> str:
    """Return the account number whose last 16 digits are ``body``."""
    digits = f"{body:0{BODY_LENGTH}d}"
    return f"{COUNTRY}{98 - _remainder(f'{COUNTRY}00{digits}'):02d}{digits}"


def normalise(text: str) -> str | None:
    """Return one of this bank's numbers without spaces and in capitals, or None if shape or check digits are wrong."""
    number = normalise_iban(text)
    return number if number and _OWN.fullmatch(number) else None


def normalise_iban(text: str) -> str | None:
    """Return an IBAN of any bank without spaces and in capitals, or None if shape or check digits are wrong."""
    number = re.sub(r"[ \-]", "", text).upper()
    return number if _ANY.fullmatch(number) and _remainder(number) == 1 else None


def is_own(number: str) -> bool:
    """Tell whether a normalised IBAN is one of this bank's numbers."""
    return number.startswith(COUNTRY)


def grouped(number: str) -> str:
    """Write a number in groups of four, as people read it."""
    return " ".join(number[start : start + 4] for start in range(0, len(number), 4))


def masked(number: str) -> str:
    """Show the last four digits only."""
    return f"\N{BULLET}\N{BULLET}\N{BULLET}\N{BULLET} {number[-4:]}"
