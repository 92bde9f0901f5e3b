"""Choosing a language."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flask import Blueprint, abort, redirect, request

from bank import i18n
from bank.permissions import public
from bank.routes import paths

if TYPE_CHECKING:
    from werkzeug.wrappers import Response

blueprint = Blueprint("languages", __name__)


@blueprint.post("/language")
@public
def choose() -> Response:
    """Keep the chosen language in a cookie, for pages with and without a log-in, and go back to the page."""
    chosen = request.form.get("language", "")
    if chosen not in i18n.LANGUAGES:
        abort(400)
    response = redirect(paths.local(request.form.get("next", "")), 303)
    response.set_cookie(
        i18n.COOKIE, chosen, max_age=i18n.COOKIE_SECONDS, path="/", secure=True, httponly=True, samesite="Lax"
    )
    return response
