"""What people are told when the ledger refuses something."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING

from flask_babel import lazy_gettext as _

from bank.services import approvals, ledger, reversals

if TYPE_CHECKING:
    from bank.routes.forms import MoneyForm

UNPROCESSABLE, CONFLICT, UNAVAILABLE = 422, 409, 503
TEXTS = {
    ledger.InsufficientFundsError: _("There is not enough money in this account."),
    ledger.AccountFrozenError: _("This account is frozen. Ask the bank."),
    ledger.AccountNotFoundError: _("This account does not exist or is closed."),
    ledger.UnknownRecipientError: _("There is no account with this IBAN."),
    ledger.SameAccountError: _("Choose another account than the one you pay from."),
    ledger.CurrencyMismatchError: _("This account is kept in another currency."),
    ledger.KeyReusedError: _(
        "This form had already been used for something else. Check the history before you send it again."
    ),
    ledger.BusyError: _("The account is busy. Nothing was done; try again in a moment."),
    ledger.AlreadyReversedError: _("This entry was reversed already, or its reversal waits for approval."),
    reversals.NotReversibleError: _("This entry cannot be reversed."),
    approvals.AlreadyDecidedError: _("Somebody has decided about this already, or its time is over."),
    approvals.OwnApprovalError: _("You asked for this or it is your own money, so somebody else must decide."),
}


def explain(error: ledger.LedgerError) -> str:
    """Return the reason in the person's language."""
    return str(TEXTS.get(type(error), _("This is not possible.")))


def beside(error: ledger.LedgerError, form: MoneyForm) -> int:
    """Put the reason beside the field of a form that it concerns, and return the status of the answer."""
    status, field = UNPROCESSABLE, None
    match error:
        case ledger.InsufficientFundsError():
            field = form.amount
        case ledger.AccountFrozenError():
            field = form.from_account
        case ledger.UnknownRecipientError() | ledger.SameAccountError() | ledger.CurrencyMismatchError():
            field = getattr(form, "to_number", None)
        case ledger.KeyReusedError():
            status = CONFLICT
            form.key.data = str(uuid.uuid4())
        case ledger.BusyError():
            status = UNAVAILABLE
    if field is None:
        form.form_errors = [explain(error)]
    else:
        field.errors = [explain(error)]
    return status
