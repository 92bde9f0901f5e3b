"""Errors of the interfaces for programs, as RFC 9457 problem details."""

from __future__ import annotations

import json
from http import HTTPStatus
from typing import TYPE_CHECKING

from flask import Response, g, request

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

API_PREFIX = "/api/"
MEDIA_TYPE = "application/problem+json"
TYPE_PREFIX = "urn:bank:problem:"


class ProblemError(Exception):
    """Ends a request for a program with a problem; the texts are for the developer who reads them."""

    def __init__(
        self,
        status: int,
        detail: str,
        *,
        kind: str | None = None,
        errors: Sequence[Mapping[str, object]] = (),
        headers: Mapping[str, str] | None = None,
    ) -> None:
        """Describe the problem.

        Args:
            status: HTTP status.
            detail: One sentence about this occurrence, without anything that the request did not say itself.
            kind: Name of the kind of problem; without it, the status says all.
            errors: What is wrong where, for a request with several faults.
            headers: Sent with the answer.
        """
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.kind = kind
        self.errors = errors
        self.headers = headers or {}


def reference() -> str:
    """Return what finds the log lines of this request, and its trace if there is one."""
    found: str = g.get("trace_id" if g.get("transaction_id") else "request_id", "")
    return found


def answer(problem: ProblemError) -> Response:
    """Return the answer for a problem."""
    body: dict[str, object] = {
        "type": TYPE_PREFIX + problem.kind if problem.kind else "about:blank",
        "title": HTTPStatus(problem.status).phrase,
        "status": problem.status,
        "detail": problem.detail,
        "reference": reference(),
    }
    if problem.errors:
        body["errors"] = list(problem.errors)
    found = Response(json.dumps(body, ensure_ascii=False) + "\n", problem.status, content_type=MEDIA_TYPE)
    if problem.status == HTTPStatus.UNAUTHORIZED:
        found.headers["WWW-Authenticate"] = "Bearer"
    found.headers.update(problem.headers)
    return found


def wanted() -> bool:
    """Tell whether this request is one of a program."""
    return request.path.startswith(API_PREFIX)
