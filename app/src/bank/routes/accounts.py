"""Accounts and their history."""

from __future__ import annotations

import uuid  # noqa: TC003  (the router's converter gives this type)
from collections import defaultdict
from typing import TYPE_CHECKING

from flask import Blueprint, abort, redirect, render_template, request
from flask_login import current_user

from bank.access import start_page
from bank.permissions import Permission, public, requires
from bank.resources import resources
from bank.services import accounts

if TYPE_CHECKING:
    from werkzeug.wrappers import Response

blueprint = Blueprint("accounts", __name__)
MAX_VERSION_DIGITS = 18


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
def detail(account_id: uuid.UUID) -> str:
    """Show an account and its history; an account of somebody else does not exist."""
    engine = resources().engine
    account = accounts.get(engine, current_user.id, account_id)
    if account is None:
        abort(404)
    before = request.args.get("before", "")
    if before and not (before.isascii() and before.isdigit() and len(before) <= MAX_VERSION_DIGITS):
        abort(400)
    page = accounts.history(engine, account.id, int(before) if before else None)
    return render_template("account.html", account=account, page=page, first=not before)
