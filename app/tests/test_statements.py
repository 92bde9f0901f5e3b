"""Statements add up, are the owner's alone, and hold no formula."""

import csv
import io
import uuid
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pypdf import PdfReader
from sqlalchemy import text

from bank.services import ledger, payments, statement_csv, statements, transfers
from conftest import browser

EVIL = '=HYPERLINK("https://evil.test")'


@pytest.fixture(scope="module")
def history(owner, engine, make_customer):
    """A customer with three booked months, a running one, and some nasty texts."""
    payer, friend = make_customer(name="Zoë Müller"), make_customer(name="+441234 Friend")
    months = {"2026-07": [500_000, -1_234], "2026-08": [], "2026-09": [-100, -200, 50] * 25}
    with owner.begin() as connection:
        for month, amounts in months.items():
            for number, amount in enumerate(amounts):
                entry = uuid.uuid4()
                connection.execute(
                    text("INSERT INTO journal_entries (id, kind, currency, reference, counterparty, booked_at) "
                         "VALUES (:id, 'payment', 'EUR', :reference, 'Łukasz & Söhne <Σ>', :at)"),
                    {"id": entry, "reference": EVIL if number == 1 else f"run {number}",
                     "at": datetime.fromisoformat(f"{month}-{1 + number % 28:02d}T12:00:00+00:00")},
                )  # fmt: skip
                connection.execute(
                    text(
                        "INSERT INTO postings (entry_id, account_id, amount_minor) VALUES (:e, :a, :m), (:e, :s, -:m)"
                    ),
                    {"e": entry, "a": payer.account, "m": amount, "s": ledger.SETTLEMENT["EUR"]},
                )
    transfers.transfer(engine, transfers.Order(payer.id, "t", payer.account, friend.number, 9_999, "EUR", "@SUM(1)"))
    payments.pay(
        engine,
        payments.PaymentOrder(
            payer.id, "p", payer.account, "-Ann", "DE89370400440532013000", 1, "EUR", "\N{FULLWIDTH EQUALS SIGN}1"
        ),
    )
    return payer, friend


@pytest.fixture
def logged_in(app, history):
    client = browser(app)
    client.log_in(history[0].email)
    return client


def rows_of(response):
    assert response.content_type == "text/csv; charset=utf-8"
    return list(csv.DictReader(io.StringIO(response.data.decode("utf-8-sig"))))


def test_every_month_follows_on_and_equals_the_postings(engine, owner, history):
    payer, _ = history
    months = statements.months(engine, payer.account)
    assert months[-1].isoformat() == "2026-07-01"
    assert months[0] == datetime.now(UTC).date().replace(day=1)
    closing = 0
    for month in reversed(months):
        statement = statements.read(engine, payer.account, month)
        assert statement.opening_minor == closing
        closing = statement.closing_minor
        assert closing == statement.opening_minor + statement.paid_in_minor - statement.paid_out_minor
        with owner.connect() as connection:
            total = connection.execute(
                text("SELECT sum(amount_minor) FROM postings p JOIN journal_entries e ON e.id = p.entry_id "
                     "WHERE account_id = :id AND booked_at < :end"),
                {"id": payer.account, "end": datetime.combine(statement.last, datetime.max.time(), UTC)},
            ).scalar()  # fmt: skip
        assert closing == total
    assert closing == 500_000 - 1_234 - 25 * 250 - 9_999 - 1


def test_statement_is_of_one_snapshot(engine, history, monkeypatch):
    payer, friend = history
    month = statements.months(engine, payer.account)[0]
    before = statements.read(engine, payer.account, month)
    lines = statements._LINES

    class Later:
        """Lets a transfer come between the two queries of a statement."""

        def _execute_on_connection(self, connection, *arguments):
            transfers.transfer(
                engine, transfers.Order(payer.id, uuid.uuid4().hex, payer.account, friend.number, 7, "EUR", "")
            )
            return lines._execute_on_connection(connection, *arguments)

    monkeypatch.setattr(statements, "_LINES", Later())
    during = statements.read(engine, payer.account, month)
    assert during.closing_minor == before.closing_minor
    monkeypatch.undo()
    assert statements.read(engine, payer.account, month).closing_minor == before.closing_minor - 7


def test_csv_holds_decimal_amounts_and_no_formula(logged_in, history):
    payer, friend = history
    response = logged_in.get(f"/accounts/{payer.account}/statements/2026-07.csv")
    assert (
        response.headers["Content-Disposition"] == f'attachment; filename="statement-2026-07-{payer.number[-4:]}.csv"'
    )
    assert response.data.startswith(b'\xef\xbb\xbf"Date","Kind"')
    rows = rows_of(response)
    assert [(row["Kind"], row["Amount"], row["Balance"]) for row in rows] == [
        ("opening balance", "", "0.00"), ("payment", "5000.00", "5000.00"), ("payment", "-12.34", "4987.66"),
        ("closing balance", "", "4987.66"),
    ]  # fmt: skip
    assert rows[2]["Reference"] == "'" + EVIL
    assert rows[1]["Name"] == "Łukasz & Söhne <Σ>"
    now = f"{datetime.now(UTC):%Y-%m}"
    rows = rows_of(logged_in.get(f"/accounts/{payer.account}/statements/{now}.csv"))
    assert {(row["Name"], row["Reference"]) for row in rows[1:3]} == {
        ("'+441234 Friend", "'@SUM(1)"), ("'-Ann", "'＝1")
    }  # fmt: skip
    assert friend.number not in str(rows)


@given(st.text())
def test_no_cell_starts_a_formula(typed):
    assert not statement_csv.safe_cell(typed).startswith(statement_csv.FORMULA_STARTS)
    assert statement_csv.safe_cell(typed).removeprefix("'") == typed.removeprefix("'")


def test_pdf_says_the_same(logged_in, history):
    payer, _ = history
    response = logged_in.get(f"/accounts/{payer.account}/statements/2026-09.pdf", headers={"Accept-Language": "fr"})
    assert response.content_type == "application/pdf"
    reader = PdfReader(io.BytesIO(response.data))
    pages = [page.extract_text() for page in reader.pages]
    assert len(pages) > 1
    for number, page in enumerate(pages, start=1):
        assert f"Page {number} sur {len(pages)}" in page
    everything = "\n".join(pages).replace("\xa0", " ")
    for expected in ("septembre 2026", "4 987,66", "4 925,16", "Zoë Müller", "Łukasz & Söhne <Σ>", "Solde"):
        assert expected in everything, expected
    assert everything.count("run ") == 74
    assert payer.number[-4:] in everything


def test_pdf_shows_the_letters_of_names_in_every_european_alphabet(app, engine, make_customer):
    payer, friend = make_customer(1_000, name="Ελένη Παπαδοπούλου"), make_customer(name="Øyvind Čeština-Żółć")
    references = [
        "Оренда за січень, ґанок",
        "Țară și ğüneş",
        "e\u0301cole",
        "\N{FULLWIDTH EQUALS SIGN}1",
        "家賃 \u05d0",
    ]
    for reference in references:
        order = transfers.Order(payer.id, uuid.uuid4().hex, payer.account, friend.number, 1, "EUR", reference)
        transfers.transfer(engine, order)
    client = browser(app)
    client.log_in(payer.email)
    answer = client.get(f"/accounts/{payer.account}/statements/{datetime.now(UTC):%Y-%m}.pdf")
    assert answer.status_code == 200
    document = PdfReader(io.BytesIO(answer.data))
    everything = "\n".join(page.extract_text() for page in document.pages)
    for shown in ("Ελένη Παπαδοπούλου", "Øyvind Čeština-Żółć", *references[:2], "école", "=1", "?? ?"):
        assert shown in everything, shown
    # The fonts are in the file, in part: it looks the same wherever it is opened, and stays small.
    fonts = [font.get_object() for page in document.pages for font in page["/Resources"]["/Font"].values()]
    embedded = [font for font in fonts if "/FontFile2" in font.get("/FontDescriptor", {})]
    assert len(embedded) >= 2
    assert len(answer.data) < 100_000


def test_statement_of_somebody_else_or_of_no_month_does_not_exist(app, engine, logged_in, history):
    payer, friend = history
    now = f"{datetime.now(UTC):%Y-%m}"
    assert statements.months(engine, friend.account)
    for path in (
        f"{friend.account}/statements/{now}.csv", f"{payer.account}/statements/2026-06.csv",
        f"{payer.account}/statements/2099-01.pdf", f"{payer.account}/statements/2026-13.pdf",
        f"{payer.account}/statements/2026-9.pdf", f"{payer.account}/statements/2026-09.exe",
        f"{uuid.uuid4()}/statements/2026-09.pdf",
    ):  # fmt: skip
        assert logged_in.get(f"/accounts/{path}").status_code == 404, path
    stranger = browser(app)
    assert stranger.get(f"/accounts/{payer.account}/statements/2026-09.csv").status_code == 302


def test_account_page_lists_the_months(logged_in, history):
    page = logged_in.get(f"/accounts/{history[0].account}").get_data(as_text=True)
    assert f"/accounts/{history[0].account}/statements/2026-07.pdf" in page
    assert "July 2026" in page
