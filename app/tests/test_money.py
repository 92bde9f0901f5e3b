"""Amounts of money, typed by people."""

import ast
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import bank
from bank import account_numbers, money


@pytest.mark.parametrize(
    ("typed", "currency", "minor"),
    [
        ("1", "EUR", 100), ("0.01", "EUR", 1), ("25.5", "EUR", 2550), ("  7.00 ", "EUR", 700), ("007", "EUR", 700),
        ("5", "JPY", 5), ("1.234", "KWD", 1234), ("92233720368547758.07", "EUR", 2**63 - 1),
    ],
)  # fmt: skip
def test_understood(typed, currency, minor):
    assert money.parse_amount(typed, currency) == minor


@pytest.mark.parametrize(
    "typed",
    [
        "", " ", "NaN", "nan", "Infinity", "-Infinity", "inf", "1e3", "1E3", "+5", "-5", "−5", "0", "0.00", "1.234",
        "1.005", ".5", "5.", "1,50", "1,000.00", "1 000", "1_000", "0x10", "１２", "٣", "१", "²", "½", "5\n", "5\x00",
        "92233720368547758.08", "9223372036854775808", "99999999999999999999", "9" * 400, "$5", "5 EUR", "1.2.3",
    ],
)  # fmt: skip
def test_refused(typed):
    with pytest.raises(money.AmountError):
        money.parse_amount(typed, "EUR")


def test_decimals_that_a_currency_lacks_are_refused_not_dropped():
    with pytest.raises(money.AmountError):
        money.parse_amount("1.0", "JPY")
    with pytest.raises(money.AmountError):
        money.parse_amount("1.2345", "KWD")


@given(st.integers(1, 2**63 - 1), st.sampled_from(sorted(money.EXPONENTS)))
def test_what_is_shown_can_be_typed_again(minor, currency):
    assert money.parse_amount(money.format_number(minor, currency).replace(",", ""), currency) == minor


@given(st.text())
def test_any_text_is_an_amount_or_refused(typed):
    try:
        minor = money.parse_amount(typed, "EUR")
    except money.AmountError:
        return
    assert type(minor) is int
    assert 0 < minor < 2**63


def test_negative_amounts_are_shown_with_a_minus():
    assert money.format_money(-123450, "EUR") == "−1,234.50 EUR"
    assert money.format_number(5, "EUR") == "0.05"


@given(st.integers(0, 10**16 - 1), st.integers(2, 19), st.integers(1, 9))
def test_account_number_notices_a_wrong_digit(body, position, shift):
    number = account_numbers.make(body)
    assert account_numbers.normalise(account_numbers.grouped(number).lower()) == number
    wrong = str((int(number[position]) + shift) % 10)
    assert account_numbers.normalise(number[:position] + wrong + number[position + 1 :]) is None


@pytest.mark.parametrize("text", ["", "BK", "DE89370400440532013000", "BK12", "ＢＫ" + "1" * 18, "BK" + "٣" * 18])
def test_account_number_of_another_shape(text):
    assert account_numbers.normalise(text) is None


def test_money_code_knows_no_floats():
    folder = Path(bank.__file__).parent
    for path in [folder / "money.py", *(folder / "services").glob("*.py"), *(folder / "models").glob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text())):
            is_float = isinstance(node, ast.Constant) and isinstance(node.value, float)
            is_call = isinstance(node, ast.Name) and node.id == "float"
            is_division = isinstance(node, ast.BinOp) and isinstance(node.op, ast.Div)
            assert not (is_float or is_call or is_division), f"{path.name}:{node.lineno}"
