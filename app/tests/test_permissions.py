"""Who may use which route: the whole url map, as every role and as nobody."""

import re
import uuid
from pathlib import Path

import pytest

from bank import log, permissions
from bank.app import create_app
from bank.permissions import GRANTS, Permission, Role, public, requires
from bank.services.tokens import SCOPES
from conftest import ORIGIN, browser

STAFF = {"teller", "supervisor", "auditor", "admin"}
PEOPLE = {"customer"} | STAFF
EVERYBODY = {"nobody"} | PEOPLE
# Method and route: who may use it. A new route needs a line here.
MATRIX = {
    "GET /": EVERYBODY,
    "GET /accounts": {"customer"},
    "GET /accounts/<uuid:account_id>": {"customer"},
    "GET /accounts/<uuid:account_id>/statements/<name>": {"customer"},
    "GET /beneficiaries": {"customer"},
    "POST /beneficiaries": {"customer"},
    "POST /beneficiaries/<uuid:beneficiary_id>/remove": {"customer"},
    "POST /api/payment": {"customer"},
    "GET /api/v1/accounts": {"customer"},
    "GET /api/v1/accounts/<uuid:account_id>": {"customer"},
    "GET /api/v1/accounts/<uuid:account_id>/history": {"customer"},
    "GET /api/v1/openapi.json": EVERYBODY,
    "DELETE /api/v1/token": PEOPLE,
    "POST /api/v1/token": EVERYBODY,
    "POST /api/v1/transfers": {"customer"},
    "POST /api/webhook/alert": EVERYBODY,
    "GET /health": EVERYBODY,
    "GET /health/ready": EVERYBODY,
    "POST /language": EVERYBODY,
    "GET /login": EVERYBODY,
    "POST /login": EVERYBODY,
    "POST /logout": EVERYBODY,
    "GET /metrics": EVERYBODY,
    "GET /notifications": PEOPLE,
    "POST /notifications/read": PEOPLE,
    "GET /login/code": EVERYBODY,
    "POST /login/code": EVERYBODY,
    "GET /payment": {"customer"},
    "POST /payment": {"customer"},
    "GET /payment/review": {"customer"},
    "POST /payment/review": {"customer"},
    "GET /security": PEOPLE,
    "GET /staff": STAFF,
    "GET /staff/accounts/<uuid:account_id>": STAFF,
    "GET /staff/accounts/<uuid:account_id>/cash": {"teller"},
    "POST /staff/accounts/<uuid:account_id>/cash": {"teller"},
    "GET /staff/accounts/<uuid:account_id>/entries/<uuid:entry_id>/reverse": {"teller", "supervisor"},
    "POST /staff/accounts/<uuid:account_id>/entries/<uuid:entry_id>/reverse": {"teller", "supervisor"},
    "POST /staff/accounts/<uuid:account_id>/freeze": {"admin"},
    "POST /staff/accounts/<uuid:account_id>/release": {"admin"},
    "GET /staff/alerts": {"supervisor", "auditor", "admin"},
    "GET /staff/approvals": {"teller", "supervisor", "auditor"},
    "POST /staff/approvals/<uuid:approval_id>/approve": {"supervisor"},
    "POST /staff/approvals/<uuid:approval_id>/reject": {"supervisor"},
    "GET /staff/audit": {"auditor"},
    "GET /staff/customers": STAFF,
    "POST /staff/customers": STAFF,
    "GET /staff/customers/<uuid:customer_id>": STAFF,
    "GET /staff/platform": {"supervisor", "auditor", "admin"},
    "GET /staff/fraud": {"supervisor", "auditor"},
    "GET /staff/role-changes": {"supervisor", "admin"},
    "POST /staff/role-changes/<uuid:change_id>/approve": {"supervisor", "admin"},
    "POST /staff/role-changes/<uuid:change_id>/reject": {"supervisor", "admin"},
    "GET /staff/sign-ups": {"supervisor", "admin"},
    "POST /staff/sign-ups/<uuid:sign_up_id>/approve": {"supervisor", "admin"},
    "POST /staff/sign-ups/<uuid:sign_up_id>/reject": {"supervisor", "admin"},
    "GET /staff/users": {"admin"},
    "POST /staff/users": {"admin"},
    "GET /staff/users/<uuid:user_id>": {"admin"},
    "POST /staff/users/<uuid:user_id>/disable": {"admin"},
    "POST /staff/users/<uuid:user_id>/enable": {"admin"},
    "POST /staff/users/<uuid:user_id>/role": {"admin"},
    "POST /staff/users/<uuid:user_id>/second-factor/remove": {"admin"},
    "GET /security/password": PEOPLE,
    "POST /security/password": PEOPLE,
    "GET /security/recovery-codes": PEOPLE,
    "POST /security/recovery-codes": PEOPLE,
    "GET /security/second-factor": PEOPLE,
    "POST /security/second-factor": PEOPLE,
    "POST /security/sessions/end": PEOPLE,
    "POST /security/sessions/end-others": PEOPLE,
    "GET /sign-up": EVERYBODY,
    "POST /sign-up": EVERYBODY,
    "GET /standing-orders": {"customer"},
    "GET /standing-orders/new": {"customer"},
    "POST /standing-orders/new": {"customer"},
    "POST /standing-orders/<uuid:order_id>/cancel": {"customer"},
    "GET /static/<path:filename>": EVERYBODY,
    "GET /transfer": {"customer"},
    "POST /transfer": {"customer"},
    "GET /transfer/review": {"customer"},
    "POST /transfer/review": {"customer"},
}


def routes(app):
    for rule in app.url_map.iter_rules():
        for method in sorted(rule.methods - {"HEAD", "OPTIONS"}):
            path = re.sub(r"<uuid:[a-z_]+>", str(uuid.uuid4()), rule.rule).replace("<path:filename>", "bank.css")
            yield f"{method} {rule.rule}", method, path


def token_of(client):
    page = client.get("/login").get_data(as_text=True) + client.get("/security").get_data(as_text=True)
    return re.search(r'name="csrf_token"[^>]* value="([^"]+)"', page)[1]


@pytest.fixture(scope="module")
def log_in_as(app, make_staff, make_customer):
    people = {}

    def log_in(who):
        client = browser(app)
        client.user_id = None
        if who != "nobody":
            if who not in people:
                customer = make_customer(100) if who == "customer" else None
                people[who] = (customer.id, customer.email) if customer else make_staff(who)
            client.user_id, email = people[who]
            assert client.log_in(email).status_code == 303
        return client

    return log_in


def refused(response):
    to_login = response.status_code == 302 and response.location.startswith("/login?next=")
    return response.status_code in {401, 403} or to_login


@pytest.mark.parametrize("who", sorted(EVERYBODY))
def test_every_route_as_everybody(app, log_in_as, who):
    client = log_in_as(who)
    token = token_of(client)
    reached = set()
    # Logging out comes last, because it would make nobody of everybody.
    for name, method, path in sorted(routes(app), key=lambda route: "logout" in route[0]):
        data = {"csrf_token": token} if method != "GET" else None
        headers = {}
        if path.startswith("/api/") and client.user_id:
            # The session counts for nothing there; tokens are issued anew because one of the routes revokes them.
            bearer = app.extensions["bank"].tokens.issue(client.user_id, 0, SCOPES)
            headers["Authorization"] = f"Bearer {bearer}"
        response = client.client.open(path, method=method, data=data, headers=headers, base_url=ORIGIN)
        # No secret for alerts is set here, which it says with 503.
        assert response.status_code < 500 or name == "POST /api/webhook/alert", name
        # A wrong password is what the log-in form answers with 401, not a closed door.
        if not refused(response) or name == "POST /login":
            reached.add(name)
        elif who == "nobody":
            assert response.status_code in {302, 401}, name
        else:
            assert response.status_code == 403, name
    assert reached == {name for name, allowed in MATRIX.items() if who in allowed}


def test_the_matrix_names_every_route(app):
    assert set(MATRIX) == {name for name, _, _ in routes(app)}


def test_refused_access_is_logged_with_its_reason(log_in_as, settings):
    log.configure(settings)  # other tests send the log elsewhere
    path = Path(settings.logging.path)
    before = path.stat().st_size
    assert log_in_as("auditor").get("/transfer").status_code == 403
    lines = path.read_bytes()[before:].decode()
    assert '"action":"access-check"' in lines.replace(" ", "")
    assert "needs own-transfers" in lines


def test_application_without_a_declared_permission_does_not_start(settings, monkeypatch):
    from flask import Blueprint

    from bank import app as factory

    silent = Blueprint("silent", __name__)
    silent.add_url_rule("/silent", "view", lambda: "")
    monkeypatch.setattr(factory, "BLUEPRINTS", (*factory.BLUEPRINTS, silent))
    with pytest.raises(permissions.UndeclaredRouteError, match=r"@public: silent\.view$"):
        create_app(settings)


def test_route_that_was_added_later_without_a_permission_is_closed(settings, owner):
    app = create_app(settings)
    app.add_url_rule("/late", "late", lambda: "open")
    app.add_url_rule("/known", "known", public(lambda: "open"))
    assert browser(app).get("/late").status_code == 500
    assert browser(app).get("/known").text == "open"
    app.extensions["bank"].engine.dispose()


def test_api_answers_401_instead_of_a_login_page(settings, owner):
    app = create_app(settings)
    app.add_url_rule("/api/thing", "thing", requires(Permission.OWN_ACCOUNTS)(lambda: "x"))
    assert browser(app).get("/api/thing").status_code == 401
    app.extensions["bank"].engine.dispose()


def test_roles_are_kept_apart():
    assert set(GRANTS) == set(Role)
    assert permissions.of_role("owner-of-everything") == frozenset()
    for role in STAFF:
        assert not GRANTS[Role(role)] & {Permission.OWN_ACCOUNTS, Permission.OWN_TRANSFERS}
    # Whoever asks for money to move does not also decide, and whoever reads the trail changes nothing.
    assert not {role for role in Role if {Permission.CASH_POST, Permission.APPROVALS_DECIDE} <= GRANTS[role]}
    reading = {Permission.OWN_SECURITY, Permission.STAFF_HOME} | {p for p in Permission if p.endswith("-read")}
    assert GRANTS[Role.AUDITOR] <= reading
    assert {role for role in Role if Permission.AUDIT_READ in GRANTS[role]} == {Role.AUDITOR}
