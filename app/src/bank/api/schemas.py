"""What the API takes and gives. Unknown fields are refused, and nothing is converted: "1" is not a number."""

from __future__ import annotations

import uuid
from datetime import datetime
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from bank.money import MAX_MINOR
from bank.services.passwords import MAX_LENGTH
from bank.services.payments import MAX_NAME
from bank.services.tokens import SCOPES
from bank.services.users import MAX_EMAIL

# No control characters and no line or paragraph separators.
PRINTABLE = r"^[^\u0000-\u001f\u007f-\u009f\u2028\u2029]*$"
CURRENCY = r"^[A-Z]{3}$"
CURSOR = r"^[A-Za-z0-9_-]{11}$"
MAX_PAGE = 100

Scope = Literal["accounts:read", "transfers:write", "payments:write"]
Amount = Annotated[int, Field(gt=0, le=MAX_MINOR, description="In minor units of the currency: cents for EUR.")]
Reference = Annotated[str, Field(max_length=140, pattern=PRINTABLE, description="Seen by both sides.")]
Currency = Annotated[str, Field(pattern=CURRENCY, description="ISO 4217.", examples=["EUR"])]


class Given(BaseModel):
    """What a caller sends."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, hide_input_in_errors=True)


class Answer(BaseModel):
    """What a caller gets."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class TokenRequest(Given):
    """Log-in data for an access token."""

    email: Annotated[str, Field(min_length=3, max_length=MAX_EMAIL)]
    password: Annotated[str, Field(min_length=1, max_length=MAX_LENGTH, json_schema_extra={"format": "password"})]
    code: Annotated[
        str,
        Field(max_length=64, description="Of the app, or a recovery code, if there is a second factor."),
    ] = ""
    scopes: Annotated[list[Scope], Field(min_length=1, max_length=len(SCOPES))]


class AccessToken(Answer):
    """A bearer token."""

    access_token: str
    token_type: Literal["Bearer"] = "Bearer"  # noqa: S105  (the scheme's name)
    expires_in: Annotated[int, Field(description="Seconds.")]
    scopes: list[Scope]


class Account(Answer):
    """An account of the caller; amounts in minor units of the currency."""

    id: uuid.UUID
    number: str
    name: str
    kind: str
    currency: Currency
    balance_minor: int
    status: Annotated[str, Field(description="`open`, or `frozen`: nothing leaves it.")]
    available_minor: Annotated[int, Field(description="What can be spent, an overdraft limit included.")]


class AccountList(Answer):
    """All open accounts of the caller."""

    items: list[Account]


class HistoryQuery(Given):
    """Which part of a history."""

    limit: Annotated[int, Field(ge=1, le=MAX_PAGE, strict=False, description="Movements in the answer.")] = 25
    cursor: Annotated[
        str | None, Field(pattern=CURSOR, description="`next_cursor` of the part before; absent: the newest.")
    ] = None


class Movement(Answer):
    """One line of a history; a negative amount left the account."""

    entry_id: uuid.UUID
    kind: str
    booked_at: datetime
    amount_minor: int
    balance_after_minor: int
    reference: str
    counterparty: str
    counterparty_number: str | None


class History(Answer):
    """Part of a history, newest first. Movements that are booked meanwhile are neither repeated nor skipped."""

    items: list[Movement]
    next_cursor: Annotated[str | None, Field(description="Null at the end.")]


class OrderRequest(Given):
    """What every order to move money holds."""

    from_account: uuid.UUID
    amount_minor: Amount
    currency: Currency
    reference: Reference = ""
    code: Annotated[
        str,
        Field(
            max_length=64,
            pattern=PRINTABLE,
            description=(
                "Of the app, or a recovery code: needed by whoever has a second factor for a large amount, and for a "
                "payee who is not among their beneficiaries. It confirms this request and works once."
            ),
        ),
    ] = ""


class Order(Answer):
    """What became of an order. ``id`` is that of the journal entry, or of the approval that is waited for."""

    id: uuid.UUID
    status: Literal["completed", "waiting"]
    from_account: uuid.UUID
    amount_minor: int
    currency: Currency
    reference: str


class TransferRequest(OrderRequest):
    """An order to move money to an account of this bank."""

    to_number: Annotated[str, Field(min_length=5, max_length=42, pattern=PRINTABLE)]


class Transfer(Order):
    """What became of a transfer. ``id`` is that of the journal entry, or of the approval that is waited for."""

    to_number: str


class PaymentRequest(OrderRequest):
    """An order to pay to an account at another bank."""

    creditor_name: Annotated[str, Field(min_length=1, max_length=MAX_NAME, pattern=PRINTABLE)]
    creditor_iban: Annotated[str, Field(min_length=15, max_length=42, pattern=PRINTABLE)]


class Payment(Order):
    """What became of a payment. ``id`` is that of the journal entry, or of the approval that is waited for."""

    creditor_name: str
    creditor_iban: str


class FieldProblem(Answer):
    """What is wrong with one field."""

    field: str
    detail: str


class Problem(Answer):
    """An error (RFC 9457)."""

    type: str
    title: str
    status: int
    detail: str
    reference: Annotated[str, Field(description="Tell it to the bank: it finds the log lines and the trace.")]
    errors: list[FieldProblem] = []
