"""What staff do for customers: find them, read accounts, take and give cash, ask for reversals, freeze accounts."""

from __future__ import annotations

import uuid
from dataclasses import dataclass

from flask import Blueprint, abort, flash, redirect, render_template, url_for
from flask_babel import gettext
from flask_login import current_user
from werkzeug.wrappers import Response

from bank import i18n, orders
from bank.access import origin
from bank.permissions import Permission, requires
from bank.resources import resources
from bank.routes import amounts, positions, refusals
from bank.routes.staff_forms import CashForm, FindForm, ReasonForm, ReversalForm
from bank.services import accounts, cash, customers, ledger, reversals

blueprint = Blueprint("counter", __name__, url_prefix="/staff")
Page = str | Response | tuple[str, int]


@dataclass(frozen=True)
class _Act:
    """What is recorded of an act of staff."""

    user_id: uuid.UUID
    amount_minor: int
    currency: str

    @classmethod
    def of(cls, order: cash.CashOrder) -> _Act:
        return cls(order.by, order.amount_minor, order.currency)


@blueprint.route("/customers", methods=["GET", "POST"])
@requires(Permission.CUSTOMERS_READ)
def find() -> Page:
    """Find a customer by email or IBAN."""
    form = FindForm()
    if not form.validate_on_submit():
        return render_template("staff/find.html", form=form), 400 if form.is_submitted() else 200
    found = customers.find(resources().engine, form.words.data)
    if found is None:
        form.words.errors = [gettext("No customer has exactly this email or IBAN.")]
        return render_template("staff/find.html", form=form), 404
    return redirect(url_for("counter.customer", customer_id=found), 303)


@blueprint.get("/customers/<uuid:customer_id>")
@requires(Permission.CUSTOMERS_READ)
def customer(customer_id: uuid.UUID) -> Page:
    """Show a customer with their accounts."""
    person = customers.get(resources().engine, customer_id)
    if person is None:
        abort(404)
    return render_template(
        "staff/customer.html", person=person, accounts=accounts.list_of(resources().engine, customer_id)
    )


def _account(account_id: uuid.UUID) -> tuple[customers.Customer, accounts.AccountView]:
    found = customers.account(resources().engine, account_id)
    if found is None:
        abort(404)
    return found


@blueprint.get("/accounts/<uuid:account_id>")
@requires(Permission.CUSTOMERS_READ)
def account(account_id: uuid.UUID) -> Page:
    """Show an account and its history."""
    person, view = _account(account_id)
    before = positions.from_query("before")
    page = accounts.history(resources().engine, account_id, before)
    return render_template(
        "staff/account.html", person=person, account=view, page=page, first=before is None, reason=ReasonForm()
    )


@blueprint.route("/accounts/<uuid:account_id>/cash", methods=["GET", "POST"])
@requires(Permission.CASH_POST)
def take_cash(account_id: uuid.UUID) -> Page:
    """Show the form for cash and carry it out; sending it twice moves the money once."""
    person, view = _account(account_id)
    form = CashForm()
    if not form.is_submitted():
        form.key.data = str(uuid.uuid4())

    def show(status: int) -> Page:
        return render_template("staff/cash.html", form=form, person=person, account=view), status

    if not form.is_submitted():
        return show(200)
    is_complete = form.validate()
    amount = amounts.read(form.amount, view.currency)
    if not is_complete or amount is None:
        return show(400)
    reference = (form.reference.data or "").strip()
    order = cash.CashOrder(current_user.id, form.key.data, account_id, amount, view.currency, reference)
    try:
        receipt = orders.carry_out(form.kind.data, _Act.of(order), lambda: _carry_out(form.kind.data, order))
    except ledger.LedgerError as error:
        form.form_errors = [refusals.explain(error)]
        if isinstance(error, ledger.KeyReusedError):
            form.key.data = str(uuid.uuid4())
        return show(409 if isinstance(error, ledger.KeyReusedError) else 422)
    _tell(receipt, i18n.amount(amount, view.currency))
    return redirect(url_for("counter.account", account_id=account_id), 303)


def _carry_out(kind: str, order: cash.CashOrder) -> ledger.Receipt:
    if kind == "deposit":
        return cash.deposit(resources().engine, order)
    return cash.withdraw(resources().engine, order, resources().settings.approvals)


@blueprint.route("/accounts/<uuid:account_id>/entries/<uuid:entry_id>/reverse", methods=["GET", "POST"])
@requires(Permission.REVERSAL_ASK)
def reverse(account_id: uuid.UUID, entry_id: uuid.UUID) -> Page:
    """Ask for the reversal of an entry; somebody else decides about it."""
    person, view = _account(account_id)
    movement = accounts.movement(resources().engine, account_id, entry_id)
    if movement is None:
        abort(404)
    form = ReversalForm()
    if not form.is_submitted():
        form.key.data = str(uuid.uuid4())

    def show(status: int) -> Page:
        return render_template("staff/reverse.html", form=form, person=person, account=view, movement=movement), status

    if not form.is_submitted():
        return show(200)
    if not form.validate():
        return show(400)
    amount = abs(movement.amount_minor)
    try:
        receipt = orders.carry_out(
            "reversal",
            _Act(current_user.id, amount, view.currency),
            lambda: reversals.reverse(
                resources().engine,
                entry_id=entry_id,
                by=current_user.id,
                key=form.key.data,
                reference=form.reason.data.strip(),
                policy=resources().settings.approvals,
                origin=origin(),
            ),
        )
    except ledger.LedgerError as error:
        form.form_errors = [refusals.explain(error)]
        return show(422)
    _tell(receipt, i18n.amount(amount, view.currency))
    return redirect(url_for("counter.account", account_id=account_id), 303)


@blueprint.post("/accounts/<uuid:account_id>/freeze")
@requires(Permission.ACCOUNTS_FREEZE)
def freeze(account_id: uuid.UUID) -> Page:
    """Freeze an account: it can receive money, but not send any."""
    return _set_frozen(account_id, frozen=True)


@blueprint.post("/accounts/<uuid:account_id>/release")
@requires(Permission.ACCOUNTS_FREEZE)
def release(account_id: uuid.UUID) -> Page:
    """Let an account send money again."""
    return _set_frozen(account_id, frozen=False)


def _set_frozen(account_id: uuid.UUID, *, frozen: bool) -> Page:
    _account(account_id)
    form = ReasonForm()
    if not form.validate():
        flash(gettext("Enter a reason of at most 140 characters."), "error")
    elif customers.set_frozen(resources().engine, origin(), account_id, frozen=frozen, reason=form.reason.data.strip()):
        flash(gettext("The account is frozen.") if frozen else gettext("The account is released."), "success")
    return redirect(url_for("counter.account", account_id=account_id), 303)


def _tell(receipt: ledger.Receipt, amount: str) -> None:
    if receipt.approval_id and not receipt.entry_id:
        flash(gettext("%(amount)s waiting for approval by somebody else.", amount=amount), "info")
    else:
        flash(gettext("%(amount)s booked.", amount=amount), "success")
