"""What people call the kinds of entries in the journal, and what makes orders look like fraud."""

from __future__ import annotations

from flask_babel import lazy_gettext as _

KINDS = {
    "opening": _("Deposit"),
    "transfer": _("Transfer"),
    "payment": _("Payment"),
    "salary": _("Salary"),
    "interest": _("Interest"),
    "deposit": _("Cash deposit"),
    "withdrawal": _("Cash withdrawal"),
    "fee": _("Fee"),
    "reversal": _("Correction"),
}
INDICATORS = {
    "amount": _("unusual amount"),
    "velocity": _("many orders in ten minutes"),
    "new-payee": _("new payee"),
    "new-device": _("new browser or place"),
    "credentials": _("refused log-ins, or a new password or second factor"),
}
DECISIONS = {
    "flagged": _("Carried out"),
    "held": _("Held"),
}
STATES = {
    "pending": _("Waits"),
    "approved": _("Approved"),
    "rejected": _("Rejected"),
    "expired": _("Expired"),
}
