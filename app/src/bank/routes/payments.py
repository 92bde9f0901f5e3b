"""Paying to accounts at other banks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flask import Blueprint, redirect, render_template, request, url_for
from flask_login import current_user

from bank.permissions import Permission, requires
from bank.resources import resources
from bank.routes import amounts, order_pages
from bank.routes.forms import PaymentForm
from bank.routes.order_pages import Filled, Page
from bank.services import payments

if TYPE_CHECKING:
    from bank.services.accounts import AccountView

blueprint = Blueprint("payments", __name__)


@blueprint.route("/payment", methods=["GET", "POST"])
@requires(Permission.OWN_TRANSFERS)
def payment() -> Page:
    """Show the form and carry it out; sending it twice moves the money once."""
    form = PaymentForm()
    own = order_pages.offer_accounts(form)
    if not form.is_submitted():
        return _show(form, own)
    order = _order(form, own)
    if order is None:
        return _show(form, own), 400
    found = resources()
    return order_pages.send(
        _filled(order, form, own), lambda: payments.pay(found.engine, order, found.settings.approvals)
    )


@blueprint.route("/payment/review", methods=["GET", "POST"])
@requires(Permission.OWN_TRANSFERS)
def review() -> Page:
    """Show what the form would do, to be confirmed or changed; nothing happens yet, and the key stays the same."""
    if request.method != "POST":
        return redirect(url_for("payments.payment"))
    form = PaymentForm()
    own = order_pages.offer_accounts(form)
    order = _order(form, own)
    if "change" in request.form or order is None:
        return _show(form, own), 200 if order else 400
    return order_pages.review(_filled(order, form, own))


def _show(form: PaymentForm, own: list[AccountView]) -> str:
    return render_template("payment.html", form=form, accounts=own)


def _order(form: PaymentForm, own: list[AccountView]) -> payments.PaymentOrder | None:
    """Return what was typed as an order, or None with the reasons beside the fields."""
    read = amounts.source_and_amount(form, own)
    if read is None:
        return None
    source, amount = read
    return payments.PaymentOrder(
        user_id=current_user.id,
        key=form.key.data,
        from_account=source.id,
        creditor_name=form.creditor_name.data,
        creditor_iban=form.creditor_iban.data,
        amount_minor=amount,
        currency=source.currency,
        reference=(form.reference.data or "").strip(),
    )


def _filled(order: payments.PaymentOrder, form: PaymentForm, own: list[AccountView]) -> Filled:
    return Filled("payment", order, form, own, lambda: order.name, lambda: _show(form, own))
