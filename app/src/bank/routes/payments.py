"""Paying to accounts at other banks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flask import Blueprint, render_template, request
from flask_babel import lazy_gettext as _
from flask_login import current_user

from bank.permissions import Permission, requires
from bank.resources import resources
from bank.routes import judges, order_pages
from bank.routes.forms import PaymentForm
from bank.services import ledger, payments

if TYPE_CHECKING:
    from bank.routes.order_pages import Page
    from bank.services.accounts import AccountView

blueprint = Blueprint("payments", __name__)


def _show(form: PaymentForm, own: list[AccountView]) -> str:
    return render_template("payment.html", form=form, accounts=own)


def _order(form: PaymentForm, source: AccountView, amount_minor: int) -> payments.PaymentOrder:
    return payments.PaymentOrder(
        user_id=current_user.id,
        key=form.key.data,
        from_account=source.id,
        creditor_name=form.creditor_name.data,
        creditor_iban=form.creditor_iban.data,
        amount_minor=amount_minor,
        currency=source.currency,
        reference=(form.reference.data or "").strip(),
    )


def _recipient(order: payments.PaymentOrder, _own: list[AccountView]) -> str:
    return order.name


def _pay(order: payments.PaymentOrder) -> ledger.Receipt:
    found = resources()
    return payments.pay(found.engine, order, found.settings.approvals, judges.of_session())


PAYMENT = order_pages.Kind("payment", _("Check your payment"), PaymentForm, _show, _order, _recipient, _pay)


@blueprint.route("/payment", methods=["GET", "POST"])
@requires(Permission.OWN_TRANSFERS)
def payment() -> Page:
    """Show the form, and carry it out."""
    return order_pages.send(PAYMENT) if request.method == "POST" else _show(*PAYMENT.begin())


@blueprint.route("/payment/review", methods=["GET", "POST"])
@requires(Permission.OWN_TRANSFERS)
def review() -> Page:
    """Show what the form would do."""
    return order_pages.review(PAYMENT)
