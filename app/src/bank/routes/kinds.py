"""What people call the kinds of entries in the journal."""

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
