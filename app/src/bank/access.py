"""Who is asking, and whether the route is for them: checked here for every request, before its view runs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import structlog
from flask import abort, current_app, g, redirect, request, session, url_for
from flask_babel import lazy_gettext
from flask_login import LoginManager, current_user

from bank import permissions, problems
from bank.api import bearer
from bank.log import log_security
from bank.resources import resources
from bank.security import SAFE_METHODS
from bank.services import users
from bank.services.audit import Origin

if TYPE_CHECKING:
    from flask import Flask, Response
    from werkzeug.wrappers import Response as AnyResponse

VERSION_KEY = "credentials"
ENROLMENT = "security.enrol"


class SessionLogin(LoginManager):  # type: ignore[misc]
    """Flask-Login without its "remember me" cookie, which would outlive the session and read it on every answer.

    Programs are known by their tokens and by nothing else: a browser would send the session's cookie unasked.
    """

    def _load_user(self) -> None:
        if problems.wanted():
            self._update_request_context_with_user(bearer.load_person())
        else:
            super()._load_user()

    def _update_remember_cookie(self, response: Response) -> Response:
        return response

    def _load_user_from_remember_cookie(self, cookie: str) -> None:
        del cookie


def origin() -> Origin:
    """Return who asks, from where and in which request, as the audit trail wants it."""
    actor = current_user.id if current_user.is_authenticated else None
    return Origin(actor, request.remote_addr or "", g.request_id)


def use_logins(app: Flask) -> None:
    """Find out who asks, and let nobody reach a view without the permission that it declares."""
    manager = SessionLogin()
    manager.login_view = "auth.login"
    manager.login_message = lazy_gettext("Please log in to go on.")
    manager.localize_callback = str  # now, because the session holds plain text
    manager.login_message_category = "info"
    manager.init_app(app, add_context_processor=False)

    @manager.user_loader  # type: ignore[untyped-decorator]
    def load(user_id: str) -> users.Person | None:
        person = users.find(resources().engine, user_id)
        # Ends sessions that were begun with an earlier password or second factor, whatever Redis still holds.
        if person is None or person.credentials_version != session.get(VERSION_KEY, 0):
            return None
        structlog.contextvars.bind_contextvars(**{"user.id": person.get_id()})
        g.user_id = person.get_id()
        return person

    @app.context_processor
    def who() -> dict[str, object]:
        # Lazy: an error page that does not ask who is there needs neither Redis nor the database.
        return {"current_user": current_user}

    app.before_request(_check)


def _check() -> AnyResponse | None:
    """Refuse the request unless its route is public or the person has the permission that it needs."""
    if request.endpoint is None:  # no such page, or not with this method
        return None
    needed = permissions.of_endpoint(current_app, request.endpoint)
    if needed is None:
        return None
    if not current_user.is_authenticated:
        if problems.wanted():
            abort(401)
        answer: AnyResponse = current_app.login_manager.unauthorized()  # type: ignore[attr-defined]
        return answer
    if not current_user.may(needed):
        log_security(
            "access refused", action="access-check", outcome="failure", category="iam", reason=f"needs {needed}"
        )
        abort(403)
    if current_user.is_staff and not current_user.has_second_factor and request.endpoint != ENROLMENT:
        return _enrol_first()
    return None


def _enrol_first() -> AnyResponse | None:
    if not resources().settings.login.staff_second_factor:
        return None
    if request.method not in SAFE_METHODS or problems.wanted():
        abort(403)
    return redirect(url_for(ENROLMENT))


def start_page() -> str:
    """Return the address of the page that a person should see first; a stranger is asked to log in there."""
    is_staff = current_user.is_authenticated and not current_user.may(permissions.Permission.OWN_ACCOUNTS)
    return url_for("staff.home" if is_staff else "accounts.overview")
