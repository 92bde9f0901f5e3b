"""The API for programs."""

import base64
import json
import time
import uuid

import jwt
import pytest

from bank.app import create_app
from bank.config import load_settings
from bank.services import tokens
from conftest import ORIGIN, PASSWORD, browser, configuration_text, free_port

EVERYTHING = sorted(tokens.SCOPES)
WEBHOOK_SECRET = "a-secret-for-monitoring"
LAX = (
    f'[webhook]\nsecret = "{WEBHOOK_SECRET}"\n'
    "[limits]\ntokens_per_minute = 100000\nreads_per_minute = 100000\nwrites_per_minute = 100000"
)


def make_app(servers, folder, more=LAX, redis_port=None):
    path = folder / "bank.toml"
    text = configuration_text(servers, log=str(folder / "bank.json"), more=more)
    if redis_port:
        text = text.replace(f"port = {servers.redis_port}", f"port = {redis_port}")
    path.write_text(text)
    app = create_app(load_settings(path))
    app.log_file = folder / "bank.json"
    return app


@pytest.fixture(scope="module")
def api_app(servers, owner, tmp_path_factory):
    app = make_app(servers, tmp_path_factory.mktemp("api"))
    yield app
    app.extensions["bank"].engine.dispose()


class Program:
    """A program that uses the API in the name of a customer."""

    def __init__(self, app, customer, scopes=EVERYTHING):
        self.client = app.test_client()
        self.customer = customer
        self.headers = {"Authorization": f"Bearer {issue(app, customer, scopes)}"}

    def call(self, method, path, body=None, **options):
        headers = {**self.headers, **options.pop("headers", {})}
        if body is not None:
            options |= {"data": json.dumps(body), "content_type": "application/json"}
        return self.client.open(path, method=method, base_url=ORIGIN, headers=headers, **options)

    def get(self, path, **options):
        return self.call("GET", path, **options)


def issue(app, customer, scopes=EVERYTHING, version=0):
    """Make a token without the cost of a password."""
    return app.extensions["bank"].tokens.issue(customer.id, version, scopes)


@pytest.fixture
def customer(make_customer):
    return make_customer(10_000)


@pytest.fixture
def program(api_app, customer):
    return Program(api_app, customer)


def ask_token(app, customer, password=PASSWORD, **changes):
    body = {"email": customer.email, "password": password, "scopes": ["accounts:read"], **changes}
    return app.test_client().post("/api/v1/token", json=body, base_url=ORIGIN)


def is_problem(response, status, kind=None):
    assert response.status_code == status, response.get_data(as_text=True)
    assert response.content_type == "application/problem+json"
    body = response.json
    assert body["status"] == status
    assert body["type"] == (f"urn:bank:problem:{kind}" if kind else "about:blank")
    assert body["reference"] == response.headers["X-Request-ID"]
    return body


# Tokens


def test_token_opens_what_its_scopes_say(api_app, customer):
    response = ask_token(api_app, customer)
    assert response.status_code == 201
    assert response.headers["Cache-Control"] == "no-store"
    assert (response.json["token_type"], response.json["expires_in"]) == ("Bearer", 600)
    client = api_app.test_client()
    headers = {"Authorization": f"bearer {response.json['access_token']}"}
    assert client.get("/api/v1/accounts", headers=headers).json["items"][0]["id"] == str(customer.account)
    problem = client.post("/api/v1/transfers", headers=headers, base_url=ORIGIN)
    assert is_problem(problem, 403, "insufficient-scope")
    assert 'scope="transfers:write"' in problem.headers["WWW-Authenticate"]


def test_wrong_log_in_data_get_one_answer(api_app, customer, make_customer):
    disabled = make_customer(enabled=False)
    bodies = set()
    for response in (
        ask_token(api_app, customer, "wrong"), ask_token(api_app, customer, email="nobody@test.local"),
        ask_token(api_app, disabled),
    ):  # fmt: skip
        body = is_problem(response, 401, "log-in-refused")
        bodies.add((body["title"], body["detail"]))
    assert len(bodies) == 1


@pytest.mark.parametrize(
    "changes",
    [{"scopes": []}, {"scopes": ["admin"]}, {"scopes": "accounts:read"}, {"extra": 1}, {"email": 1}, {"password": None},
     {"password": "x" * 2_000}],
)  # fmt: skip
def test_token_requests_are_checked(api_app, customer, changes):
    body = is_problem(ask_token(api_app, customer, **changes), 422, "invalid-request")
    assert body["errors"]
    assert PASSWORD not in json.dumps(body)


def test_forged_tokens_are_refused(api_app, servers, customer):
    found = api_app.extensions["bank"].tokens
    claims = jwt.decode(issue(api_app, customer), options={"verify_signature": False})
    now = int(time.time())
    none = base64.urlsafe_b64encode(b'{"alg":"none","typ":"JWT"}').decode().rstrip("=")
    payload = issue(api_app, customer).split(".")[1]
    wrong = [
        "", "x", "a.b.c", f"{none}.{payload}.", issue(api_app, customer)[:-2] + "AA", "x" * 5_000,
        jwt.encode(claims, servers.secret_key, "HS256"),
        *[jwt.encode({**claims, **change}, found._key, "HS256") for change in (
            {"exp": now - 1}, {"aud": "other"}, {"iss": "other"}, {"sub": "not an id"}, {"sub": str(uuid.uuid4())},
            {"ver": 7}, {"ver": "x"}, {"scope": 5}, {"jti": 5},
        )],
        *[jwt.encode({key: claims[key] for key in claims if key != name}, found._key, "HS256") for name in claims],
    ]  # fmt: skip
    client = api_app.test_client()
    for token in wrong:
        response = client.get("/api/v1/accounts", headers={"Authorization": f"Bearer {token}"})
        is_problem(response, 401)
        assert response.headers["WWW-Authenticate"] == "Bearer"
    assert (
        client.get("/api/v1/accounts", headers={"Authorization": f"Bearer {issue(api_app, customer)}"}).status_code
        == 200
    )


def test_revoked_token_stops_at_once(program, api_app, customer):
    assert program.get("/api/v1/accounts").status_code == 200
    assert program.call("DELETE", "/api/v1/token").status_code == 204
    is_problem(program.get("/api/v1/accounts"), 401)
    assert Program(api_app, customer).get("/api/v1/accounts").status_code == 200


def test_a_token_that_was_believed_expires(program, monkeypatch):
    assert program.get("/api/v1/accounts").status_code == 200
    later = time.time() + 601
    monkeypatch.setattr(tokens.time, "time", lambda: later)
    is_problem(program.get("/api/v1/accounts"), 401)


def test_revoked_token_stops_also_while_limits_are_counted_here_alone(program, api_app, monkeypatch):
    assert program.call("DELETE", "/api/v1/token").status_code == 204
    monkeypatch.setattr(api_app.extensions["bank"].limiter, "_ask_again_at", time.monotonic() + 60)
    is_problem(program.get("/api/v1/accounts"), 401)


def test_disabled_customer_is_out_at_once(program, owner, customer):
    from sqlalchemy import text

    with owner.begin() as connection:
        connection.execute(text("UPDATE users SET is_enabled = false WHERE id = :id"), {"id": customer.id})
    is_problem(program.get("/api/v1/accounts"), 401)


def test_session_cookie_opens_nothing_here(api_app, customer):
    client = browser(api_app)
    client.log_in(customer.email)
    assert client.get("/accounts").status_code == 200
    is_problem(client.get("/api/v1/accounts"), 401)
    is_problem(client.post("/api/v1/transfers"), 401)


# Accounts and history


def test_accounts(program, customer, make_customer):
    (account,) = program.get("/api/v1/accounts").json["items"]
    assert account == program.get(f"/api/v1/accounts/{customer.account}").json
    assert (account["number"], account["balance_minor"], account["available_minor"]) == (
        customer.number,
        10_000,
        10_000,
    )
    stranger = make_customer(5)
    for path in (f"/api/v1/accounts/{stranger.account}", f"/api/v1/accounts/{stranger.account}/history"):
        is_problem(program.get(path), 404)
    is_problem(program.get("/api/v1/accounts/1"), 404)


def test_history_by_pages_meets_every_movement_once(program, customer, make_customer):
    payee = make_customer()
    for amount in range(1, 8):
        assert transfer(program, payee, amount).status_code == 201
    path = f"/api/v1/accounts/{customer.account}/history"
    seen, cursor = [], None
    while True:
        page = program.get(path, query_string={"limit": 3} | ({"cursor": cursor} if cursor else {})).json
        assert len(page["items"]) <= 3
        seen += page["items"]
        if len(seen) == 3:
            assert transfer(program, payee, 100).status_code == 201  # arrives meanwhile
        cursor = page["next_cursor"]
        if cursor is None:
            break
    assert [line["amount_minor"] for line in seen] == [-7, -6, -5, -4, -3, -2, -1, 10_000]
    assert seen[0]["balance_after_minor"] == 10_000 - 28
    assert len(program.get(path).json["items"]) == 9


@pytest.mark.parametrize(
    "query", ["limit=0", "limit=101", "limit=x", "cursor=", "cursor=1", "offset=1", "limit=1&limit=2"]
)
def test_history_refuses_strange_queries(program, customer, query):
    is_problem(program.get(f"/api/v1/accounts/{customer.account}/history?{query}"), 400, "invalid-request")


# Transfers


def transfer(program, payee, amount=150, key=None, **changes):
    body = {
        "from_account": str(program.customer.account), "to_number": payee.number, "amount_minor": amount,
        "currency": "EUR", "reference": "rent", **changes,
    }  # fmt: skip
    headers = {} if key == "" else {"Idempotency-Key": key or f'"{uuid.uuid4()}"'}
    return program.call("POST", "/api/v1/transfers", body, headers=headers)


def test_transfer_moves_money_once(program, customer, payee, balance_of):
    key = f'"{uuid.uuid4()}"'
    first = transfer(program, payee, key=key)
    assert first.status_code == 201
    assert "Idempotency-Replayed" not in first.headers
    assert first.json["status"] == "completed"
    again = transfer(program, payee, key=key)
    assert (again.status_code, again.data) == (201, first.data)
    assert again.headers["Idempotency-Replayed"] == "true"
    bare = transfer(program, payee, key=key.strip('"'))
    assert bare.headers["Idempotency-Replayed"] == "true"
    assert (balance_of(customer.account), balance_of(payee.account)) == (9_850, 150)


# What a tester of Apache Fineract found with a careless idempotency key (FINERACT-2485), each as it should be.


def test_same_key_with_another_amount_is_refused(program, customer, payee, balance_of):
    key = f'"{uuid.uuid4()}"'
    assert transfer(program, payee, 100, key).status_code == 201
    is_problem(transfer(program, payee, 200, key), 422, "idempotency-key-reused")
    assert balance_of(payee.account) == 100


def test_same_key_for_another_account_never_answers_with_the_first(api_app, program, payee, make_customer, balance_of):
    key, other = f'"{uuid.uuid4()}"', make_customer()
    first = transfer(program, payee, 100, key)
    is_problem(transfer(program, other, 100, key), 422, "idempotency-key-reused")
    # Somebody else's key is another key, even if it reads the same.
    second = Program(api_app, make_customer(500))
    answer = transfer(second, payee, 100, key)
    assert answer.status_code == 201
    assert answer.json["id"] != first.json["id"]
    assert (balance_of(payee.account), balance_of(other.account)) == (200, 0)


def test_failed_request_does_not_use_its_key_up(api_app, make_customer, payee, balance_of):
    poor, rich = Program(api_app, make_customer(50)), Program(api_app, make_customer(1_000))
    key = f'"{uuid.uuid4()}"'
    for _ in range(2):
        body = is_problem(transfer(poor, payee, 100, key), 422, "insufficient-funds")
        assert body["detail"]
    assert transfer(rich, poor.customer, 100).status_code == 201
    answer = transfer(poor, payee, 100, key)
    assert answer.status_code == 201
    assert "Idempotency-Replayed" not in answer.headers
    assert balance_of(payee.account) == 100


@pytest.mark.parametrize(
    ("key", "kind"),
    [("", "missing"), ('""', "invalid"), ('"' + "k" * 1_000 + '"', "invalid"), ('"' + "k" * 256 + '"', "invalid"),
     ('"é"', "invalid"), ('"a', "invalid"), ('"a"b"', "invalid"), ("a b", "invalid")],
)  # fmt: skip
def test_keys_that_cannot_be_used_are_refused_in_words(program, payee, balance_of, key, kind):
    is_problem(transfer(program, payee, 100, key), 400, f"idempotency-key-{kind}")
    assert balance_of(payee.account) == 0


def test_longest_key_works(program, payee):
    key = '"' + "\\\\" + "k" * 254 + '"'
    assert transfer(program, payee, 1, key).status_code == 201
    assert transfer(program, payee, 1, key).headers["Idempotency-Replayed"] == "true"


@pytest.mark.parametrize(
    ("changes", "status", "kind"),
    [
        ({"amount_minor": 0}, 422, "invalid-request"), ({"amount_minor": -5}, 422, "invalid-request"),
        ({"amount_minor": 1.5}, 422, "invalid-request"), ({"amount_minor": "100"}, 422, "invalid-request"),
        ({"amount_minor": True}, 422, "invalid-request"), ({"amount_minor": 2**63}, 422, "invalid-request"),
        ({"currency": "eur"}, 422, "invalid-request"), ({"reference": "x" * 141}, 422, "invalid-request"),
        ({"reference": "a\x00b"}, 422, "invalid-request"), ({"created_by": "me"}, 422, "invalid-request"),
        ({"from_account": "1"}, 422, "invalid-request"), ({"to_number": "BK00 0000"}, 422, "unknown-recipient"),
        ({"to_number": "BK090000000000000001"}, 422, "unknown-recipient"),
        ({"currency": "USD"}, 422, "currency-mismatch"),
        ({"from_account": str(uuid.uuid4())}, 404, None), ({"amount_minor": 10_001}, 422, "insufficient-funds"),
    ],
)  # fmt: skip
def test_transfers_that_cannot_be(program, payee, customer, balance_of, changes, status, kind):
    is_problem(transfer(program, payee, **changes), status, kind)
    assert balance_of(customer.account) == 10_000


def test_nobody_pays_from_an_account_of_somebody_else(program, payee, make_customer, balance_of):
    victim = make_customer(1_000)
    is_problem(transfer(program, payee, from_account=str(victim.account)), 404)
    assert balance_of(victim.account) == 1_000


def test_key_whose_first_request_still_runs(program, payee, customer, owner, balance_of):
    from sqlalchemy import text

    with owner.connect() as connection:  # the first request, which does not end
        connection.execute(
            text("INSERT INTO idempotency_keys (user_id, key, fingerprint, entry_id) VALUES (:id, 'k', 'f', :id)"),
            {"id": customer.id},
        )
        answer = transfer(program, payee, key='"k"')
        connection.rollback()
    is_problem(answer, 409, "busy")
    assert answer.headers["Retry-After"] == "1"
    assert transfer(program, payee, key='"k"').status_code == 201
    assert balance_of(payee.account) == 150


def test_large_transfer_waits_for_a_second_person(api_app, make_customer, payee, balance_of):
    rich = Program(api_app, make_customer(10**9))
    key = f'"{uuid.uuid4()}"'
    first = transfer(rich, payee, 2 * 10**6, key)
    assert (first.status_code, first.json["status"]) == (202, "waiting")
    again = transfer(rich, payee, 2 * 10**6, key)
    assert (again.status_code, again.data, again.headers["Idempotency-Replayed"]) == (202, first.data, "true")
    assert balance_of(payee.account) == 0


def test_own_number_and_broken_bodies(program, customer):
    is_problem(transfer(program, customer), 422, "same-account")
    headers = {"Idempotency-Key": '"k"'}
    for data in (b"", b"{", b"[]", b"null", b"\xff", b'{"a":' * 3_000):
        response = program.call(
            "POST", "/api/v1/transfers", headers=headers, data=data, content_type="application/json"
        )
        is_problem(response, 422, "invalid-request")
    is_problem(program.call("POST", "/api/v1/transfers", headers=headers, data="a=1"), 415)
    huge = program.call(
        "POST", "/api/v1/transfers", headers=headers, data=b"x" * 70_000, content_type="application/json"
    )
    is_problem(huge, 413)


# Payments


def pay(program, key=None, **changes):
    body = {
        "from_account": str(program.customer.account), "creditor_name": "Elsewhere Ltd",
        "creditor_iban": "DE89 3704 0044 0532 0130 00", "amount_minor": 250, "currency": "EUR", **changes,
    }  # fmt: skip
    headers = {"Idempotency-Key": key or f'"{uuid.uuid4()}"'}
    return program.call("POST", "/api/payment", body, headers=headers)


def test_payment_leaves_the_bank_once(program, customer, balance_of, api_app):
    key = f'"{uuid.uuid4()}"'
    first = pay(program, key)
    assert (first.status_code, first.json["status"]) == (201, "completed")
    again = pay(program, key)
    assert (again.data, again.headers["Idempotency-Replayed"]) == (first.data, "true")
    assert balance_of(customer.account) == 9_750
    line = program.get(f"/api/v1/accounts/{customer.account}/history?limit=1").json["items"][0]
    assert (line["kind"], line["counterparty"], line["amount_minor"]) == ("payment", "Elsewhere Ltd", -250)
    is_problem(pay(program, key, amount_minor=251), 422, "idempotency-key-reused")
    page = browser(api_app).get("/metrics").get_data(as_text=True)
    assert 'bank_transfers_total{outcome="completed",type="payment"}' in page
    assert "DE89370400440532013000" not in api_app.log_file.read_text()


@pytest.mark.parametrize(
    ("changes", "kind"),
    [({"creditor_iban": "DE89 3704 0044 0532 0130 01"}, "invalid-creditor"),
     ({"creditor_name": " "}, "invalid-creditor"), ({"amount_minor": 10**9}, "insufficient-funds"),
     ({"creditor_name": "x" * 71}, "invalid-request")],
)  # fmt: skip
def test_payments_that_cannot_be(program, customer, balance_of, changes, kind):
    is_problem(pay(program, **changes), 422, kind)
    assert balance_of(customer.account) == 10_000


def test_payment_to_this_bank_and_scope(program, api_app, customer, payee):
    is_problem(pay(program, creditor_iban=payee.number), 422, "own-bank")
    is_problem(pay(Program(api_app, customer, ["transfers:write"])), 403, "insufficient-scope")


def test_log_holds_no_token_number_or_key(api_app, program, customer, payee):
    transfer(program, payee, key='"key-canary-5512"', reference="reference-canary-5512")
    transfer(program, payee, amount=10**9, key='"key-canary-5512b"')
    response = ask_token(api_app, customer)
    lines = api_app.log_file.read_text()
    assert '"transfer completed"' in lines
    for secret in (
        "canary-5512", customer.number, payee.number, customer.email, PASSWORD, response.json["access_token"],
        program.headers["Authorization"][7:],
    ):  # fmt: skip
        assert secret not in lines


# Limits


@pytest.fixture
def limited(servers, owner, tmp_path):
    made = []
    if time.time() % 60 > 54:  # the limits are those of a minute of the clock
        time.sleep(6)

    def make(redis_port=None):
        more = "[limits]\ntokens_per_minute = 3\nreads_per_minute = 4\nwrites_per_minute = 2"
        made.append(make_app(servers, tmp_path, more, redis_port))
        return made[-1]

    yield make
    for app in made:
        app.extensions["bank"].engine.dispose()


def test_limits_are_shared_by_instances(limited, customer, make_customer):
    instances = [Program(limited(), customer), Program(limited(), customer)]
    answers = [instances[number % 2].get("/api/v1/accounts") for number in range(5)]
    assert [answer.status_code for answer in answers] == [200, 200, 200, 200, 429]
    assert [answer.headers["RateLimit"].split(";")[1] for answer in answers] == ["r=3", "r=2", "r=1", "r=0", "r=0"]
    assert answers[0].headers["RateLimit-Policy"] == '"read";q=4;w=60'
    body = is_problem(answers[4], 429, "too-many-requests")
    assert "4" in body["detail"]
    assert 1 <= int(answers[4].headers["Retry-After"]) <= 60
    assert Program(instances[0].client.application, make_customer()).get("/api/v1/accounts").status_code == 200
    page = browser(instances[0].client.application).get("/metrics").get_data(as_text=True)
    assert 'bank_rate_limited_total{limit="read"}' in page


def test_a_revoked_token_costs_its_owner_nothing(limited, customer):
    app = limited()
    lost = Program(app, customer)
    assert lost.call("DELETE", "/api/v1/token").status_code == 204
    for _ in range(9):
        is_problem(lost.get("/api/v1/accounts"), 401)
    answer = Program(app, customer).get("/api/v1/accounts")
    assert (answer.status_code, answer.headers["RateLimit"].split(";")[1]) == (200, "r=3")


def test_guessing_is_limited_by_address(limited, customer, servers):
    first, second = limited(), limited()
    redis = first.extensions["bank"].redis
    for key in redis.scan_iter("*"):
        redis.delete(key)
    answers = [ask_token(app, customer, "wrong").status_code for app in (first, second, first, second)]
    assert answers == [401, 401, 401, 429]
    assert ask_token(first, customer).status_code == 429


def test_without_redis_reading_and_paying_go_on_and_guessing_does_not(limited, customer, payee, balance_of):
    program = Program(limited(free_port()), customer)
    assert [program.get("/api/v1/accounts").status_code for _ in range(5)] == [200, 200, 200, 200, 429]
    assert transfer(program, payee).status_code == 201
    assert balance_of(payee.account) == 150
    response = ask_token(program.client.application, customer)
    is_problem(response, 503)
    assert response.headers["Retry-After"]
    is_problem(program.call("DELETE", "/api/v1/token"), 503)
