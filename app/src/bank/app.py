"""Puts the application together."""

from __future__ import annotations

from typing import TYPE_CHECKING

import structlog
from flask import Flask, g
from flask_babel import lazy_gettext
from flask_login import LoginManager, current_user
from flask_wtf.csrf import CSRFProtect

from bank import __version__, account_numbers, errors, i18n, log, metrics, security, tracing
from bank.config import load_settings
from bank.resources import make_resources, resources
from bank.routes import BLUEPRINTS, paths
from bank.services import users
from bank.sessions import RedisSessions

if TYPE_CHECKING:
    from flask import Response

    from bank.config import Settings

MAX_BODY_BYTES = 64 * 1024
MAX_FIELDS = 50


class SessionLogin(LoginManager):  # type: ignore[misc]
    """Flask-Login without its "remember me" cookie, which would outlive the session and read it on every answer."""

    def _update_remember_cookie(self, response: Response) -> Response:
        return response

    def _load_user_from_remember_cookie(self, cookie: str) -> None:
        del cookie


def create_app(settings: Settings | None = None) -> Flask:
    """Make the application.

    Args:
        settings: By default they are read from the file that ``BANK_CONFIG`` names.

    Raises:
        bank.config.ConfigError: The settings cannot be used.
    """
    settings = settings or load_settings()
    log.configure(settings, on_drop=metrics.LOG_LINES_DROPPED.inc)
    tracing.start(settings)
    app = Flask("bank", static_folder="static", template_folder="templates")
    app.config.update(
        SECRET_KEY=settings.secret_key.get_secret_value(),
        MAX_CONTENT_LENGTH=MAX_BODY_BYTES,
        MAX_FORM_PARTS=MAX_FIELDS,
        WTF_CSRF_TIME_LIMIT=None,  # a token lives as long as its session
        SEND_FILE_MAX_AGE_DEFAULT=86400,
        SESSION_PROTECTION=None,
        PROPAGATE_EXCEPTIONS=False,
    )
    shared = make_resources(settings)
    app.extensions["bank"] = shared
    metrics.initialise(pool_size=settings.database.pool_size, threads=settings.server.threads)
    app.session_interface = RedisSessions(shared.redis, settings.session)
    app.wsgi_app = security.TrustedProxies(app.wsgi_app, settings.server.trusted_proxies)  # type: ignore[method-assign]

    # Before the rest, so that whatever refuses a request later is traced, logged, counted and has its headers.
    tracing.trace_requests(app)
    log.log_requests(app)
    metrics.observe_requests(app)
    security.protect(app)
    CSRFProtect(app)
    _use_logins(app)
    errors.register(app)
    for blueprint in BLUEPRINTS:
        app.register_blueprint(blueprint)

    i18n.use(app)
    app.jinja_env.filters.update(grouped=account_numbers.grouped, masked=account_numbers.masked)
    app.jinja_env.globals.update(release=__version__, here=paths.here)
    return app


def _use_logins(app: Flask) -> None:
    manager = SessionLogin()
    manager.login_view = "auth.login"
    manager.login_message = lazy_gettext("Please log in to go on.")
    manager.localize_callback = str  # now, because the session holds plain text
    manager.login_message_category = "info"
    manager.init_app(app, add_context_processor=False)

    @manager.user_loader  # type: ignore[untyped-decorator]
    def load(user_id: str) -> users.Person | None:
        person = users.find(resources().engine, user_id)
        if person:
            structlog.contextvars.bind_contextvars(**{"user.id": person.get_id()})
            g.user_id = person.get_id()
        return person

    @app.context_processor
    def who() -> dict[str, object]:
        # Lazy: an error page that does not ask who is there needs neither Redis nor the database.
        return {"current_user": current_user}
