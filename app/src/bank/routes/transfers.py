"""Moving money between accounts of this bank."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flask import Blueprint, redirect, render_template, request, url_for
from flask_login import current_user

from bank.permissions import Permission, requires
from bank.resources import resources
from bank.routes import amounts, order_pages
from bank.routes.forms import TransferForm
from bank.routes.order_pages import Filled, Page
from bank.services import beneficiaries, transfers

if TYPE_CHECKING:
    from bank.services.accounts import AccountView

blueprint = Blueprint("transfers", __name__)


@blueprint.route("/transfer", methods=["GET", "POST"])
@requires(Permission.OWN_TRANSFERS)
def transfer() -> Page:
    """Show the form and carry it out; sending it twice moves the money once."""
    form = TransferForm()
    own = order_pages.offer_accounts(form)
    if not form.is_submitted():
        wanted = request.args.get("from", "")
        if wanted in {str(account.id) for account in own}:
            form.from_account.data = wanted
        chosen = request.args.get("to", "")
        form.to_number.data = next((item.number for item in _saved() if str(item.id) == chosen), "")
        return _show(form, own)
    order = _order(form, own)
    if order is None:
        return _show(form, own), 400
    found = resources()
    return order_pages.send(
        _filled(order, form, own), lambda: transfers.transfer(found.engine, order, found.settings.approvals)
    )


@blueprint.route("/transfer/review", methods=["GET", "POST"])
@requires(Permission.OWN_TRANSFERS)
def review() -> Page:
    """Show what the form would do, to be confirmed or changed; nothing happens yet, and the key stays the same."""
    if request.method != "POST":
        return redirect(url_for("transfers.transfer"))
    form = TransferForm()
    own = order_pages.offer_accounts(form)
    order = _order(form, own)
    if "change" in request.form or order is None:
        return _show(form, own), 200 if order else 400
    return order_pages.review(_filled(order, form, own))


def _saved() -> list[beneficiaries.Saved]:
    return beneficiaries.list_of(resources().engine, current_user.id)


def _show(form: TransferForm, own: list[AccountView]) -> str:
    return render_template("transfer.html", form=form, accounts=own, saved=_saved())


def _order(form: TransferForm, own: list[AccountView]) -> transfers.Order | None:
    """Return what was typed as an order, or None with the reasons beside the fields."""
    read = amounts.source_and_amount(form, own)
    if read is None:
        return None
    source, amount = read
    return transfers.Order(
        user_id=current_user.id,
        key=form.key.data,
        from_account=source.id,
        to_number=form.to_number.data,
        amount_minor=amount,
        currency=source.currency,
        reference=(form.reference.data or "").strip(),
    )


def _filled(order: transfers.Order, form: TransferForm, own: list[AccountView]) -> Filled:
    def recipient() -> str:
        names = {item.number: item.name for item in _saved()} | {account.number: account.name for account in own}
        return names.get(order.to_number, "")

    return Filled("transfer", order, form, own, recipient, lambda: _show(form, own))
