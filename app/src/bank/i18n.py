"""Languages: which one a request is answered in, the catalogues behind gettext, and how dates and amounts are written.

Texts in the source are English. A catalogue is a text file, ``translations/<language>/LC_MESSAGES/messages.po``, that
is read when the application starts (about 50 ms): a compiled file would have to be built or kept in step with it in
every checkout, wheel and release.
"""

from __future__ import annotations

import io
from datetime import UTC, datetime
from decimal import ROUND_FLOOR, Decimal
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from babel import Locale, negotiate_locale
from babel.dates import format_date, format_datetime, format_timedelta
from babel.messages.mofile import write_mo
from babel.messages.pofile import read_po
from babel.numbers import format_decimal, format_percent
from babel.support import NullTranslations, Translations
from flask import request
from flask_babel import Babel, Domain, get_locale, gettext

from bank import money

if TYPE_CHECKING:
    from datetime import date

    from flask import Flask

SOURCE_LANGUAGE = "en"
LANGUAGES = {SOURCE_LANGUAGE: "English", "fr": "Français"}
COOKIE = "__Host-bank-language"
COOKIE_SECONDS = 365 * 24 * 3600
CATALOGUES = Path(__file__).parent / "translations"
# Day before month in every language that the bank speaks.
DATE = "d MMM y"
MOMENT = "d MMM y, HH:mm"
INSTANT = "d MMM y, HH:mm:ss"
MONTH = "MMMM y"


def catalogue_path(language: str) -> Path:
    """Return the file with the texts of a language."""
    return CATALOGUES / language / "LC_MESSAGES" / "messages.po"


@lru_cache
def catalogue(language: str) -> NullTranslations:
    """Return the texts of a language, read from its file."""
    if language == SOURCE_LANGUAGE:
        return NullTranslations()
    with catalogue_path(language).open("rb") as source:
        texts = read_po(source, locale=language)
    compiled = io.BytesIO()
    write_mo(compiled, texts)
    compiled.seek(0)
    return Translations(compiled)


class _Catalogues(Domain):  # type: ignore[misc]
    """Flask-Babel's texts, taken from the catalogues above."""

    def get_translations(self) -> NullTranslations:
        """Return the texts in the language of this request; outside a request, the source's."""
        return catalogue(language())


def language() -> str:
    """Return the language of this request."""
    found = get_locale()
    return found.language if found else SOURCE_LANGUAGE


def _wanted() -> str:
    """Choose a language: what the person chose before, else what the browser prefers."""
    chosen = request.cookies.get(COOKIE, "")
    if chosen in LANGUAGES:
        return chosen
    return negotiate_locale(request.accept_languages.values(), LANGUAGES, sep="-") or SOURCE_LANGUAGE


@lru_cache
def _marks(language: str) -> money.Marks:
    symbols = Locale.parse(language).number_symbols["latn"]
    return money.Marks(decimal=symbols["decimal"], group=symbols["group"])


def number(minor: int, currency: str) -> str:
    """Write minor units as a number, as the person's language writes it."""
    return money.format_number(minor, currency, _marks(language()))


def amount(minor: int, currency: str) -> str:
    """Write minor units with their currency, as the person's language writes them."""
    return f"{number(minor, currency)} {currency}"


def parse_amount(text: str, currency: str) -> int:
    """Turn what a person typed into minor units; the decimal mark of the person's language counts as well.

    Raises:
        bank.money.AmountError: As ``money.parse_amount``.
    """
    return money.parse_amount(text, currency, decimal_marks="." + _marks(language()).decimal)


def day(moment: date | datetime) -> str:
    """Write a date; of a moment, its date in UTC."""
    return format_date(moment, DATE, locale=language())


def month(first: date) -> str:
    """Write a month with its year."""
    return format_date(first, MONTH, locale=language())


def moment(when: datetime) -> str:
    """Write a moment in UTC."""
    return format_datetime(when, MOMENT, locale=language())


def instant(when: datetime) -> str:
    """Write a moment in UTC to the second."""
    return format_datetime(when, INSTANT, locale=language())


def ago(when: datetime) -> str:
    """Write how long ago a moment was, in its largest unit."""
    return format_timedelta(when - datetime.now(UTC), add_direction=True, locale=language())


def share(part: float) -> str:
    """Write a part of a whole as a percentage with one decimal, rounded down: what is not whole never reads so."""
    pattern = Locale.parse(language()).percent_formats[None].pattern.replace("#,##0", "#,##0.0")
    return format_percent(Decimal(str(part)).quantize(Decimal("0.001"), ROUND_FLOOR), pattern, language())


def decimal(value: float) -> str:
    """Write a number with one decimal at most."""
    return format_decimal(value, "#,##0.#", language())


def explain(error: money.AmountError) -> str:
    """Return what is wrong with an amount, in the person's language."""
    return str(gettext(error.text, **error.values))


def use(app: Flask) -> None:
    """Answer each request in its language."""
    babel = Babel(app, locale_selector=_wanted)
    babel.domain_instance = _Catalogues()
    for code in LANGUAGES:
        catalogue(code)
    app.jinja_env.filters.update(number=number, money=amount, day=day, month=month, moment=moment)
    app.jinja_env.filters.update(instant=instant, ago=ago, share=share, decimal=decimal)
    app.jinja_env.globals.update(language=language, languages=LANGUAGES)
