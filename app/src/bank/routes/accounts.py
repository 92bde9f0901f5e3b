"""Accounts and their history."""

from __future__ import annotations

import uuid  # noqa: TC003  (the router's converter gives this type)
from collections import defaultdict
from typing import TYPE_CHECKING

from flask import Blueprint, abort, redirect, render_template, request
from flask_babel import gettext
from flask_login import current_user
from wtforms import SelectChoice

from bank.access import start_page
from bank.permissions import Permission, public, requires
from bank.resources import resources
from bank.routes import amounts, positions
from bank.routes.forms import SearchForm
from bank.routes.kinds import KINDS
from bank.services import accounts, statements

if TYPE_CHECKING:
    from werkzeug.wrappers import Response

blueprint = Blueprint("accounts", __name__)


@blueprint.get("/")
@public
def start() -> Response:
    """Send a visitor to the page to begin with."""
    return redirect(start_page())


@blueprint.get("/accounts")
@requires(Permission.OWN_ACCOUNTS)
def overview() -> str:
    """Show the person's accounts with their balances, and what happened last on the first of them."""
    engine = resources().engine
    own = accounts.list_of(engine, current_user.id)
    totals: dict[str, int] = defaultdict(int)
    for account in own:
        totals[account.currency] += account.balance_minor
    recent = accounts.history(engine, own[0].id, length=6).movements if own else []
    return render_template("accounts.html", accounts=own, totals=dict(totals), recent=recent)


@blueprint.get("/accounts/<uuid:account_id>")
@requires(Permission.OWN_ACCOUNTS)
def detail(account_id: uuid.UUID) -> str | tuple[str, int]:
    """Show an account and its history; an account of somebody else does not exist."""
    engine = resources().engine
    account = accounts.get(engine, current_user.id, account_id)
    if account is None:
        abort(404)
    before = positions.from_query("before")
    form, search = _search(account.currency)
    if search is None:
        return render_template("account.html", account=account, page=accounts.Page([], None), form=form, asked={}), 400
    page = accounts.history(engine, account.id, before, search=search)
    asked = {field.name: request.args[field.name] for field in form if request.args.get(field.name)}
    return render_template(
        "account.html",
        account=account,
        page=page,
        form=form,
        asked=asked,
        first=before is None,
        months=statements.months(engine, account.id),
    )


def _search(currency: str) -> tuple[SearchForm, accounts.Search | None]:
    """Return the form, and what to look for; None if something that was typed is not usable."""
    form = SearchForm(request.args)
    form.kind.choices = [SelectChoice("", gettext("Any")), *(SelectChoice(kind, name) for kind, name in KINDS.items())]
    form.kind.data = form.kind.data or ""
    valid = form.validate()
    least, most = (amounts.read(field, currency) if field.data else None for field in (form.least, form.most))
    if not valid or form.least.errors or form.most.errors:
        return form, None
    return form, accounts.Search(
        text=(form.text.data or "").strip(),
        kind=form.kind.data,
        least_minor=least,
        most_minor=most,
        since=form.since.data,
        until=form.until.data,
    )
