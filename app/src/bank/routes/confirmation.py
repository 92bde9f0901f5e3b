"""The confirmation of an order in a page: what it asks for, and whether it was given."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flask_babel import gettext
from flask_login import current_user

from bank.log import log_security
from bank.resources import resources
from bank.routes import step_up
from bank.routes.auth import own_session
from bank.services import confirmations

if TYPE_CHECKING:
    from bank.routes.forms import MoneyForm
    from bank.services.confirmations import Order


def _needed(order: Order) -> step_up.Proof:
    """Return what an order needs, however fresh the log-in is.

    Raises:
        bank.services.ledger.LedgerError: The order is not complete.
    """
    found = resources()
    if not confirmations.is_needed(found.engine, order, found.settings.confirmation):
        return step_up.Proof.NONE
    return step_up.own_proof()


def ask(order: Order, form: MoneyForm) -> step_up.Proof:
    """Bind the form to the order that it shows, and return the proof that it must ask for.

    Raises:
        bank.services.ledger.LedgerError: The order is not complete.
    """
    proof = _needed(order)
    form.code.data = form.seal.data = ""
    if proof is not step_up.Proof.NONE:
        form.seal.data = confirmations.seal(resources().keys, own_session().id or "", order.claim)
    return proof


def is_given(order: Order, form: MoneyForm) -> bool:
    """Tell whether the form holds the proof that its order needs; if it holds a wrong one, the reason is beside it.

    Raises:
        bank.services.ledger.LedgerError: The order is not complete.
        werkzeug.exceptions.TooManyRequests: There were too many wrong ones.
    """
    proof = _needed(order)
    if proof is step_up.Proof.NONE:
        return True
    field = step_up.field_of(form, proof)
    if confirmations.is_sealed(resources().keys, own_session().id or "", order.claim, form.seal.data or ""):
        return step_up.is_right(proof, field, gettext("Confirm this order."))
    if field.data:
        field.errors = [gettext("This is not what was shown before. Check it and confirm it again.")]
        log_security(
            "confirmation refused",
            action="step-up",
            outcome="failure",
            category="iam",
            reason="not the order that was shown",
            user_id=current_user.get_id(),
        )
    return False
