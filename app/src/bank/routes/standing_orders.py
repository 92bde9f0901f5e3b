"""Standing orders of a customer."""

from __future__ import annotations

import uuid  # noqa: TC003  (the router's converter gives this type)

from flask import Blueprint, abort, flash, redirect, render_template, url_for
from flask_babel import gettext
from flask_login import current_user
from werkzeug.wrappers import Response

from bank import i18n
from bank.permissions import Permission, requires
from bank.resources import resources
from bank.routes import amounts, confirmation, order_pages, refusals
from bank.routes.forms import StandingOrderForm
from bank.routes.step_up import Proof
from bank.services import accounts, ledger, standing_orders

blueprint = Blueprint("standing_orders", __name__)
Page = str | Response | tuple[str, int]


@blueprint.get("/standing-orders")
@requires(Permission.OWN_TRANSFERS)
def overview() -> str:
    """Show the person's standing orders and what became of them last."""
    orders = standing_orders.list_of(resources().engine, current_user.id)
    return render_template("standing_orders/overview.html", orders=orders)


@blueprint.route("/standing-orders/new", methods=["GET", "POST"])
@requires(Permission.OWN_TRANSFERS)
def new() -> Page:
    """Take a new order; sending the form twice makes one."""
    form = StandingOrderForm()
    own = order_pages.offer_accounts(form)
    if not form.is_submitted():
        return _form(form, own)
    read = amounts.source_and_amount(form, own)
    if read is None:
        return _form(form, own), 400
    source, amount = read
    order = standing_orders.NewOrder(
        user_id=current_user.id,
        key=form.key.data,
        from_account=source.id,
        to_number=form.to_number.data,
        amount_minor=amount,
        currency=source.currency,
        reference=(form.reference.data or "").strip(),
        frequency=form.frequency.data,
        first_date=form.first_date.data,
        last_date=form.last_date.data,
    )
    try:
        if not confirmation.is_given(order, form):
            status = 403 if form.code.errors or form.password.errors else 200
            return _form(form, own, confirmation.ask(order, form)), status
        receipt = standing_orders.create(resources().engine, order)
    except standing_orders.DatesError:
        form.first_date.errors = [
            gettext("Choose a first date from today on, at most five years ahead, and a last date after it.")
        ]
        return _form(form, own), 422
    except ledger.LedgerError as error:
        status = refusals.beside(error, form)
        return _form(form, own), status
    if not receipt.replayed:
        flash(gettext("Standing order saved. First payment on %(day)s.", day=i18n.day(order.first_date)), "success")
    return redirect(url_for("standing_orders.overview"), 303)


@blueprint.post("/standing-orders/<uuid:order_id>/cancel")
@requires(Permission.OWN_TRANSFERS)
def cancel(order_id: uuid.UUID) -> Response:
    """End an order; a second time changes nothing, so this needs no key."""
    try:
        standing_orders.cancel(resources().engine, current_user.id, order_id)
    except standing_orders.OrderNotFoundError:
        abort(404)
    flash(gettext("Standing order cancelled. Nothing more will be paid."), "success")
    return redirect(url_for("standing_orders.overview"), 303)


def _form(form: StandingOrderForm, own: list[accounts.AccountView], proof: Proof = Proof.NONE) -> str:
    return render_template("standing_orders/new.html", form=form, accounts=own, proof=proof)
