"""The API for programs, version 1."""

from __future__ import annotations

import base64
import uuid  # noqa: TC003  (the router's converter gives this type)
from typing import TYPE_CHECKING

from flask import Blueprint, Response, jsonify
from flask_login import current_user

from bank import account_numbers, metrics, orders
from bank.api import bearer, openapi, schemas
from bank.api.operations import REPLAYED_HEADER, Operation, Reply, add_limit_headers, operation
from bank.log import log_security
from bank.permissions import Permission, public
from bank.problems import ProblemError
from bank.resources import resources
from bank.routes import attempts, judges, log_ins, step_up
from bank.services import accounts, confirmations, ledger, payments, second_factor, transfers, users

if TYPE_CHECKING:
    from collections.abc import Callable

    from bank.services.accounts import AccountView

blueprint = Blueprint("api", __name__)
blueprint.after_request(add_limit_headers)
PREFIX = "/api/v1"
CURSOR_BYTES = 8
# Why an order was refused: status, kind and sentence.
REFUSALS: dict[type[ledger.LedgerError], tuple[int, str, str]] = {
    ledger.InsufficientFundsError: (422, "insufficient-funds", "There is not enough money in the account."),
    ledger.AccountFrozenError: (422, "account-frozen", "The account is frozen: nothing leaves it."),
    ledger.UnknownRecipientError: (422, "unknown-recipient", "No account of this bank has this number."),
    ledger.SameAccountError: (422, "same-account", "Both sides are the same account."),
    ledger.CurrencyMismatchError: (422, "currency-mismatch", "An account is kept in another currency."),
    ledger.KeyReusedError: (422, "idempotency-key-reused", "The key belongs to a request with other content."),
    payments.InvalidCreditorError: (422, "invalid-creditor", "The creditor's name or IBAN cannot be used."),
    payments.OwnBankError: (422, "own-bank", "The creditor has an account at this bank: order a transfer."),
}


@blueprint.get(f"{PREFIX}/openapi.json")
@public
def description() -> Response:
    """Describe the API."""
    return jsonify(openapi.document())


def _who(email: str, body: schemas.TokenRequest) -> tuple[users.Person | None, str | None]:
    """Return whose email and password these are, and with what else they proved it; None: with not enough."""
    found = resources()
    person = users.authenticate(found.engine, email, body.password)
    needs_code = person is not None and person.has_second_factor
    owner = person.id if person and needs_code else None
    used = second_factor.use(found.engine, found.keys, owner, body.code) if body.code else None
    return person, used if needs_code else "password"


@operation(
    blueprint,
    Operation(
        name="issueToken",
        method="POST",
        rule=f"{PREFIX}/token",
        summary="Log in and get an access token.",
        body=schemas.TokenRequest,
        answers={201: schemas.AccessToken},
        problems=(401,),
        limit="token",
        needs_redis=True,
    ),
)
def issue_token(body: schemas.TokenRequest) -> Reply:
    """Issue a token for an email and password, and a code of whoever has a second factor.

    Attempts count together with those of the log-in page, and what was wrong is not told either.
    """
    email = users.normal_email(body.email)
    reached = attempts.reserve(attempts.log_in_counters(email))
    try:
        person, factor = _who(email, body)
    except Exception:
        metrics.LOGINS.labels("error", "password").inc()
        raise
    if person is None or factor is None:
        log_ins.refused("totp" if person else "password", person.get_id() if person else None, reached=reached)
        raise ProblemError(401, "The log-in data are wrong, or a code is needed.", kind="log-in-refused")
    # A program has no browser that could be known.
    novelty = log_ins.accepted(person, email, factor, tries=1, knows_device=True)
    found = resources()
    scopes = sorted(set(body.scopes))
    token = found.tokens.issue(person.id, person.credentials_version, scopes, is_new_place=novelty.place)
    content = schemas.AccessToken(access_token=token, expires_in=found.tokens.lifetime_seconds, scopes=scopes)
    return Reply(content, 201)


@operation(
    blueprint,
    Operation(
        name="revokeToken",
        method="DELETE",
        rule=f"{PREFIX}/token",
        summary="Stop the token of this request from working.",
        answers={204: None},
        permission=Permission.OWN_SECURITY,
        limit="write",
    ),
)
def revoke_token() -> Reply:
    """Revoke the token that the request carries."""
    resources().tokens.revoke(bearer.token())
    log_security("token revoked", action="log-out", outcome="success", kind="end", reason="api")
    return Reply(status=204)


def _account(account: AccountView) -> schemas.Account:
    return schemas.Account.model_validate(account, from_attributes=True)


@operation(
    blueprint,
    Operation(
        name="listAccounts",
        method="GET",
        rule=f"{PREFIX}/accounts",
        summary="List the caller's accounts.",
        answers={200: schemas.AccountList},
        permission=Permission.OWN_ACCOUNTS,
        scope="accounts:read",
        limit="read",
    ),
)
def list_accounts() -> Reply:
    """List the caller's open accounts."""
    own = accounts.list_of(resources().engine, current_user.id)
    return Reply(schemas.AccountList(items=[_account(account) for account in own]))


def _own(account_id: uuid.UUID) -> AccountView:
    account = accounts.get(resources().engine, current_user.id, account_id)
    if account is None:
        raise ProblemError(404, "There is no such account.")
    return account


@operation(
    blueprint,
    Operation(
        name="getAccount",
        method="GET",
        rule=f"{PREFIX}/accounts/<uuid:account_id>",
        summary="Read one of the caller's accounts.",
        answers={200: schemas.Account},
        permission=Permission.OWN_ACCOUNTS,
        scope="accounts:read",
        limit="read",
    ),
)
def get_account(account_id: uuid.UUID) -> Reply:
    """Read an account; somebody else's does not exist."""
    return Reply(_account(_own(account_id)))


@operation(
    blueprint,
    Operation(
        name="getHistory",
        method="GET",
        rule=f"{PREFIX}/accounts/<uuid:account_id>/history",
        summary="Read the history of one of the caller's accounts, newest first.",
        query=schemas.HistoryQuery,
        answers={200: schemas.History},
        permission=Permission.OWN_ACCOUNTS,
        scope="accounts:read",
        limit="read",
    ),
)
def get_history(account_id: uuid.UUID, query: schemas.HistoryQuery) -> Reply:
    """Read part of an account's history."""
    owner_id = current_user.id
    page = accounts.history(
        resources().engine, account_id, _before(query.cursor), length=query.limit, owner_id=owner_id
    )
    if not page.movements:
        _own(account_id)  # else there is no such account
    items = [
        schemas.Movement(
            entry_id=line.entry_id,
            kind=line.kind,
            booked_at=line.booked_at,
            amount_minor=line.amount_minor,
            balance_after_minor=line.balance_after_minor,
            reference=line.reference,
            counterparty=line.other_name,
            counterparty_number=line.other_number,
        )
        for line in page.movements
    ]
    return Reply(schemas.History(items=items, next_cursor=_cursor(page.next_before)))


def _cursor(before: int | None) -> str | None:
    if before is None:
        return None
    return base64.urlsafe_b64encode(before.to_bytes(CURSOR_BYTES)).decode().rstrip("=")


def _before(cursor: str | None) -> int | None:
    if cursor is None:
        return None
    return min(int.from_bytes(base64.urlsafe_b64decode(cursor + "=")), 2**63 - 1)


@operation(
    blueprint,
    Operation(
        name="createTransfer",
        method="POST",
        rule=f"{PREFIX}/transfers",
        summary="Move money to an account of this bank.",
        body=schemas.TransferRequest,
        answers={201: schemas.Transfer, 202: schemas.Transfer},
        problems=(404, 409),
        needs_key=True,
        permission=Permission.OWN_TRANSFERS,
        scope="transfers:write",
        limit="write",
    ),
)
def create_transfer(body: schemas.TransferRequest, key: str) -> Reply:
    """Carry out a transfer, or find that it was carried out before."""
    found = resources()
    order = transfers.Order(
        user_id=current_user.id,
        key=key,
        from_account=body.from_account,
        to_number=account_numbers.normalise(body.to_number) or body.to_number,
        amount_minor=body.amount_minor,
        currency=body.currency,
        reference=body.reference,
    )
    judge = judges.of_token()
    receipt = _carried_out(
        "transfer", order, body, lambda: transfers.transfer(found.engine, order, found.settings.approvals, judge)
    )
    return _ordered(schemas.Transfer, body, receipt)


@operation(
    blueprint,
    Operation(
        name="createPayment",
        method="POST",
        rule="/api/payment",
        summary="Pay to an account at another bank.",
        body=schemas.PaymentRequest,
        answers={201: schemas.Payment, 202: schemas.Payment},
        problems=(404, 409),
        needs_key=True,
        permission=Permission.OWN_TRANSFERS,
        scope="payments:write",
        limit="write",
    ),
)
def create_payment(body: schemas.PaymentRequest, key: str) -> Reply:
    """Carry out a payment, or find that it was carried out before."""
    found = resources()
    order = payments.PaymentOrder(
        user_id=current_user.id,
        key=key,
        from_account=body.from_account,
        creditor_name=body.creditor_name,
        creditor_iban=body.creditor_iban,
        amount_minor=body.amount_minor,
        currency=body.currency,
        reference=body.reference,
    )
    judge = judges.of_token()
    receipt = _carried_out(
        "payment", order, body, lambda: payments.pay(found.engine, order, found.settings.approvals, judge)
    )
    return _ordered(schemas.Payment, body, receipt)


def _confirm(order: confirmations.Order, code: str) -> None:
    """Make sure of the second factor of who has one; the code is bound to the order by coming in the same request.

    Raises:
        ProblemError: The order must be confirmed, and is not.
        ledger.LedgerError: The order is not complete.
    """
    found = resources()
    if not current_user.has_second_factor:
        return
    if not confirmations.is_needed(found.engine, order, found.settings.confirmation):
        return
    if not code:
        raise ProblemError(403, "This order needs a code of the second factor.", kind="code-needed")
    if not step_up.take(step_up.Proof.CODE, code):
        raise ProblemError(403, "The code is wrong, or was used before.", kind="code-refused")


def _carried_out(
    kind: str,
    order: transfers.Order | payments.PaymentOrder,
    body: schemas.OrderRequest,
    work: Callable[[], ledger.Receipt],
) -> ledger.Receipt:
    try:
        _confirm(order, body.code)
        return orders.carry_out(kind, order, work)
    except ledger.AccountNotFoundError:
        raise ProblemError(404, "There is no such account to pay from.") from None
    except ledger.BusyError:
        # Also when the first request with this key has not ended for five seconds.
        raise ProblemError(
            409, "The account or the key is in use; send the same again.", kind="busy", headers={"Retry-After": "1"}
        ) from None
    except ledger.LedgerError as error:
        status, name, sentence = REFUSALS.get(type(error), (422, "refused", "This order is not possible."))
        raise ProblemError(status, sentence, kind=name) from None


def _ordered(model: type[schemas.Order], body: schemas.OrderRequest, receipt: ledger.Receipt) -> Reply:
    """Return the answer to an order, which is the same whenever the order is sent again.

    It says what was ordered and what that led to; that an approval has been given since then is not its subject.
    """
    waits = receipt.approval_id is not None
    result = {"id": receipt.approval_id or receipt.entry_id, "status": "waiting" if waits else "completed"}
    headers = {REPLAYED_HEADER: "true"} if receipt.replayed else {}
    return Reply(model.model_validate(result | body.model_dump(exclude={"code"})), 202 if waits else 201, headers)
