"""Puts the application together."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flask import Flask
from flask_wtf.csrf import CSRFProtect

from bank import __version__, access, account_numbers, errors, i18n, log, metrics, permissions, security, tracing
from bank.config import load_settings
from bank.resources import make_resources
from bank.routes import BLUEPRINTS, alerts, api, paths
from bank.routes.kinds import INDICATORS, KINDS
from bank.sessions import RedisSessions

if TYPE_CHECKING:
    from bank.config import Settings

MAX_BODY_BYTES = 64 * 1024
MAX_FIELDS = 50


def create_app(settings: Settings | None = None) -> Flask:
    """Make the application.

    Args:
        settings: By default they are read from the file that ``BANK_CONFIG`` names.

    Raises:
        bank.config.ConfigError: The settings cannot be used.
        bank.permissions.UndeclaredRouteError: A route does not say who may use it.
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
    forms = CSRFProtect(app)
    # Programs prove themselves with a token, which no browser sends by itself.
    forms.exempt(api.blueprint)
    forms.exempt(alerts.blueprint)
    access.use_logins(app)
    errors.register(app)
    for blueprint in BLUEPRINTS:
        app.register_blueprint(blueprint)
    permissions.public(app.view_functions["static"])
    permissions.refuse_undeclared(app)

    i18n.use(app)
    app.jinja_env.filters.update(grouped=account_numbers.grouped, masked=account_numbers.masked)
    app.jinja_env.globals.update(
        release=__version__,
        here=paths.here,
        entry_kinds=KINDS,
        fraud_indicators=INDICATORS,
        Permission=permissions.Permission,
    )
    return app
