"""What happened to the person's money and log-in."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING

from flask import Blueprint, abort, g, redirect, render_template, request, url_for
from flask_babel import lazy_gettext as _
from flask_login import current_user

from bank import i18n
from bank.permissions import Permission, requires
from bank.resources import resources
from bank.routes import positions
from bank.services import notifications
from bank.services.notifications import Kind

if TYPE_CHECKING:
    from flask import Flask
    from werkzeug.wrappers import Response

blueprint = Blueprint("notifications", __name__)
TEXTS = {
    Kind.MONEY_IN: _("%(amount)s came in on %(account)s."),
    Kind.LOG_IN: _("New log-in. If it was not you, change your password and end the other sessions."),
    Kind.PASSWORD_CHANGED: _("Your password was changed."),
    Kind.SECOND_FACTOR_ON: _("Your second factor was switched on."),
    Kind.SECOND_FACTOR_OFF: _("Your second factor was removed."),
    Kind.BENEFICIARY_ADDED: _("%(name)s was added to your beneficiaries."),
    Kind.TRANSFER_APPROVED: _("Your transfer of %(amount)s was approved and carried out."),
    Kind.TRANSFER_REJECTED: _("Your transfer of %(amount)s was not approved. The amount is available again."),
    Kind.STANDING_ORDER_FAILED: _("Your standing order of %(amount)s could not be carried out."),
    Kind.ACCOUNT_FROZEN: _("%(account)s was frozen by the bank: it can receive money, but not send any."),
    Kind.ACCOUNT_RELEASED: _("%(account)s can be used again."),
}


def describe(news: notifications.News) -> str:
    """Return a notification in the person's language; of a later release's kind, its name."""
    if news.kind not in TEXTS:
        return news.kind
    values = dict(news.details)
    if "amount_minor" in values:
        values["amount"] = i18n.amount(values["amount_minor"], values["currency"])
    return str(TEXTS[Kind(news.kind)]) % values


def count_new() -> int:
    """Return how much the person has not read; asked for once in a request."""
    if "news" not in g:
        g.news = notifications.count_new(resources().engine, current_user.id)
    found: int = g.news
    return found


@blueprint.record_once
def _offer(state: object) -> None:
    app: Flask = state.app  # type: ignore[attr-defined]
    app.jinja_env.globals.update(count_news=count_new)


@blueprint.get("/notifications")
@requires(Permission.OWN_SECURITY)
def overview() -> str:
    """Show the newest notifications."""
    news, seen = notifications.latest(resources().engine, current_user.id)
    return render_template("notifications.html", news=news, seen=seen, describe=describe)


@blueprint.post("/notifications/read")
@requires(Permission.OWN_SECURITY)
def read() -> Response:
    """Mark what the page showed as read."""
    try:
        versions = {}
        for item in request.form.getlist("seen"):
            account, version = item.split(":")
            versions[uuid.UUID(account)] = positions.number(version)
        seen = notifications.Seen(positions.number(request.form.get("last", "")), versions)
    except ValueError:
        abort(400)
    notifications.mark_read(resources().engine, current_user.id, seen)
    return redirect(url_for("notifications.overview"), 303)
