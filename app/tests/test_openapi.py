"""The OpenAPI document tells the truth: requests made from it are answered as it says."""

import json

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.strategies import booleans
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    ignored_auth,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from bank.api.operations import OPERATIONS
from conftest import ORIGIN, PASSWORD
from test_api import WEBHOOK_SECRET, api_app, issue  # noqa: F401  (the application with lax limits)

CHECKS = (
    not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance,
    response_headers_conformance, ignored_auth,
)  # fmt: skip


@pytest.fixture
def document(api_app):  # noqa: F811
    return api_app.test_client().get("/api/v1/openapi.json", base_url=ORIGIN).json


def test_every_operation_is_described(document, app):
    assert document["openapi"].startswith("3.1")
    described = {(method.upper(), path) for path, methods in document["paths"].items() for method in methods}
    # The document itself is the one address without a description.
    served = {
        (method, rule.rule.replace("<uuid:", "{").replace(">", "}"))
        for rule in app.url_map.iter_rules()
        for method in rule.methods - {"HEAD", "OPTIONS"}
        if rule.rule.startswith("/api/")
    } - {("GET", "/api/v1/openapi.json")}
    assert described == served
    assert len(described) == len(OPERATIONS)
    unknown = [ref for ref in _references(document) if ref.rpartition("/")[2] not in document["components"]["schemas"]]
    assert not unknown
    assert "HistoryQuery" not in json.dumps(document)


def _references(part):
    if isinstance(part, dict):
        for key, value in part.items():
            if key == "$ref":
                yield value
            else:
                yield from _references(value)
    elif isinstance(part, list):
        for value in part:
            yield from _references(value)


def test_answers_are_as_described(api_app, make_customer):  # noqa: F811
    customer, payee = make_customer(10**6), make_customer()
    # What makes a request, otherwise as the document describes it, one about something that exists.
    real = {
        "/api/v1/token": {"email": customer.email, "password": PASSWORD},
        "/api/v1/transfers": {"from_account": str(customer.account), "to_number": payee.number, "currency": "EUR",
                              "amount_minor": 1},
        "/api/payment": {"from_account": str(customer.account), "creditor_iban": "DE89370400440532013000",
                         "creditor_name": "Elsewhere Ltd", "currency": "EUR", "amount_minor": 1},
    }  # fmt: skip
    schema = schemathesis.openapi.from_wsgi("/api/v1/openapi.json", api_app)
    successes = {}
    for found in schema.get_all_operations():
        operation = found.ok()

        @settings(
            max_examples=12, deadline=None, derandomize=True, database=None, phases=[Phase.explicit, Phase.generate],
            suppress_health_check=list(HealthCheck),
        )  # fmt: skip
        @given(case=operation.as_strategy(), exists=booleans())
        def check(case, exists):
            if exists and case.path_parameters:
                case.path_parameters["account_id"] = str(customer.account)
            if exists and isinstance(case.body, dict):
                case.body.update(real.get(case.path, {}))
            proof = WEBHOOK_SECRET if case.path.startswith("/api/webhook") else issue(api_app, customer)
            headers = {} if case.operation.label == "POST /api/v1/token" else {"Authorization": f"Bearer {proof}"}
            response = case.call_and_validate(checks=CHECKS, headers=headers, base_url=ORIGIN)
            if response.status_code < 300:
                successes.setdefault(case.operation.label, set()).add(response.status_code)

        check()
    assert successes == {
        "GET /api/v1/accounts": {200}, "GET /api/v1/accounts/{account_id}": {200},
        "GET /api/v1/accounts/{account_id}/history": {200}, "POST /api/v1/token": {201}, "DELETE /api/v1/token": {204},
        "POST /api/v1/transfers": {201}, "POST /api/payment": {201}, "POST /api/webhook/alert": {200},
    }  # fmt: skip
