"""The way of an order through the pages, the same for all kinds: review, confirmation, booking, and what is told."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from flask import flash, redirect, render_template, url_for
from flask_babel import gettext
from flask_babel import lazy_gettext as _
from flask_login import current_user
from werkzeug.wrappers import Response
from wtforms import SelectChoice

from bank import i18n, orders
from bank.resources import resources
from bank.routes import confirmation, refusals
from bank.services import accounts, ledger, movements
from bank.services.confirmations import Order as ConfirmableOrder

if TYPE_CHECKING:
    from collections.abc import Callable

    from bank.routes.forms import MoneyForm

Page = str | Response | tuple[str, int]
TITLES = {"transfer": _("Check your transfer"), "payment": _("Check your payment")}


class Order(ConfirmableOrder, Protocol):
    """A customer's order to move money at once."""

    @property
    def from_account(self) -> uuid.UUID:
        """Return the account that pays."""

    @property
    def movement(self) -> ledger.Movement:
        """Return what the ledger is to do."""


@dataclass(frozen=True)
class Filled:
    """A form that was filled in with an order.

    ``recipient`` tells a name for who is paid, and ``show`` gives the form again, with what is wrong in it.
    """

    kind: str
    order: Order
    form: MoneyForm
    own: list[accounts.AccountView]
    recipient: Callable[[], str]
    show: Callable[[], str]


def offer_accounts(form: MoneyForm) -> list[accounts.AccountView]:
    """Let the form offer the person's accounts to pay from, and give a new form its key."""
    own = accounts.list_of(resources().engine, current_user.id)
    form.from_account.choices = [
        SelectChoice(str(a.id), f"{a.name} · {i18n.amount(a.available_minor, a.currency)}") for a in own
    ]
    if not form.is_submitted():
        form.key.data = str(uuid.uuid4())
    return own


def review(filled: Filled, status: int = 200) -> Page:
    """Show what an order would do, and ask for the proof that it needs; nothing happens yet."""
    found, order = resources(), filled.order
    try:
        preview = movements.preview(found.engine, order.movement, found.settings.approvals)
        proof = confirmation.ask(order, filled.form)
    except ledger.LedgerError as error:
        return _refused(filled, error)
    page = render_template(
        "order_review.html",
        title=TITLES[filled.kind],
        send=url_for(f"{filled.kind}s.{filled.kind}"),
        change=url_for(f"{filled.kind}s.review"),
        source=next(account for account in filled.own if account.id == order.from_account),
        recipient=filled.recipient(),
        order=order,
        form=filled.form,
        preview=preview,
        proof=proof,
    )
    return page, status


def send(filled: Filled, work: Callable[[], ledger.Receipt]) -> Page:
    """Carry an order out by ``work``, once it is confirmed."""
    order = filled.order
    try:
        if not confirmation.is_given(order, filled.form):
            return review(filled, status=403)
        receipt = orders.carry_out(filled.kind, order, work)
    except ledger.LedgerError as error:
        return _refused(filled, error)
    if not receipt.replayed:
        _tell(order, receipt)
    return redirect(url_for("accounts.detail", account_id=order.from_account), 303)


def _refused(filled: Filled, error: ledger.LedgerError) -> Page:
    status = refusals.beside(error, filled.form)
    return filled.show(), status


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
