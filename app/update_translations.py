#!/usr/bin/env python3
"""Bring the catalogues in step with the texts in the source: new texts appear untranslated, old ones go.

    python app/update_translations.py

Then fill in each empty ``msgstr``. A text that the bank no longer has leaves no trace, and nothing is guessed.
"""

from __future__ import annotations

from pathlib import Path

from babel.messages.catalog import Catalog
from babel.messages.extract import DEFAULT_KEYWORDS, extract_from_dir
from babel.messages.pofile import read_po, write_po

PACKAGE = Path(__file__).resolve().parent / "src" / "bank"
CATALOGUES = PACKAGE / "translations"
METHODS = [("migrations/**", "ignore"), ("**.py", "python"), ("templates/**.html", "jinja2.ext:babel_extract")]
KEYWORDS = DEFAULT_KEYWORDS | {"marked": None, "lazy_gettext": None}
HEADER = """\
msgid ""
msgstr ""
"Language: {language}\\n"
"Plural-Forms: {plural}\\n"
"MIME-Version: 1.0\\n"
"Content-Type: text/plain; charset=utf-8\\n"
"Content-Transfer-Encoding: 8bit\\n"

"""
OPTIONS = {"templates/**.html": {"trimmed": "true", "silent": "false"}}


def texts_in_source() -> Catalog:
    """Return every text that the source hands to gettext."""
    found = Catalog(fuzzy=False)
    for _file, _line, message, comments, context in extract_from_dir(
        PACKAGE, METHODS, OPTIONS, KEYWORDS, comment_tags=["i18n:"], strip_comment_tags=True
    ):
        found.add(message, auto_comments=comments, context=context)
    return found


def in_step(catalogue: Path) -> Catalog:
    """Return what a catalogue should hold: all texts of the source, with the translations that it has."""
    language = catalogue.parent.parent.name
    with catalogue.open("rb") as stream:
        texts = read_po(stream, locale=language)
    texts.update(texts_in_source(), no_fuzzy_matching=True, update_creation_date=False)
    texts.obsolete.clear()
    return texts


def main() -> None:
    """Write each catalogue again."""
    for catalogue in sorted(CATALOGUES.glob("*/LC_MESSAGES/messages.po")):
        texts = in_step(catalogue)
        with catalogue.open("wb") as stream:
            stream.write(HEADER.format(language=texts.locale, plural=texts.plural_forms).encode())
            write_po(stream, texts, width=118, no_location=True, omit_header=True, sort_output=True)
        missing = [message.id for message in texts if message.id and not message.string]
        print(f"{catalogue.relative_to(CATALOGUES)}: {len(texts)} texts, {len(missing)} to translate")
        for text in missing:
            print(f"  {text}")


if __name__ == "__main__":
    main()
