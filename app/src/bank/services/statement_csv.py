"""Statements as CSV, for programs and spreadsheets."""

from __future__ import annotations

import csv
import io
from typing import TYPE_CHECKING

from bank import money

if TYPE_CHECKING:
    from datetime import date

    from bank.services.statements import Statement

CSV_HEADER = ("Date", "Kind", "Name", "Account", "Reference", "Amount", "Currency", "Balance")
# OWASP, "CSV Injection": a cell that starts with one of these can be taken for a formula. Full-width forms count too.
FORMULA_STARTS = (*"=+-@\t\r\n", "\N{FULLWIDTH EQUALS SIGN}", "\N{FULLWIDTH PLUS SIGN}",
                  "\N{FULLWIDTH HYPHEN-MINUS}", "\N{FULLWIDTH COMMERCIAL AT}")  # fmt: skip
_PLAIN = money.Marks(decimal=".", group="")


def safe_cell(text: str) -> str:
    """Return a text that no spreadsheet takes for a formula."""
    return f"'{text}" if text.lstrip(" ").startswith(FORMULA_STARTS) or text.startswith(FORMULA_STARTS) else text


def _plain(minor: int, currency: str) -> str:
    """Write minor units with a point and nothing else: ``-1234.50``."""
    return money.format_number(minor, currency, _PLAIN).replace("\N{MINUS SIGN}", "-")


def write(statement: Statement) -> bytes:
    """Write a statement as CSV: UTF-8 with a byte order mark, every cell quoted, the same in all languages.

    Only texts are escaped against formulas; amounts are digits that the bank itself writes.
    """
    currency = statement.currency
    target = io.StringIO(newline="")
    writer = csv.writer(target, quoting=csv.QUOTE_ALL, lineterminator="\r\n")
    writer.writerow(CSV_HEADER)

    def edge(day: date, kind: str, minor: int) -> None:
        writer.writerow((day.isoformat(), kind, "", "", "", "", currency, _plain(minor, currency)))

    edge(statement.first, "opening balance", statement.opening_minor)
    for line in statement.lines:
        movement = line.movement
        writer.writerow(
            (
                movement.booked_at.date().isoformat(),
                movement.kind,
                safe_cell(movement.other_name),
                line.other_number,
                safe_cell(movement.reference),
                _plain(movement.amount_minor, currency),
                currency,
                _plain(line.balance_minor, currency),
            )
        )
    edge(statement.last, "closing balance", statement.closing_minor)
    return target.getvalue().encode("utf-8-sig")
