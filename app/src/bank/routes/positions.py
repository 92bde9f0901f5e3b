"""Where a page of a list begins, as its address says."""

from __future__ import annotations

from flask import abort, request

# Enough for every number that PostgreSQL keeps, and none beyond it.
MAX_DIGITS = 18


def number(text: str) -> int:
    """Read a whole number.

    Raises:
        ValueError: It is none, or longer than 18 digits.
    """
    if not (text.isascii() and text.isdigit() and len(text) <= MAX_DIGITS):
        raise ValueError(text)
    return int(text)


def from_query(name: str) -> int | None:
    """Return the number that the address holds under a name; None if it holds none."""
    text = request.args.get(name, "")
    if not text:
        return None
    try:
        return number(text)
    except ValueError:
        abort(400)
