"""The way of an order through the pages, the same for all kinds: form, review, confirmation, booking, what is told."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

from flask import flash, redirect, render_template, request, url_for
from flask_babel import LazyString, gettext
from flask_login import current_user
from werkzeug.wrappers import Response
from wtforms import SelectChoice

from bank import i18n, orders
from bank.resources import resources
from bank.routes import amounts, confirmation, refusals
from bank.routes.forms import MoneyForm
from bank.services import accounts, confirmations, ledger, movements

if TYPE_CHECKING:
    from collections.abc import Callable

Page = str | Response | tuple[str, int]


class Order(confirmations.Order, Protocol):
    """A customer's order to move money at once."""

    @property
    def from_account(self) -> uuid.UUID:
        """Return the account that pays."""

    @property
    def movement(self) -> ledger.Movement:
        """Return what the ledger is to do."""


FormType = TypeVar("FormType", bound=MoneyForm)
OrderType = TypeVar("OrderType", bound=Order)


@dataclass(frozen=True)
class Kind(Generic[FormType, OrderType]):
    """What is particular to one kind of order.

    Attributes:
        name: In metrics and logs; the views are ``<name>s.<name>`` and ``<name>s.review``.
        check: What the review asks for.
        form: What people fill in.
        show: Renders the form with the person's accounts, and with what is wrong in it.
        order: Makes an order of the form, the account that pays, and the amount in minor units.
        recipient: Tells a name for who is paid, or nothing.
        work: Carries the order out.
    """

    name: str
    check: LazyString
    form: type[FormType]
    show: Callable[[FormType, list[accounts.AccountView]], str]
    order: Callable[[FormType, accounts.AccountView, int], OrderType]
    recipient: Callable[[OrderType, list[accounts.AccountView]], str]
    work: Callable[[OrderType], ledger.Receipt]

    def begin(self) -> tuple[FormType, list[accounts.AccountView]]:
        """Return the form as it came in, or a new one, and the person's accounts."""
        form = self.form()
        return form, offer_accounts(form)

    def read(self, form: FormType, own: list[accounts.AccountView]) -> OrderType | None:
        """Return what was typed as an order, or None with the reasons beside the fields."""
        found = amounts.source_and_amount(form, own)
        return None if found is None else self.order(form, *found)


def offer_accounts(form: MoneyForm) -> list[accounts.AccountView]:
    """Let the form offer the person's accounts to pay from, and give a new form its key."""
    own = accounts.list_of(resources().engine, current_user.id)
    form.from_account.choices = [
        SelectChoice(str(a.id), f"{a.name} · {i18n.amount(a.available_minor, a.currency)}") for a in own
    ]
    if not form.is_submitted():
        form.key.data = str(uuid.uuid4())
    return own


def review(kind: Kind[FormType, OrderType]) -> Page:
    """Show what a form would do, to be confirmed or changed; nothing happens yet, and the key stays the same."""
    if request.method != "POST":
        return redirect(url_for(f"{kind.name}s.{kind.name}"))
    form, own = kind.begin()
    order = kind.read(form, own)
    if "change" in request.form or order is None:
        return kind.show(form, own), 200 if order else 400
    return _preview(kind, order, form, own)


def send(kind: Kind[FormType, OrderType]) -> Page:
    """Carry out the order of a form, once it is confirmed; sending it twice moves the money once."""
    form, own = kind.begin()
    order = kind.read(form, own)
    if order is None:
        return kind.show(form, own), 400
    try:
        if not confirmation.is_given(order, form):
            return _preview(kind, order, form, own, status=403)
        receipt = orders.carry_out(kind.name, order, lambda: kind.work(order))
    except ledger.LedgerError as error:
        status = refusals.beside(error, form)
        return kind.show(form, own), status
    if not receipt.replayed:
        _tell(order, receipt)
    return redirect(url_for("accounts.detail", account_id=order.from_account), 303)


def _preview(
    kind: Kind[FormType, OrderType],
    order: OrderType,
    form: FormType,
    own: list[accounts.AccountView],
    status: int = 200,
) -> Page:
    """Show what an order would do, and ask for the proof that it needs."""
    found = resources()
    try:
        preview = movements.preview(found.engine, order.movement, found.settings.approvals)
        proof = confirmation.ask(order, form)
    except ledger.LedgerError as error:
        status = refusals.beside(error, form)
        return kind.show(form, own), status
    page = render_template(
        "order_review.html",
        title=kind.check,
        send=url_for(f"{kind.name}s.{kind.name}"),
        change=url_for(f"{kind.name}s.review"),
        source=next(account for account in own if account.id == order.from_account),
        recipient=kind.recipient(order, own),
        order=order,
        form=form,
        preview=preview,
        proof=proof,
    )
    return page, status


def _tell(order: Order, receipt: ledger.Receipt) -> None:
    amount = i18n.amount(order.amount_minor, order.currency)
    if receipt.approval_id:
        told = gettext(
            "%(amount)s waiting for approval. The amount is reserved until the bank has checked the transfer.",
            amount=amount,
        )
        flash(told, "info")
    else:
        flash(gettext("%(amount)s sent.", amount=amount), "success")
