"""Error pages, and problem details for programs: what to do and a reference, and nothing about the inside."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flask import Response, render_template
from flask_babel import lazy_gettext as _
from flask_wtf.csrf import CSRFError
from redis.exceptions import RedisError
from sqlalchemy.exc import InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from werkzeug.exceptions import HTTPException

from bank import metrics, problems, tracing
from bank.log import describe_error, logger
from bank.sessions import SessionStoreUnavailableError

if TYPE_CHECKING:
    from flask import Flask

SERVER_ERROR = 500
UNAVAILABLE = 503
TEXTS = {
    400: (
        _("That did not work"),
        _("The request was not complete, or the page was open for too long. Go back, reload the page and try again."),
    ),
    401: (_("Please log in"), _("This page needs a log-in. Log in and open it again.")),
    403: (
        _("Not allowed"),
        _("Your role does not include this. If it should, ask an administrator and name the reference below."),
    ),
    404: (
        _("Page not found"),
        _("This page does not exist, or it is not yours to see. Check the address, or start from your accounts."),
    ),
    405: (_("Not possible here"), _("This page cannot be used in that way. Start again from your accounts.")),
    413: (
        _("Too much data"),
        _("What was sent is larger than the bank accepts. Nothing was done; shorten it and try again."),
    ),
    429: (_("Too many attempts"), _("Nothing was done. Wait a minute, then try again.")),
    SERVER_ERROR: (
        _("Something went wrong"),
        _("The bank could not do this. Look at your history before you try again; if it fails again, "
          "tell us the reference below."),
    ),
    UNAVAILABLE: (
        _("Back in a moment"),
        _("The bank cannot answer right now. Your money is safe; try again in a minute."),
    ),
}  # fmt: skip
# What else the answer to a failure tells the browser.
KEPT_HEADERS = frozenset({"Allow", "Retry-After"})

Answer = tuple[str, int, dict[str, str]] | Response


def _page(status: int, extra: dict[str, str] | None = None) -> Answer:
    title, explanation = TEXTS.get(status, TEXTS[400 if status < SERVER_ERROR else SERVER_ERROR])
    if problems.wanted():
        return problems.answer(problems.ProblemError(status, str(explanation), headers=extra))
    page = render_template("errors/error.html", title=title, explanation=explanation, reference=problems.reference())
    return page, status, extra or {}


def register(app: Flask) -> None:
    """Let every failure end in one of these pages."""

    @app.errorhandler(problems.ProblemError)
    def problem(error: problems.ProblemError) -> Response:
        return problems.answer(error)

    @app.errorhandler(CSRFError)
    def bad_token(error: CSRFError) -> Answer:
        logger.warning(
            "form refused",
            **{
                "event.category": ["web"],
                "event.type": ["denied"],
                "event.action": "csrf-check",
                "event.outcome": "failure",
                "event.reason": str(error.description),
            },
        )
        return _page(400)

    @app.errorhandler(HTTPException)
    def known(error: HTTPException) -> Answer | HTTPException:
        # Saving the session comes after the page was made, where Flask wraps what fails.
        if isinstance(original := getattr(error, "original_exception", None), SessionStoreUnavailableError):
            return dependency_down(original)
        status = error.code or SERVER_ERROR
        if status < 400:  # noqa: PLR2004  (redirects, such as the router's own)
            return error
        return _page(status, {name: value for name, value in error.get_headers() if name in KEPT_HEADERS})

    @app.errorhandler(SessionStoreUnavailableError)
    @app.errorhandler(RedisError)
    @app.errorhandler(OperationalError)
    @app.errorhandler(InterfaceError)
    @app.errorhandler(PoolTimeoutError)
    @app.errorhandler(RedisError)
    def dependency_down(error: Exception) -> Answer:
        _log_failure("a service that the bank needs did not answer", error)
        return _page(UNAVAILABLE, {"Retry-After": "10"})

    @app.errorhandler(Exception)
    def unexpected(error: Exception) -> Answer:
        _log_failure("request failed", error)
        return _page(SERVER_ERROR)


def _log_failure(message: str, error: Exception) -> None:
    metrics.EXCEPTIONS.labels(metrics.method_label()).inc()
    tracing.record_error(error, describe_error(error)["error.message"])
    logger.error(
        message,
        exc_info=error,
        **{"event.dataset": "bank.error", "event.kind": "event", "event.outcome": "failure"},
    )
