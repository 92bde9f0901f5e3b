"""Statements of an account, to download."""

from __future__ import annotations

import re
import uuid  # noqa: TC003  (the router's converter gives this type)
from datetime import date
from typing import TYPE_CHECKING

from flask import Blueprint, Response, abort
from flask_babel import gettext
from flask_login import current_user

from bank import i18n
from bank.permissions import Permission, requires
from bank.resources import resources
from bank.routes.kinds import KINDS
from bank.services import accounts, statement_csv, statements

if TYPE_CHECKING:
    from bank.services.statement_pdf import Words

blueprint = Blueprint("statements", __name__)
_NAME = re.compile(r"(?P<year>20[0-9]{2})-(?P<month>0[1-9]|1[0-2])[.](?P<form>csv|pdf)", re.ASCII)


@blueprint.get("/accounts/<uuid:account_id>/statements/<name>")
@requires(Permission.OWN_ACCOUNTS)
def download(account_id: uuid.UUID, name: str) -> Response:
    """Give a month's statement, ``2026-09.pdf`` or ``.csv``; of one's own account, and of a month that has one."""
    engine = resources().engine
    account = accounts.get(engine, current_user.id, account_id)
    found = _NAME.fullmatch(name)
    if account is None or found is None:
        abort(404)
    wanted = date(int(found["year"]), int(found["month"]), 1)
    if wanted not in statements.months(engine, account_id):
        abort(404)
    statement = statements.read(engine, account_id, wanted)
    if found["form"] == "csv":
        response = Response(statement_csv.write(statement), content_type="text/csv; charset=utf-8")
    else:
        from bank.services import statement_pdf

        response = Response(statement_pdf.write(statement, _words(wanted)), content_type="application/pdf")
    stem, ending = name.split(".")
    saved_as = f"statement-{stem}-{account.number[-4:]}.{ending}"
    response.headers["Content-Disposition"] = f'attachment; filename="{saved_as}"'
    return response


def _words(month: date) -> Words:
    from bank.services.statement_pdf import Words

    return Words(
        title=gettext("Account statement, %(month)s", month=i18n.month(month)),
        page=gettext("Page %(number)d of %(pages)d"),
        account=gettext("Account"),
        period=gettext("Period"),
        opening=gettext("Opening balance"),
        closing=gettext("Closing balance"),
        paid_in=gettext("Paid in"),
        paid_out=gettext("Paid out"),
        booked=gettext("Date"),
        description=gettext("Description"),
        amount=gettext("Amount"),
        balance=gettext("Balance"),
        nothing=gettext("Nothing was booked in this period."),
        bank="Linden Bank",
        kind=lambda kind: str(KINDS.get(kind, kind)),
        number=i18n.number,
        day=i18n.day,
    )
