"""Languages: complete catalogues, no text outside them, and numbers and dates as each language writes them."""

import ast
import importlib.util
import re
from datetime import UTC, datetime
from html.parser import HTMLParser
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bank import i18n, money
from conftest import ORIGIN, PASSWORD, browser

APP = Path(__file__).resolve().parent.parent
PACKAGE = APP / "src" / "bank"
TRANSLATED = [code for code in i18n.LANGUAGES if code != i18n.SOURCE_LANGUAGE]
PLACEHOLDER = re.compile(r"%\([a-z_]+\)[ds]")
# Written the same in every language.
NAMES = {"Linden Bank", "IBAN"}
# Parts of a template that are no text of its own.
NOT_SHOWN = (
    r"\{#.*?#\}",
    r"\{% block body_class %\}.*?endblock",
    r"\{%-?\s*trans.*?endtrans\s*-?%\}",
    r"\{\{.*?\}\}",
    r"\{%.*?%\}",
)


@pytest.fixture(scope="module")
def tool():
    spec = importlib.util.spec_from_file_location("update_translations", APP / "update_translations.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def forms_of(message):
    return ((message.id,), (message.string,)) if isinstance(message.id, str) else (message.id, message.string)


@pytest.mark.parametrize("language", TRANSLATED)
def test_catalogue_is_complete(tool, language):
    path = i18n.catalogue_path(language)
    with path.open("rb") as stream:
        held = {message.id for message in tool.read_po(stream, locale=language) if message.id}
    wanted = {message.id for message in tool.texts_in_source() if message.id}
    assert held - wanted == set(), "python app/update_translations.py removes texts that the bank no longer has"
    assert wanted - held == set(), "python app/update_translations.py adds them"
    for message in tool.in_step(path):
        if not message.id:
            continue
        sources, texts = forms_of(message)
        assert all(texts), f"not translated: {message.id}"
        assert not message.fuzzy, message.id
        for text in texts:
            assert set(PLACEHOLDER.findall(text)) == set(PLACEHOLDER.findall(sources[-1])), message.id


class Words(HTMLParser):
    """Collects what a person would read in a page."""

    SPOKEN = frozenset({"aria-label", "alt", "placeholder", "title"})

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_data(self, data):
        self.found.append(data)

    def handle_starttag(self, _tag, attrs):
        self.found += [value for name, value in attrs if name in self.SPOKEN and value]


@pytest.mark.parametrize("template", sorted((PACKAGE / "templates").rglob("*.html")), ids=lambda path: path.name)
def test_every_text_of_a_template_goes_through_gettext(template):
    source = template.read_text()
    for made_by_jinja in NOT_SHOWN:
        source = re.sub(made_by_jinja, "", source, flags=re.DOTALL)
    words = Words()
    words.feed(source)
    bare = " ".join(words.found)
    for name in NAMES:
        bare = bare.replace(name, "")
    assert re.findall(r"[^\W\d_]{2,}", bare) == []


# What these are given is shown to people.
SPEAKERS = frozenset(
    {"flash", "ValidationError", "DataRequired", "InputRequired", "Length", "NumberRange", "BooleanField", "DateField",
     "IntegerField", "PasswordField", "RadioField", "SelectField", "StringField", "TextAreaField"}
)  # fmt: skip


@pytest.mark.parametrize("module", sorted((PACKAGE / "routes").rglob("*.py")), ids=lambda path: path.name)
def test_every_text_that_a_route_shows_goes_through_gettext(module):
    for node in ast.walk(ast.parse(module.read_text())):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in SPEAKERS:
            first = node.args[:1]
            assert not any(isinstance(item, ast.JoinedStr) for item in first), ast.unparse(node)
            bare = {item.value for item in first if isinstance(item, ast.Constant) and isinstance(item.value, str)}
            assert bare <= NAMES, ast.unparse(node)


def test_language_comes_from_the_choice_then_from_the_browser(app, make_customer):
    client = browser(app)

    def language_of(path, **headers):
        return re.search(r'<html lang="(\w+)"', client.get(path, headers=headers).get_data(as_text=True))[1]

    assert language_of("/login") == "en"
    assert language_of("/login", **{"Accept-Language": "fr-CH,de;q=0.9,en;q=0.2"}) == "fr"
    assert language_of("/login", **{"Accept-Language": "de"}) == "en"
    assert language_of("/nowhere", **{"Accept-Language": "fr"}) == "fr"
    assert language_of("/login", Cookie=f"{i18n.COOKIE}=xx") == "en"
    token = client.fields("/login")["csrf_token"]
    for language, target, goes_to in (("fr", "/login?next=/transfer", "/login?next=/transfer"),
                                      ("en", "//evil.test", "/accounts"), ("fr", "/login", "/login")):  # fmt: skip
        answer = client.post("/language", {"csrf_token": token, "language": language, "next": target})
        assert (answer.status_code, answer.location) == (303, goes_to)
        assert language_of("/login", **{"Accept-Language": "en"}) == language
    (cookie,) = answer.headers.getlist("Set-Cookie")
    assert {"Secure", "HttpOnly", "Path=/", "SameSite=Lax"} <= {part.strip() for part in cookie.split(";")}
    assert client.post("/language", {"csrf_token": token, "language": "../xx", "next": "/"}).status_code == 400

    payer = make_customer(123_456_78)
    client.log_in(payer.email, PASSWORD)
    page = client.get("/accounts").get_data(as_text=True)
    assert "Vos comptes" in page
    assert "123\N{NARROW NO-BREAK SPACE}456,78" in page
    refused = client.post("/transfer", {"csrf_token": client.fields("/transfer")["csrf_token"]})
    assert "Saisissez un montant." in refused.get_data(as_text=True)


def test_french_amount_may_be_typed_with_a_comma(app, make_customer, balance_of):
    payer, payee = make_customer(1_000), make_customer()
    client = browser(app)
    client.client.set_cookie(i18n.COOKIE, "fr", domain=ORIGIN.removeprefix("https://"))
    client.log_in(payer.email)
    for typed, status in (("1,505", 400), ("1,5,0", 400), ("1.000,50", 400), ("2,50", 303), ("0.25", 303)):
        form = {
            **client.fields("/transfer"),
            "from_account": str(payer.account),
            "to_number": payee.number,
            "amount": typed,
        }
        assert client.post("/transfer", form).status_code == status, typed
    assert balance_of(payee.account) == 275


@pytest.mark.parametrize("language", list(i18n.LANGUAGES))
@given(minor=st.integers(-money.MAX_MINOR, money.MAX_MINOR), currency=st.sampled_from(sorted(money.EXPONENTS)))
@settings(max_examples=60, deadline=None)
def test_amounts_are_written_exactly(app, language, minor, currency):
    with app.test_request_context(headers={"Accept-Language": language}):
        written = i18n.number(minor, currency)
        sign, digits = ("-", written[1:]) if minor < 0 else ("", written)
        marks = i18n._marks(language)
        assert int(sign + digits.replace(marks.group, "").replace(marks.decimal, "")) == minor
        plain = digits.replace(marks.group, "")
        if minor:
            assert i18n.parse_amount(plain, currency) == abs(minor)


def test_dates_follow_the_language(app):
    when = datetime(2026, 8, 1, 23, 5, tzinfo=UTC)
    for language, day, moment in (
        ("en", "1 Aug 2026", "1 Aug 2026, 23:05"),
        ("fr", "1 août 2026", "1 août 2026, 23:05"),
    ):
        with app.test_request_context(headers={"Accept-Language": language}):
            assert (i18n.day(when), i18n.moment(when)) == (day, moment)
