"""Statements as PDF, for people. Import it when one is asked for: reportlab takes 20 MB and a moment to load."""

from __future__ import annotations

import io
import unicodedata
from dataclasses import dataclass
from typing import TYPE_CHECKING
from xml.sax.saxutils import escape

import font_source_sans_pro
from reportlab.lib import colors
from reportlab.lib.pagesizes import A4
from reportlab.lib.styles import ParagraphStyle
from reportlab.lib.units import mm
from reportlab.pdfbase import pdfmetrics
from reportlab.pdfbase.ttfonts import TTFont
from reportlab.pdfgen.canvas import Canvas
from reportlab.platypus import Paragraph, SimpleDocTemplate, Spacer, Table, TableStyle

from bank import account_numbers

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import date, datetime

    from bank.services.statements import Statement


@dataclass(frozen=True)
class Words:
    """What a PDF says, in the reader's language; the functions write kinds, numbers and dates in it."""

    title: str
    page: str
    """With ``%(number)d`` and ``%(pages)d``."""
    account: str
    period: str
    opening: str
    closing: str
    paid_in: str
    paid_out: str
    booked: str
    description: str
    amount: str
    balance: str
    nothing: str
    bank: str
    kind: Callable[[str], str]
    number: Callable[[int, str], str]
    day: Callable[[date | datetime], str]


# Source Sans Pro (SIL Open Font License 1.1) has Latin, Greek and Cyrillic letters; what a statement uses of it goes
# into the file. The fonts that every reader of PDF has know Western European letters only.
FONT, BOLD = "SourceSansPro", "SourceSansProBold"
for _name in (FONT, BOLD):
    pdfmetrics.registerFont(TTFont(_name, font_source_sans_pro.font_files_ttf[_name]))
_GLYPHS = pdfmetrics.getFont(FONT).face.charToGlyph.keys() & pdfmetrics.getFont(BOLD).face.charToGlyph.keys()

INK, MUTED, RULE, BRAND = (colors.HexColor(code) for code in ("#16211f", "#586663", "#dfe5e3", "#0f4c4a"))
MARGIN = 18 * mm
EDGE = MARGIN + 6  # reportlab's frames keep 6 points inside the margin
TEXT = ParagraphStyle("text", fontName=FONT, fontSize=9, leading=12, textColor=INK)
SMALL = ParagraphStyle("small", parent=TEXT, fontSize=8, leading=11, textColor=MUTED)
RIGHT = ParagraphStyle("right", parent=TEXT, alignment=2)
STRONG = ParagraphStyle("strong", parent=TEXT, fontName=BOLD)
STRONG_RIGHT = ParagraphStyle("strong-right", parent=STRONG, alignment=2)
TITLE = ParagraphStyle("title", parent=STRONG, fontSize=17, leading=22, textColor=BRAND)


def _printable(text: str) -> str:
    """Return a text in the characters that the font has; of others the plain letter is left, or a question mark."""
    found = []
    for character in unicodedata.normalize("NFC", text):
        plain = unicodedata.normalize("NFKD", character)[:1]
        found.append(next((c for c in (character, plain) if ord(c) in _GLYPHS), "?"))
    return "".join(found)


def _paragraph(text: str, style: ParagraphStyle = TEXT) -> Paragraph:
    return Paragraph(escape(_printable(text)), style)


def write(statement: Statement, words: Words) -> bytes:
    """Write a statement as PDF on A4, with the balances at both ends and a number on every page."""
    target = io.BytesIO()
    document = SimpleDocTemplate(
        target,
        pagesize=A4,
        leftMargin=MARGIN,
        rightMargin=MARGIN,
        topMargin=MARGIN,
        bottomMargin=MARGIN + 6 * mm,
        title=_printable(words.title),
        author=_printable(words.bank),
        pageCompression=1,
    )

    class NumberedPages(Canvas):  # type: ignore[misc]
        """Keeps the pages until their number is known."""

        def __init__(self, *arguments: object, **options: object) -> None:
            super().__init__(*arguments, **options)
            self._kept: list[dict[str, object]] = []

        def showPage(self) -> None:  # noqa: N802  (reportlab's name)
            """Keep a page."""
            self._kept.append(dict(self.__dict__))
            self._startPage()

        def save(self) -> None:
            """Write all pages with their numbers."""
            for number, page in enumerate(self._kept, start=1):
                self.__dict__.update(page)
                self.setFont(FONT, 8)
                self.setFillColor(MUTED)
                self.drawString(EDGE, 12 * mm, _printable(words.bank))
                label = words.page % {"number": number, "pages": len(self._kept)}
                self.drawRightString(A4[0] - EDGE, 12 * mm, _printable(label))
                super().showPage()
            super().save()

    document.build([*_head(statement, words), _table(statement, words, A4[0] - 2 * EDGE)], canvasmaker=NumberedPages)
    return target.getvalue()


def _head(statement: Statement, words: Words) -> list[object]:
    period = f"{words.day(statement.first)} - {words.day(statement.last)}"

    def money_of(minor: int) -> str:
        return f"{words.number(minor, statement.currency)} {statement.currency}"

    facts = [
        [_paragraph(words.account, SMALL), _paragraph(words.opening, SMALL), _paragraph(words.paid_in, SMALL)],
        [
            _paragraph(f"{statement.name}, {statement.owner}", STRONG),
            _paragraph(money_of(statement.opening_minor)),
            _paragraph(money_of(statement.paid_in_minor)),
        ],
        [_paragraph(words.period, SMALL), _paragraph(words.closing, SMALL), _paragraph(words.paid_out, SMALL)],
        [
            _paragraph(period),
            _paragraph(money_of(statement.closing_minor), STRONG),
            _paragraph(money_of(statement.paid_out_minor)),
        ],
    ]
    table = Table(facts, colWidths=("46%", "27%", "27%"))
    table.setStyle(
        TableStyle(
            [
                ("VALIGN", (0, 0), (-1, -1), "TOP"),
                ("LEFTPADDING", (0, 0), (-1, -1), 0),
                ("TOPPADDING", (0, 0), (-1, -1), 1),
                ("BOTTOMPADDING", (0, 0), (-1, -1), 2),
            ]
        )
    )
    number = f"IBAN {account_numbers.grouped(statement.number)}"
    return [_paragraph(words.title, TITLE), _paragraph(number, SMALL), Spacer(1, 6 * mm), table, Spacer(1, 7 * mm)]


def _table(statement: Statement, words: Words, width: int) -> Table:
    def number(minor: int) -> str:
        return words.number(minor, statement.currency)

    rows: list[list[object]] = [
        [
            _paragraph(words.booked, SMALL),
            _paragraph(words.description, SMALL),
            _paragraph(f"{words.amount} ({statement.currency})", ParagraphStyle("head", parent=SMALL, alignment=2)),
            _paragraph(f"{words.balance} ({statement.currency})", ParagraphStyle("head", parent=SMALL, alignment=2)),
        ],
        [_paragraph(words.day(statement.first)), _paragraph(words.opening, STRONG), "",
         _paragraph(number(statement.opening_minor), STRONG_RIGHT)],
    ]  # fmt: skip
    for line in statement.lines:
        movement = line.movement
        detail = [words.kind(movement.kind), movement.reference, line.other_number.replace("\N{BULLET}", "*")]
        rows.append(
            [
                _paragraph(words.day(movement.booked_at)),
                [
                    _paragraph(movement.other_name or words.bank),
                    _paragraph(" · ".join(part for part in detail if part), SMALL),
                ],
                _paragraph(number(movement.amount_minor), RIGHT),
                _paragraph(number(line.balance_minor), RIGHT),
            ]
        )
    if not statement.lines:
        rows.append(["", _paragraph(words.nothing, SMALL), "", ""])
    closing = _paragraph(number(statement.closing_minor), STRONG_RIGHT)
    rows.append([_paragraph(words.day(statement.last)), _paragraph(words.closing, STRONG), "", closing])
    table = Table(rows, colWidths=(24 * mm, width - 84 * mm, 30 * mm, 30 * mm), repeatRows=1)
    table.setStyle(
        TableStyle(
            [
                ("VALIGN", (0, 0), (-1, -1), "TOP"),
                ("LEFTPADDING", (0, 0), (0, -1), 0),
                ("RIGHTPADDING", (-1, 0), (-1, -1), 0),
                ("TOPPADDING", (0, 0), (-1, -1), 5),
                ("BOTTOMPADDING", (0, 0), (-1, -1), 5),
                ("LINEBELOW", (0, 0), (-1, 0), 1, BRAND),
                ("LINEBELOW", (0, 1), (-1, -2), 1, RULE),
                ("LINEABOVE", (0, -1), (-1, -1), 1, BRAND),
            ]
        )
    )
    return table
