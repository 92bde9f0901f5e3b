"""The OpenAPI document, made from the declared operations and the same models that check requests."""

from __future__ import annotations

import re
from functools import cache
from typing import TYPE_CHECKING, Any

from pydantic.json_schema import models_json_schema

from bank import __version__
from bank.api.operations import KEY_HEADER, OPERATIONS, REPLAYED_HEADER
from bank.api.schemas import Problem
from bank.problems import MEDIA_TYPE
from bank.services.ledger import MAX_KEY
from bank.services.tokens import SCOPES

if TYPE_CHECKING:
    from pydantic import BaseModel
    from pydantic.json_schema import JsonSchemaMode

    from bank.api.operations import Operation

_ARGUMENT = re.compile(r"<(?:(\w+):)?(\w+)>")
REF = "#/components/schemas/{model}"
DESCRIPTIONS = {
    200: "Done.",
    201: "Created.",
    202: "Accepted; somebody of the bank must approve it.",
    204: "Done.",
    400: "The request cannot be understood.",
    401: "There is no valid access token, or the log-in data are wrong.",
    403: "Not allowed with this token, or a code is needed or wrong.",
    404: "It does not exist, or is not the caller's.",
    409: "The first request with this key is still being worked on.",
    413: "The body is too large.",
    415: "The body is not JSON.",
    422: "What is asked for is not valid or not possible.",
    429: "Too many requests.",
    503: "Something that the bank needs does not answer. Trying again is safe.",
}
LIMIT_HEADERS = {
    name: {"schema": {"type": "string"}, "description": f"{what} (draft-ietf-httpapi-ratelimit-headers)."}
    for name, what in (("RateLimit", "What is left of the limit"), ("RateLimit-Policy", "The limit"))
}


@cache
def document() -> dict[str, Any]:
    """Return the whole document."""
    modes: list[tuple[type[BaseModel], JsonSchemaMode]] = [(Problem, "serialization")]
    for found in OPERATIONS:
        modes += [(model, "validation") for model in (found.body, found.query) if model]
        modes += [(model, "serialization") for model in found.answers.values() if model]
    schemas, definitions = models_json_schema(list(dict.fromkeys(modes)), ref_template=REF)
    components = definitions["$defs"]
    paths: dict[str, dict[str, Any]] = {}
    for found in OPERATIONS:
        query = schemas[found.query, "validation"] if found.query else None
        path = _ARGUMENT.sub(r"{\2}", found.rule)
        paths.setdefault(path, {})[found.method.lower()] = _operation(found, query, components)
    # The parameters of queries stand where they are used.
    for found in OPERATIONS:
        if found.query:
            components.pop(found.query.__name__, None)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Linden Bank API",
            "version": __version__,
            "description": "Amounts are whole numbers of minor units. Errors are problem details (RFC 9457).",
        },
        "paths": paths,
        "components": {
            "schemas": components,
            "securitySchemes": {
                "token": {
                    "type": "http",
                    "scheme": "bearer",
                    "bearerFormat": "JWT",
                    "description": "Scopes: " + " ".join(f"`{name}`: {text}" for name, text in SCOPES.items()),
                }
            },
        },
    }


def _operation(found: Operation, query: dict[str, Any] | None, components: dict[str, Any]) -> dict[str, Any]:
    parameters: list[dict[str, Any]] = [
        {
            "name": name,
            "in": "path",
            "required": True,
            "schema": {"type": "string", **({"format": "uuid"} if kind == "uuid" else {})},
        }
        for kind, name in _ARGUMENT.findall(found.rule)
    ]
    if query is not None:
        schema = components[query["$ref"].rpartition("/")[2]]
        for name, described in schema["properties"].items():
            text = described.pop("description", "")
            parameters.append({"name": name, "in": "query", "description": text, "schema": described})
    if found.needs_key:
        parameters.append(
            {
                "name": KEY_HEADER,
                "in": "header",
                "required": True,
                "description": (
                    "Makes it safe to send the request again (draft-ietf-httpapi-idempotency-key-header-07). "
                    f"The repetition gets the first answer with `{REPLAYED_HEADER}: true`."
                ),
                "schema": {"type": "string", "pattern": f'^"[A-Za-z0-9._~-]{{1,{MAX_KEY}}}"$'},
            }
        )
    result: dict[str, Any] = {
        "operationId": found.name,
        "summary": found.summary,
        "parameters": parameters,
        "responses": _responses(found),
        "security": [{"token": []}] if found.permission is not None else [],
    }
    if found.scope:
        result["description"] = f"Needs the scope `{found.scope}`."
    if found.body is not None:
        content = {"application/json": {"schema": {"$ref": REF.format(model=found.body.__name__)}}}
        result["requestBody"] = {"required": True, "content": content}
    return result


def _responses(found: Operation) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for status, model in found.answers.items():
        described: dict[str, Any] = {"description": DESCRIPTIONS[status], "headers": LIMIT_HEADERS}
        if model is not None:
            described["content"] = {"application/json": {"schema": {"$ref": REF.format(model=model.__name__)}}}
        result[str(status)] = described
    content = {MEDIA_TYPE: {"schema": {"$ref": REF.format(model="Problem")}}}
    for status in sorted(_possible_problems(found)):
        result[str(status)] = {"description": DESCRIPTIONS[status], "content": content}
    return result


def _possible_problems(found: Operation) -> set[int]:
    possible = {400, 429, 503, *found.problems}
    if found.permission is not None:
        possible |= {401, 403}
    if found.body is not None:
        possible |= {413, 415, 422}
    if "<" in found.rule:
        possible.add(404)
    return possible
