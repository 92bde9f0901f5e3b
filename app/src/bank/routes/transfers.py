"""Moving money between accounts of this bank."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flask import Blueprint, render_template, request
from flask_babel import lazy_gettext as _
from flask_login import current_user

from bank.permissions import Permission, requires
from bank.resources import resources
from bank.routes import judges, order_pages
from bank.routes.forms import TransferForm
from bank.services import beneficiaries, ledger, transfers

if TYPE_CHECKING:
    from bank.routes.order_pages import Page
    from bank.services.accounts import AccountView

blueprint = Blueprint("transfers", __name__)


def _saved() -> list[beneficiaries.Saved]:
    return beneficiaries.list_of(resources().engine, current_user.id)


def _show(form: TransferForm, own: list[AccountView]) -> str:
    return render_template("transfer.html", form=form, accounts=own, saved=_saved())


def _order(form: TransferForm, source: AccountView, amount_minor: int) -> transfers.Order:
    return transfers.Order(
        user_id=current_user.id,
        key=form.key.data,
        from_account=source.id,
        to_number=form.to_number.data,
        amount_minor=amount_minor,
        currency=source.currency,
        reference=(form.reference.data or "").strip(),
    )


def _recipient(order: transfers.Order, own: list[AccountView]) -> str:
    names = {item.number: item.name for item in _saved()} | {account.number: account.name for account in own}
    return names.get(order.to_number, "")


def _transfer(order: transfers.Order) -> ledger.Receipt:
    found = resources()
    return transfers.transfer(found.engine, order, found.settings.approvals, judges.of_session())


TRANSFER = order_pages.Kind("transfer", _("Check your transfer"), TransferForm, _show, _order, _recipient, _transfer)


@blueprint.route("/transfer", methods=["GET", "POST"])
@requires(Permission.OWN_TRANSFERS)
def transfer() -> Page:
    """Show the form, filled in as far as the address says, and carry it out."""
    if request.method == "POST":
        return order_pages.send(TRANSFER)
    form, own = TRANSFER.begin()
    wanted = request.args.get("from", "")
    if wanted in {str(account.id) for account in own}:
        form.from_account.data = wanted
    chosen = request.args.get("to", "")
    form.to_number.data = next((item.number for item in _saved() if str(item.id) == chosen), "")
    return _show(form, own)


@blueprint.route("/transfer/review", methods=["GET", "POST"])
@requires(Permission.OWN_TRANSFERS)
def review() -> Page:
    """Show what the form would do."""
    return order_pages.review(TRANSFER)
