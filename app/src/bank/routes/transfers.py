"""Moving money."""

from __future__ import annotations

import uuid

from flask import Blueprint, flash, redirect, render_template, request, url_for
from flask_babel import gettext
from flask_login import current_user
from werkzeug.wrappers import Response
from wtforms import SelectChoice

from bank import i18n, orders
from bank.permissions import Permission, requires
from bank.resources import resources
from bank.routes import amounts, confirmation, refusals
from bank.routes.forms import TransferForm
from bank.services import accounts, beneficiaries, ledger, movements, transfers

blueprint = Blueprint("transfers", __name__)
Page = str | Response | tuple[str, int]


@blueprint.route("/transfer", methods=["GET", "POST"])
@requires(Permission.OWN_TRANSFERS)
def transfer() -> Page:
    """Show the form and carry it out; sending it twice moves the money once."""
    form, own = _form()
    if not form.is_submitted():
        form.key.data = str(uuid.uuid4())
        wanted = request.args.get("from", "")
        if wanted in {str(account.id) for account in own}:
            form.from_account.data = wanted
        chosen = request.args.get("to", "")
        form.to_number.data = next((item.number for item in _saved() if str(item.id) == chosen), "")
        return _show(form, own)
    order = _order(form, own)
    if order is None:
        return _show(form, own), 400
    if not confirmation.is_given(order, form):
        return _review(order, form, own, status=403)
    return _carry_out(order, form, own)


@blueprint.route("/transfer/review", methods=["GET", "POST"])
@requires(Permission.OWN_TRANSFERS)
def review() -> Page:
    """Show what the form would do, to be confirmed or changed; nothing happens yet, and the key stays the same."""
    if request.method != "POST":
        return redirect(url_for("transfers.transfer"))
    form, own = _form()
    order = _order(form, own)
    if "change" in request.form or order is None:
        return _show(form, own), 200 if order else 400
    return _review(order, form, own)


def _review(order: transfers.Order, form: TransferForm, own: list[accounts.AccountView], status: int = 200) -> Page:
    """Show what an order would do, and ask for the proof that it needs."""
    found = resources()
    try:
        preview = movements.preview(found.engine, order.movement, found.settings.approvals)
    except ledger.LedgerError as error:
        status = refusals.beside(error, form)
        return _show(form, own), status
    names = {item.number: item.name for item in _saved()} | {account.number: account.name for account in own}
    source = next(account for account in own if account.id == order.from_account)
    page = render_template(
        "transfer_review.html",
        proof=confirmation.ask(order, form),
        form=form,
        order=order,
        source=source,
        recipient=names.get(order.to_number, ""),
        preview=preview,
    )
    return page, status


def _form() -> tuple[TransferForm, list[accounts.AccountView]]:
    own = accounts.list_of(resources().engine, current_user.id)
    form = TransferForm()
    form.from_account.choices = [
        SelectChoice(str(a.id), f"{a.name} · {i18n.amount(a.available_minor, a.currency)}") for a in own
    ]
    return form, own


def _saved() -> list[beneficiaries.Saved]:
    return beneficiaries.list_of(resources().engine, current_user.id)


def _show(form: TransferForm, own: list[accounts.AccountView]) -> str:
    return render_template("transfer.html", form=form, accounts=own, saved=_saved())


def _order(form: TransferForm, own: list[accounts.AccountView]) -> transfers.Order | None:
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


def _carry_out(order: transfers.Order, form: TransferForm, own: list[accounts.AccountView]) -> Page:
    found = resources()
    try:
        receipt = orders.carry_out(
            "transfer", order, lambda: transfers.transfer(found.engine, order, found.settings.approvals)
        )
    except ledger.LedgerError as error:
        status = refusals.beside(error, form)
        return _show(form, own), status
    if not receipt.replayed:
        _tell(order, receipt)
    return redirect(url_for("accounts.detail", account_id=order.from_account), 303)


def _tell(order: transfers.Order, receipt: ledger.Receipt) -> None:
    amount = i18n.amount(order.amount_minor, order.currency)
    if receipt.approval_id:
        told = gettext(
            "%(amount)s waiting for approval. The amount is reserved until the bank has checked the transfer.",
            amount=amount,
        )
        flash(told, "info")
    else:
        flash(gettext("%(amount)s sent.", amount=amount), "success")
