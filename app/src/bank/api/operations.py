"""One declaration for each operation of the API: from it come the route, its checks and its part of the document."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from functools import wraps
from typing import TYPE_CHECKING, Any

from flask import Response, g, request
from pydantic import BaseModel, ValidationError

from bank.api import bearer
from bank.permissions import public, requires
from bank.problems import ProblemError
from bank.resources import resources
from bank.services.ledger import MAX_KEY
from bank.services.limits import WINDOW_SECONDS, LimiterUnavailableError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from flask import Blueprint

    from bank.permissions import Permission
    from bank.services.limits import Verdict

JSON = "application/json"
KEY_HEADER = "Idempotency-Key"
REPLAYED_HEADER = "Idempotency-Replayed"
# A structured field string (RFC 8941), or the same characters without the quotes. Printable ASCII.
_QUOTED = re.compile(r'"((?:[\x20\x21\x23-\x5b\x5d-\x7e]|\\["\\])*)"', re.ASCII)
_BARE = re.compile(r"[\x21\x23-\x7e]+", re.ASCII)
_LONGEST_FIELD_NAME = 80


@dataclass(frozen=True)
class Operation:
    """Something that a program can ask for."""

    name: str
    method: str
    rule: str
    summary: str
    answers: Mapping[int, type[BaseModel] | None]
    limit: str
    permission: Permission | None = None
    """What the caller's role must allow; None: no token is needed."""
    scope: str = ""
    """What the token must have been issued for, besides."""
    body: type[BaseModel] | None = None
    query: type[BaseModel] | None = None
    needs_key: bool = False
    needs_redis: bool = False
    prove: Callable[[], None] | None = None
    """Checks the caller where it is no customer with a token."""
    problems: tuple[int, ...] = ()


@dataclass(frozen=True)
class Reply:
    """A successful answer."""

    content: BaseModel | None = None
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)


OPERATIONS: list[Operation] = []


def operation(blueprint: Blueprint, found: Operation) -> Callable[[Callable[..., Reply]], Callable[..., Response]]:
    """Register a function as an operation.

    It is called with the arguments of the path, and with ``body``, ``query`` and ``key`` if the operation has them.
    """

    def register(handler: Callable[..., Reply]) -> Callable[..., Response]:
        @wraps(handler)
        def view(**arguments: Any) -> Response:  # noqa: ANN401
            if found.permission is not None:
                bearer.require_scope(found.scope)
            _count(found)
            if found.prove is not None:
                found.prove()
            if found.needs_key:
                arguments["key"] = _key()
            if found.query is not None:
                arguments["query"] = _query(found.query)
            if found.body is not None:
                arguments["body"] = _body(found.body)
            return _answer(handler(**arguments))

        OPERATIONS.append(found)
        if found.permission is None:
            declared = public(view)
        else:
            declared = bearer.limited(requires(found.permission)(view), found.limit)
        blueprint.add_url_rule(found.rule, found.name, declared, methods=[found.method])
        return declared

    return register


def _answer(reply: Reply) -> Response:
    content = reply.content.model_dump_json() + "\n" if reply.content is not None else ""
    found = Response(content, reply.status, content_type=JSON if content else None)
    if not content:
        del found.headers["Content-Type"]
    found.headers.update(reply.headers)
    return found


def _count(found: Operation) -> None:
    if found.permission is None:
        try:
            g.rate_limit = resources().limiter.hit(
                found.limit, request.remote_addr or "", needs_redis=found.needs_redis
            )
        except LimiterUnavailableError:
            raise ProblemError(
                503, "Log-ins are not possible at the moment; try again in a minute.", headers={"Retry-After": "10"}
            ) from None
    # Whoever has a token was counted when it was read.
    verdict: Verdict = g.rate_limit
    if not verdict.allowed:
        raise ProblemError(
            429,
            f"More than {verdict.limit} requests in {WINDOW_SECONDS} seconds.",
            kind="too-many-requests",
            headers={"Retry-After": str(verdict.reset_seconds)},
        )


def add_limit_headers(response: Response) -> Response:
    """Tell the caller what is left of the limit (draft-ietf-httpapi-ratelimit-headers-10)."""
    verdict: Verdict | None = g.get("rate_limit")
    if verdict is not None:
        response.headers["RateLimit-Policy"] = f'"{verdict.name}";q={verdict.limit};w={WINDOW_SECONDS}'
        response.headers["RateLimit"] = f'"{verdict.name}";r={verdict.remaining};t={verdict.reset_seconds}'
    return response


def _key() -> str:
    """Return the idempotency key (draft-ietf-httpapi-idempotency-key-header-07)."""
    given = request.headers.get(KEY_HEADER)
    if not given:
        raise ProblemError(400, f"The header {KEY_HEADER} is missing.", kind="idempotency-key-missing")
    key = ""
    if quoted := _QUOTED.fullmatch(given):
        key = re.sub(r"\\(.)", r"\1", quoted[1])
    elif _BARE.fullmatch(given):
        key = given
    if not 0 < len(key) <= MAX_KEY:
        raise ProblemError(
            400,
            f"The header {KEY_HEADER} must hold 1 to {MAX_KEY} printable ASCII characters in double quotes.",
            kind="idempotency-key-invalid",
        )
    return key


def _body(model: type[BaseModel]) -> BaseModel:
    if request.mimetype != JSON:
        raise ProblemError(415, f"The body must be {JSON}.", headers={"Accept": JSON})
    return _checked(lambda: model.model_validate_json(request.get_data()), 422)


def _query(model: type[BaseModel]) -> BaseModel:
    if any(len(values) > 1 for values in request.args.listvalues()):
        raise ProblemError(400, "A parameter of the query is there twice.", kind="invalid-request")
    return _checked(lambda: model.model_validate(request.args.to_dict()), 400)


def _checked(validate: Callable[[], BaseModel], status: int) -> BaseModel:
    try:
        return validate()
    except ValidationError as error:
        found = [
            {"field": ".".join(map(str, item["loc"]))[:_LONGEST_FIELD_NAME], "detail": item["msg"]}
            for item in error.errors(include_url=False, include_input=False, include_context=False)
        ]
    raise ProblemError(status, "The request is not valid.", kind="invalid-request", errors=found[:20])
