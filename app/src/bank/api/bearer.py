"""Who calls the API: the bearer of a token, and never the owner of a session cookie, which a browser sends unasked."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

import structlog
from flask import current_app, g, request

from bank.problems import ProblemError
from bank.resources import resources
from bank.services import users
from bank.services.limits import BarredError
from bank.services.tokens import InvalidTokenError

if TYPE_CHECKING:
    from collections.abc import Callable

    from bank.services.tokens import Token

View = TypeVar("View", bound="Callable[..., object]")
SCHEME = "bearer "
_LIMIT = "bank_limit"


def load_person() -> users.Person | None:
    """Return whose token this request carries, or None."""
    given = request.headers.get("Authorization", "")
    if given[: len(SCHEME)].lower() != SCHEME:
        return None
    found = resources()
    try:
        token = found.tokens.read(given[len(SCHEME) :].strip())
    except InvalidTokenError:
        return None
    if _is_revoked(token):
        return None
    person = users.find(found.engine, str(token.user_id))
    if person is None or person.credentials_version != token.credentials_version:
        return None
    g.token = token
    g.user_id = person.get_id()
    structlog.contextvars.bind_contextvars(**{"user.id": person.get_id()})
    return person


def limited(view: View, limit: str) -> View:
    """Declare which limit counts the requests of a view's callers, in the same question that revocation takes."""
    setattr(view, _LIMIT, limit)
    return view


def _is_revoked(token: Token) -> bool:
    found = resources()
    limit = getattr(current_app.view_functions.get(request.endpoint or ""), _LIMIT, None)
    if limit is None:
        return found.tokens.is_revoked(token)
    try:
        g.rate_limit = found.limiter.hit(limit, str(token.user_id), unless=token.revocation_key)
    except BarredError:
        return True
    return not g.rate_limit.is_shared and found.tokens.is_revoked(token)


def token() -> Token:
    """Return the token of this request, whose bearer is known."""
    found: Token = g.token
    return found


def require_scope(scope: str) -> None:
    """Refuse a token that was not issued for this; the empty scope is every token's.

    Raises:
        ProblemError: 403.
    """
    if scope and scope not in token().scopes:
        raise ProblemError(
            403,
            f"The token lacks the scope {scope}.",
            kind="insufficient-scope",
            headers={"WWW-Authenticate": f'Bearer error="insufficient_scope", scope="{scope}"'},
        )
