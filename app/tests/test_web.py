"""The pages, used as a browser uses them."""

import html
import json
import re
import threading
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from flask import abort
from sqlalchemy import text
from werkzeug.exceptions import TooManyRequests

from bank import security, sessions
from bank.app import create_app
from bank.permissions import public
from bank.services import passwords
from conftest import ORIGIN, PASSWORD, browser

COOKIE = "__Host-bank-session"


def cookies(response):
    return response.headers.getlist("Set-Cookie")


def send(client, customer, to, amount="1.00", *, reference="", **changes):
    data = {
        **client.fields("/transfer"),
        "from_account": str(customer.account),
        "to_number": to.number,
        "amount": amount,
        "reference": reference,
    }
    return client.post("/transfer", {**data, **changes})


@pytest.fixture
def payer(make_customer):
    return make_customer(10_000, name="Paula Payer")


# Logging in and out


def test_log_in_shows_the_accounts(client, payer):
    response = client.log_in(payer.email.upper())
    assert (response.status_code, response.location) == (303, "/accounts")
    page = client.get("/accounts").get_data(as_text=True)
    assert "100.00" in page
    assert "Paula" in page


def test_pages_need_a_log_in(client):
    for path in ("/accounts", f"/accounts/{uuid.uuid4()}", "/transfer"):
        response = client.get(path)
        assert response.status_code == 302
        assert response.location.startswith("/login?next=")


def test_after_log_in_the_wanted_page_follows(client, payer):
    assert client.log_in(payer.email, path="/login?next=/transfer").location == "/transfer"


@pytest.mark.parametrize(
    "target",
    ["https://evil.test", "//evil.test", "/\\evil.test", "\\\\evil.test", "/%09/evil.test", "javascript:alert(1)",
     "/a\r\nSet-Cookie: x=y", "///evil.test", " //evil.test", "/@evil"],
)  # fmt: skip
def test_log_in_never_leads_to_another_site(client, payer, target):
    fields = client.fields("/login")
    response = client.post(
        "/login", {**fields, "email": payer.email, "password": PASSWORD}, query_string={"next": target}
    )
    assert response.location == "/accounts"


def test_unknown_user_gets_the_same_answer_as_a_wrong_password(client, payer, make_customer):
    disabled = make_customer(enabled=False)
    answers = set()
    for email, password in (
        (payer.email, "wrong"),
        ("nobody@test.local", PASSWORD),
        (disabled.email, PASSWORD),
        (payer.email, PASSWORD + " "),
        (payer.email, PASSWORD + "x" * 900),
        ("a\x00b", PASSWORD),
    ):
        response = client.log_in(email, password)
        body = re.sub(r'value="[^"]*"', "", response.get_data(as_text=True))
        answers.add((response.status_code, re.sub(r"autofocus", "", body).replace(" ", "")))
    assert len(answers) == 1
    assert answers.pop()[0] == 401


def test_unknown_user_costs_as_much_work_as_a_wrong_password(payer, engine, monkeypatch):
    from types import SimpleNamespace

    from argon2 import extract_parameters

    from bank.services import passwords, users

    real, verified = passwords.HASHER, []

    def verify(password_hash, password):
        verified.append(extract_parameters(password_hash))
        return real.verify(password_hash, password)

    monkeypatch.setattr(passwords, "HASHER", SimpleNamespace(verify=verify))
    for email in (payer.email, "nobody@test.local"):
        assert users.authenticate(engine, email, "wrong") is None
    known, unknown = verified
    assert known == unknown == extract_parameters(real.hash("any"))


def test_old_hash_is_renewed_at_log_in(client, owner, payer):
    from argon2 import PasswordHasher

    weak = PasswordHasher(time_cost=1, memory_cost=8192, parallelism=1).hash(PASSWORD)
    with owner.begin() as connection:
        connection.execute(
            text("UPDATE users SET password_hash = :hash WHERE id = :id"), {"hash": weak, "id": payer.id}
        )
    assert client.log_in(payer.email).status_code == 303
    with owner.connect() as connection:
        stored = connection.execute(text("SELECT password_hash FROM users WHERE id = :id"), {"id": payer.id}).scalar()
    assert stored.startswith("$argon2id$v=19$m=19456,t=2,p=1$")
    assert passwords.matches(stored, PASSWORD)


def test_cookie_flags_on_every_route(app, client, payer):
    seen = []
    for rule in app.url_map.iter_rules():
        path = rule.rule.replace("<uuid:account_id>", str(payer.account)).replace("<path:filename>", "bank.css")
        seen += cookies(client.get(path))
    seen += cookies(client.log_in(payer.email))
    assert seen
    for cookie in seen:
        name, *flags = [part.strip() for part in cookie.split(";")]
        assert name.startswith(("__Host-bank-session=", "__Host-bank-device=", "__Host-bank-language="))
        assert {"Secure", "HttpOnly", "Path=/", "SameSite=Lax"} <= set(flags)
        assert not any(flag.lower().startswith("domain") for flag in flags)


def test_session_id_changes_at_log_in_and_the_old_one_is_dead(app, client, payer):
    client.get("/login")
    before = client.session_cookie
    client.log_in(payer.email)
    after = client.session_cookie
    assert before
    assert after
    assert before != after
    stranger = browser(app)
    stranger.client.set_cookie(COOKIE, before, domain="bank.test")
    assert stranger.get("/accounts").status_code == 302


def test_session_is_dead_after_log_out_for_every_instance(settings, app, logged_in):
    cookie = logged_in.session_cookie
    assert logged_in.log_out().status_code == 303
    assert logged_in.get("/accounts").status_code == 302
    other = create_app(settings)
    for instance in (app, other):
        replay = browser(instance)
        replay.client.set_cookie(COOKIE, cookie, domain="bank.test")
        assert replay.get("/accounts").status_code == 302
    other.extensions["bank"].engine.dispose()


def test_a_request_under_way_does_not_revive_a_session_that_was_ended(app, settings, logged_in):
    resources = app.extensions["bank"]
    token = logged_in.session_cookie
    slow = sessions.BankSession(resources.redis, settings.session, token)
    assert slow["_user_id"]
    logged_in.log_out()
    slow["flash"] = "late"
    slow.save()
    assert resources.redis.get(sessions.storage_key(token)) is None


def test_redis_holds_no_usable_token(app, logged_in):
    redis = app.extensions["bank"].redis
    token = logged_in.session_cookie.encode()
    read = {b"string": redis.get, b"hash": redis.hgetall, b"zset": lambda key: redis.zrange(key, 0, -1)}
    kinds = set()
    for key in redis.scan_iter("*"):
        kinds.add(kind := redis.type(key))
        assert token not in key
        assert token.decode() not in repr(read[kind](key))
    assert kinds >= {b"string", b"zset"}


def test_session_ends_when_idle_and_at_its_greatest_age(app, settings, logged_in, monkeypatch):
    redis = app.extensions["bank"].redis
    key = sessions.storage_key(logged_in.session_cookie)
    assert 0 < redis.ttl(key) <= settings.session.idle_seconds
    now = time.time()
    # Near its greatest age the session lives for what is left of it, however busy it is.
    monkeypatch.setattr(sessions.time, "time", lambda: now + settings.session.absolute_seconds - 30)
    assert logged_in.get("/accounts").status_code == 200
    assert 0 < redis.ttl(key) <= 31
    monkeypatch.setattr(sessions.time, "time", lambda: now + settings.session.absolute_seconds + 1)
    assert logged_in.get("/accounts").status_code == 302


def test_disabled_user_is_out_at_once(owner, logged_in, payer):
    with owner.begin() as connection:
        connection.execute(text("UPDATE users SET is_enabled = false WHERE id = :id"), {"id": payer.id})
    assert logged_in.get("/accounts").status_code == 302


def test_forged_and_foreign_cookies_are_nobody(app):
    for value in ("", "x", "A" * 43, "../../etc", "é" * 43, "A" * 5000):
        client = browser(app)
        assert client.get("/accounts", headers={"Cookie": f"{COOKIE}={value}"}).status_code == 302
    remember = browser(app)
    remember.client.set_cookie("remember_token", "1|" + "0" * 128, domain="bank.test")
    assert remember.get("/accounts").status_code == 302


# Forms


def unsafe_routes(app):
    """What a browser can send; programs prove themselves with a token, which the tests of the API ask for."""
    for rule in app.url_map.iter_rules():
        if rule.rule.startswith("/api/"):
            continue
        for method in sorted(rule.methods - {"GET", "HEAD", "OPTIONS"}):
            yield method, re.sub(r"<uuid:[a-z_]+>", str(uuid.uuid4()), rule.rule)


def test_every_unsafe_route_refuses_a_missing_or_foreign_token(app, logged_in, client):
    routes = list(unsafe_routes(app))
    assert {path for _, path in routes} >= {"/login", "/logout", "/language", "/transfer"}
    other = browser(app).fields("/login")["csrf_token"]
    for method, path in routes:
        for data in ({}, {"csrf_token": "x"}, {"csrf_token": other}):
            response = logged_in.client.open(path, method=method, data=data, base_url=ORIGIN)
            assert response.status_code == 400, path
            assert "went wrong" not in response.get_data(as_text=True)
    assert logged_in.get("/accounts").status_code == 200


@pytest.mark.parametrize("origin", ["https://evil.test", "null", "https://bank.test.evil.test"])
def test_form_from_another_site_is_refused(logged_in, payer, payee, balance_of, origin):
    data = {**logged_in.fields("/transfer"), "from_account": str(payer.account), "to_number": payee.number}
    response = logged_in.post("/transfer", {**data, "amount": "1"}, headers={"Origin": origin})
    assert response.status_code == 400
    assert balance_of(payer.account) == 10_000
    response = logged_in.post("/transfer", {**data, "amount": "1"}, headers={"Origin": ORIGIN})
    assert response.status_code == 303


def test_nothing_changes_by_get(logged_in, payer):
    assert logged_in.get("/logout").status_code == 405
    assert logged_in.get("/accounts").status_code == 200


@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH", "TRACE", "BREW"])
def test_other_methods_are_refused(client, method):
    response = client.client.open("/accounts", method=method, base_url=ORIGIN)
    assert response.status_code == 405
    assert "GET" in response.headers["Allow"]


def test_too_large_a_form_is_refused(logged_in):
    assert logged_in.post("/login", {"email": "x" * 70_000}).status_code == 413


# Headers


def test_security_headers_on_every_answer(app, logged_in, client):
    paths = [rule.rule for rule in app.url_map.iter_rules() if "<" not in rule.rule]
    answers = [logged_in.get(path) for path in paths]
    answers += [browser(app).get(path) for path in paths]
    answers += [
        logged_in.get("/nothing/here"), logged_in.get("/static/bank.css"), logged_in.get("/static/none.css"),
        logged_in.get("/static/../config.py"), logged_in.post("/transfer", {}), logged_in.get("/accounts?before=x"),
        logged_in.get(f"/accounts/{uuid.uuid4()}"), logged_in.client.open("/login", method="PUT", base_url=ORIGIN),
    ]  # fmt: skip
    assert {answer.status_code for answer in answers} >= {200, 302, 400, 404, 405}
    for answer in answers:
        for name, value in security.HEADERS.items():
            assert answer.headers.getlist(name) == [value], answer.request.path
        assert re.fullmatch(r"[0-9a-f]{32}", answer.headers["X-Request-ID"])
        is_file = answer.request.path == "/static/bank.css"
        assert ("no-store" in answer.headers.get("Cache-Control", "")) is not is_file
        assert "Server" not in answer.headers


def test_pages_hold_nothing_that_the_policy_forbids(app, logged_in, payer, payee):
    send(logged_in, payer, payee)
    for path in ("/accounts", f"/accounts/{payer.account}", "/transfer", "/nothing"):
        page = logged_in.get(path).get_data(as_text=True)
        assert not re.search(r"<script|<style|\sstyle=|\son[a-z]+=|javascript:|https?://", page), path
        ids = re.findall(r'\sid="([^"]+)"', page)
        assert len(ids) == len(set(ids))
        for target in re.findall(r'<label for="([^"]+)"', page):
            assert target in ids
        assert page.count("<h1") == 1
        assert '<html lang="en">' in page


# Accounts and history


def test_account_of_somebody_else_does_not_exist(logged_in, payee):
    theirs = logged_in.get(f"/accounts/{payee.account}")
    nobodys = logged_in.get(f"/accounts/{uuid.uuid4()}")
    assert theirs.status_code == nobodys.status_code == 404
    scrub = re.compile(r"<code>[0-9a-f]{32}</code>")
    assert scrub.sub("", theirs.get_data(as_text=True)) == scrub.sub("", nobodys.get_data(as_text=True))


def test_money_of_somebody_else_cannot_be_sent(logged_in, make_customer, payer, balance_of):
    victim = make_customer(5_000)
    response = send(logged_in, victim, payer)
    assert response.status_code == 404
    assert balance_of(victim.account) == 5_000


@pytest.mark.parametrize("before", ["x", "-1", "1.5", "٣", "9" * 30, "1;drop"])
def test_history_refuses_a_strange_position(logged_in, payer, before):
    assert logged_in.get(f"/accounts/{payer.account}", query_string={"before": before}).status_code == 400


def test_history_shows_both_sides_and_pages(app, logged_in, payer, payee):
    for number in range(30):
        assert send(logged_in, payer, payee, f"0.{number + 1:02d}", reference=f"run {number}").status_code == 303
    page = logged_in.get(f"/accounts/{payer.account}").get_data(as_text=True)
    assert page.count("<tr>") == 26
    assert "Pete Payee" in page
    assert "run 29" in page
    assert "run 3<" not in page
    older = html.unescape(re.search(r'href="([^"]+before=[^"]+)"', page)[1])
    rest = logged_in.get(older).get_data(as_text=True)
    assert rest.count("<tr>") == 7
    assert "run 4 " in rest or "run 4<" in rest or "run 4\n" in rest
    other = browser(app)
    other.log_in(payee.email)
    theirs = other.get(f"/accounts/{payee.account}").get_data(as_text=True)
    assert "Paula Payer" in theirs
    assert "+0.30" in theirs
    assert payer.number not in theirs  # masked


def test_names_and_references_are_shown_as_text(app, make_customer):
    evil = make_customer(1_000, name="<b>Eve</b> {{7*7}}")
    friend = make_customer()
    client = browser(app)
    client.log_in(evil.email)
    send(client, evil, friend, reference="<script>alert(1)</script> ${x} 'q\"")
    page = client.get(f"/accounts/{evil.account}").get_data(as_text=True)
    assert "&lt;script&gt;" in page
    assert "<script" not in page
    assert "<b>Eve" not in page
    assert "{{7*7}}" in page


# Transfers


def test_transfer_moves_money_and_says_so(logged_in, payer, payee, balance_of):
    response = send(logged_in, payer, payee, "12.34", reference="Lunch")
    assert (response.status_code, response.location) == (303, f"/accounts/{payer.account}")
    page = logged_in.get(response.location).get_data(as_text=True)
    assert "12.34 EUR sent." in page
    assert "Lunch" in page
    assert (balance_of(payer.account), balance_of(payee.account)) == (8_766, 1_234)


def test_account_number_may_be_typed_with_spaces_and_small_letters(logged_in, payer, payee, balance_of):
    typed = " ".join(payee.number[i : i + 4] for i in range(0, 20, 4)).lower()
    assert send(logged_in, payer, payee, to_number=f" {typed} ").status_code == 303
    assert balance_of(payee.account) == 100


def test_sending_a_form_twice_moves_money_once(logged_in, payer, payee, balance_of):
    data = {
        **logged_in.fields("/transfer"),
        "from_account": str(payer.account), "to_number": payee.number, "amount": "10", "reference": "",
    }  # fmt: skip
    answers = [logged_in.post("/transfer", data) for _ in range(3)]
    assert {(answer.status_code, answer.location) for answer in answers} == {(303, f"/accounts/{payer.account}")}
    assert balance_of(payer.account) == 9_000
    other = logged_in.post("/transfer", {**data, "amount": "11"})
    assert other.status_code == 409
    assert "already been used" in other.get_data(as_text=True)
    assert balance_of(payer.account) == 9_000


def test_double_click_moves_money_once(app, logged_in, payer, payee, balance_of):
    data = {
        **logged_in.fields("/transfer"),
        "from_account": str(payer.account), "to_number": payee.number, "amount": "10", "reference": "",
    }  # fmt: skip
    start = threading.Barrier(8)

    def click(_):
        tab = browser(app)
        tab.client.set_cookie(COOKIE, logged_in.session_cookie, domain="bank.test")
        start.wait()
        return tab.post("/transfer", data).status_code

    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(click, range(8))) == {303}
    assert (balance_of(payer.account), balance_of(payee.account)) == (9_000, 1_000)


@pytest.mark.parametrize(
    "amount",
    ["", "NaN", "1e3", "+5", "-5", "0", "1.005", "9223372036854775808", "92233720368547758.08", "１２", "٣", "1,50",
     "Infinity", "0x1", "1" * 33, "5 EUR"],
)  # fmt: skip
def test_bad_amount_is_refused_with_a_reason(logged_in, payer, payee, balance_of, amount):
    response = send(logged_in, payer, payee, amount)
    assert response.status_code == 400
    assert 'id="amount-error"' in response.get_data(as_text=True)
    assert balance_of(payer.account) == 10_000


def test_refusals_keep_what_was_typed(logged_in, payer, payee, balance_of):
    for changes, status, words in (
        ({"amount": "100.01"}, 422, "not enough money"),
        ({"to_number": payer.number}, 422, "another account"),
        ({"to_number": "BK63 9999 9999 9999 9999"}, 400, "typing error"),
        ({"to_number": ""}, 400, "Enter an IBAN"),
        ({"reference": "x" * 141}, 400, "140"),
        ({"reference": "a\x00b"}, 400, "letters, digits"),
        ({"from_account": ""}, 400, "Choose an account"),
    ):
        response = send(logged_in, payer, payee, **({"amount": "5.55", "reference": "kept"} | changes))
        body = response.get_data(as_text=True)
        assert response.status_code == status, changes
        assert words in body, changes
        if "reference" not in changes:
            assert 'value="kept"' in body
    assert send(logged_in, payer, payee, key="").status_code == 400
    assert send(logged_in, payer, payee, key="x" * 256).status_code == 400
    assert balance_of(payer.account) == 10_000


def test_unknown_recipient(logged_in, payer, payee):
    from bank import account_numbers

    response = send(logged_in, payer, payee, to_number=account_numbers.make(4242))
    assert response.status_code == 422
    assert "no account with this IBAN" in response.get_data(as_text=True)


# Errors


def test_error_page_tells_a_reference_and_nothing_else(settings, owner, make_customer, capsys):
    app = create_app(settings)

    @app.get("/explode")
    @public
    def explode():
        raise RuntimeError("secret detail")

    response = browser(app).get("/explode")
    body = response.get_data(as_text=True)
    assert response.status_code == 500
    assert response.headers["X-Request-ID"] in body
    assert "secret detail" not in body
    assert "Traceback" not in body
    assert response.headers["Content-Security-Policy"]
    app.extensions["bank"].engine.dispose()


@pytest.mark.parametrize(
    ("status", "words"),
    [(400, "Go back"), (401, "Log in"), (403, "administrator"), (404, "Check the address"), (405, "Start again"),
     (413, "shorten"), (418, "Go back"), (429, "Wait"), (500, "history"), (503, "money is safe")],
)  # fmt: skip
def test_error_page_says_what_to_do_and_its_reference_finds_the_log_line(settings, owner, status, words):
    app = create_app(settings)

    @app.get("/fail")
    @public
    def fail():
        if status == 429:
            raise TooManyRequests(retry_after=7)
        abort(status)

    response = browser(app).get("/fail")
    body = html.unescape(response.get_data(as_text=True))
    assert response.status_code == status
    assert words in body[body.index("<main") :]
    reference = re.search(r"<code>([^<]+)</code>", body)[1]
    lines = [line for line in Path(settings.logging.path).read_text().splitlines() if reference in line]
    (answered,) = [line for line in map(json.loads, lines) if line["message"] == "request answered"]
    assert answered["http"]["request"]["id"] == reference
    assert answered["http"]["response"]["status_code"] == status
    assert response.headers.get("Retry-After") == ("7" if status == 429 else None)
    assert response.headers["Cache-Control"] == "no-store"
    assert not cookies(response)
    app.extensions["bank"].engine.dispose()


def test_forwarded_address_is_believed_from_the_proxy_only(settings, owner):
    from ipaddress import ip_address

    server = settings.server.model_copy(update={"trusted_proxies": (ip_address("127.0.0.9"),)})
    app = create_app(settings.model_copy(update={"server": server}))

    @app.get("/who")
    @public
    def who():
        from flask import request

        return f"{request.remote_addr} {request.scheme}"

    forged = {"X-Forwarded-For": "6.6.6.6, 203.0.113.7", "X-Forwarded-Proto": "https", "X-Request-ID": "chosen-by-me-1"}
    client = app.test_client()
    believed = client.get("/who", headers=forged, environ_base={"REMOTE_ADDR": "127.0.0.9"})
    assert believed.text == "203.0.113.7 https"
    assert believed.headers["X-Request-ID"] == "chosen-by-me-1"
    direct = client.get("/who", headers=forged, environ_base={"REMOTE_ADDR": "127.0.0.1"})
    assert direct.text == "127.0.0.1 http"
    assert direct.headers["X-Request-ID"] != "chosen-by-me-1"
    app.extensions["bank"].engine.dispose()
