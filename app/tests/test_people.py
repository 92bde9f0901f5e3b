"""Proving who one is: passwords, second factor, sign-up, lock-out and sessions."""

import html
import json
import re
import threading
import time
import uuid
from concurrent.futures import ThreadPoolExecutor

import bcrypt
import pyotp
import pytest
from sqlalchemy import text

from bank.app import create_app
from bank.config import load_settings
from bank.keys import Keyring, UnsealError
from bank.services import audit, passwords, second_factor, sign_ups, staffing, throttle, users
from bank.services.audit import Filter, Origin
from conftest import ORIGIN, PASSWORD, browser, configuration_text, free_port

NEW_PASSWORD = "seven green lamps on a pier"


def body(response):
    return html.unescape(response.get_data(as_text=True))


def submit(client, path, **fields):
    return client.post(path, {**client.fields(path), **fields})


def token(client):
    return re.search(r'name="csrf_token"[^>]* value="([^"]+)"', body(client.get("/security")))[1]


@pytest.fixture
def enrolled(app, client, make_customer, clock):
    """A customer with a second factor: who, an app, the recovery codes; the browser is still logged in."""
    who = make_customer(1_000)
    client.log_in(who.email)
    phone, codes = enrol(client, clock)
    clock.forward()
    return who, phone, codes


def enrol(client, clock, password=PASSWORD):
    page = body(client.get("/security/second-factor"))
    seed = re.search(r"<code>([A-Z2-7 ]+)</code>", page)[1].replace(" ", "")
    phone = pyotp.TOTP(seed)
    done = submit(client, "/security/second-factor", code=phone.at(clock.now), password=password)
    assert done.status_code == 200, body(done)
    return phone, re.findall(r"<code>([A-Z2-7]{6}(?:-[A-Z2-7]{6}){3})</code>", body(done))


def forget_attempts(app):
    redis = app.extensions["bank"].redis
    for key in redis.scan_iter(f"{throttle.PREFIX}*"):
        redis.delete(key)


def two_steps(client, email, code, password=PASSWORD):
    """Fill in the form of the answer to the first step, as a browser does."""
    first = client.log_in(email, password)
    assert first.status_code == 401
    given = re.findall(r'name="csrf_token"[^>]* value="([^"]+)"', body(first))
    return client.post("/login/code", {"csrf_token": given[-1], "code": code})


# Second factor


def test_log_in_in_two_steps(app, enrolled, clock):
    who, phone, _ = enrolled
    client = browser(app)
    assert client.log_in(who.email).status_code == 401
    before = client.session_cookie
    assert client.get("/accounts").status_code == 302  # the first step opens nothing
    response = submit(client, "/login/code", code=phone.at(clock.now))
    assert (response.status_code, response.location) == (303, "/accounts")
    assert client.session_cookie != before
    assert client.get("/accounts").status_code == 200


def test_nothing_tells_which_factor_was_wrong_or_whether_anybody_has_the_email(app, enrolled, make_customer, clock):
    who, phone, _ = enrolled
    plain, disabled = make_customer(), make_customer(enabled=False)
    wrong = f"{(int(phone.at(clock.now)) + 1) % 10**6:06d}"
    answers = set()
    for email, password, code in (
        (who.email, PASSWORD, wrong),
        (who.email, "wrong password", phone.at(clock.now)),
        (who.email, "wrong password", wrong),
        (plain.email, "wrong password", wrong),
        (disabled.email, PASSWORD, wrong),
        ("nobody@test.local", PASSWORD, wrong),
        (who.email, PASSWORD, "AAAAAA-AAAAAA-AAAAAA-AAAAAA"),
        ("nobody@test.local", PASSWORD, "AAAAAA-AAAAAA-AAAAAA-AAAAAA"),
    ):
        client = browser(app)
        first = client.log_in(email, password)
        second = submit(client, "/login/code", code=code)
        pages = [re.sub(r'value="[^"]*"', "", body(page)) for page in (first, second)]
        headers = [sorted(page.headers.keys()) for page in (first, second)]
        answers.add((first.status_code, second.status_code, *pages, str(headers)))
        assert client.get("/accounts").status_code == 302
        forget_attempts(app)
    assert len(answers) == 1
    assert answers.pop()[:2] == (401, 401)


def test_a_code_works_once_and_within_one_step(app, enrolled, clock):
    who, phone, _ = enrolled
    code = phone.at(clock.now)
    assert two_steps(browser(app), who.email, code).status_code == 303
    assert two_steps(browser(app), who.email, code).status_code == 401
    clock.forward(3)
    for steps, status in ((-2, 401), (2, 401), (-1, 303), (1, 303), (0, 401)):  # 0: earlier than one that was used
        assert two_steps(browser(app), who.email, phone.at(clock.now + 30 * steps)).status_code == status, steps
        forget_attempts(app)


def test_one_code_sent_to_two_instances_at_once_works_once(engine, app, enrolled, clock):
    who, phone, _ = enrolled
    keys, start = app.extensions["bank"].keys, threading.Barrier(6)

    def use(_):
        start.wait(20)
        return second_factor.use(engine, keys, who.id, phone.at(clock.now))

    with ThreadPoolExecutor(6) as pool:
        assert sorted(pool.map(use, range(6)), key=str) == [None] * 5 + ["totp"]


def test_recovery_codes_work_once_each_and_are_stored_as_hashes(app, owner, enrolled):
    who, _, codes = enrolled
    assert len(set(codes)) == 10
    assert two_steps(browser(app), who.email, codes[0].lower().replace("-", " ")).status_code == 303
    assert two_steps(browser(app), who.email, codes[0]).status_code == 401
    client = browser(app)
    assert two_steps(client, who.email, codes[9]).status_code == 303
    assert "codes left: 8" in body(client.get("/security"))
    with owner.connect() as connection:
        stored = repr(connection.execute(text("SELECT * FROM recovery_codes")).all())
    assert not any(code in stored or code.replace("-", "") in stored for code in codes)


def test_new_recovery_codes_need_a_code_and_replace_the_old(app, enrolled, client, clock):
    who, phone, old = enrolled
    assert submit(client, "/security/recovery-codes", code="000000").status_code == 422
    page = body(submit(client, "/security/recovery-codes", code=phone.at(clock.now)))
    new = re.findall(r"<code>([A-Z2-7-]{27})</code>", page)
    assert len(new) == 10
    assert two_steps(browser(app), who.email, old[1]).status_code == 401
    assert two_steps(browser(app), who.email, new[1]).status_code == 303


def test_enrolment_needs_the_password_and_a_right_code(client, make_customer, clock):
    who = make_customer()
    client.log_in(who.email)
    seed = re.search(r"<code>([A-Z2-7 ]+)</code>", body(client.get("/security/second-factor")))[1].replace(" ", "")
    code = pyotp.TOTP(seed).at(clock.now)
    wrong = f"{(int(code) + 1) % 10**6:06d}"
    assert submit(client, "/security/second-factor", code=code, password="wrong password").status_code == 422
    assert submit(client, "/security/second-factor", code=wrong, password=PASSWORD).status_code == 422
    page = client.get("/security/second-factor")
    assert seed in body(page).replace(" ", "")  # the same as before, so that the app need not scan again
    assert "<svg" in body(page)
    assert " style=" not in body(page)
    assert submit(client, "/security/second-factor", code=code, password=PASSWORD).status_code == 200
    assert client.get("/security/second-factor").location == "/security"


def test_setting_up_and_removing_the_second_factor_end_other_sessions(app, engine, make_customer, clock):
    who = make_customer()
    here, elsewhere = browser(app), browser(app)
    for client in (here, elsewhere):
        client.log_in(who.email)
    before = here.session_cookie
    enrol(here, clock)
    assert here.session_cookie != before
    assert here.get("/accounts").status_code == 200
    assert elsewhere.get("/accounts").status_code == 302
    admin = Origin(uuid.uuid4(), "203.0.113.9", "r")
    assert second_factor.remove(engine, who.id, admin)
    assert not second_factor.remove(engine, who.id, admin)
    assert here.get("/accounts").status_code == 302
    assert here.log_in(who.email).status_code == 303
    trail = [event.action for event in audit.read(engine, Filter(object_id=str(who.id))).events]
    assert trail == ["log-in", "second-factor-remove", "second-factor-enrol", "log-in", "log-in"]


def test_staff_must_set_the_second_factor_up_before_anything_else(settings, owner, make_staff, clock):
    login = settings.login.model_copy(update={"staff_second_factor": True})
    app = create_app(settings.model_copy(update={"login": login}))
    client = browser(app)
    assert client.log_in(make_staff("teller")[1]).status_code == 303
    for path in ("/security", "/security/password"):
        assert client.get(path).location == "/security/second-factor"
    page = body(client.get("/security/second-factor"))
    form = {"csrf_token": re.search(r'name="csrf_token"[^>]* value="([^"]+)"', page)[1]}
    assert client.post("/security/sessions/end-others", form).status_code == 403
    enrol(client, clock)
    assert client.get("/security").status_code == 200
    app.extensions["bank"].engine.dispose()


def test_staff_second_factor_is_the_default(servers, tmp_path):
    path = tmp_path / "bank.toml"
    path.write_text(configuration_text(servers).replace("[login]\nstaff_second_factor = false\n", ""))
    assert load_settings(path).login.staff_second_factor is True


def test_seeds_are_encrypted_for_their_owner_and_rotate(engine, owner, enrolled, app, clock):
    who, phone, _ = enrolled
    keys = app.extensions["bank"].keys
    with owner.connect() as connection:
        sealed = connection.execute(
            text("SELECT seed FROM second_factors WHERE user_id = :id"), {"id": who.id}
        ).scalar_one()
    assert phone.secret.encode() not in sealed
    assert keys.unseal(second_factor.PURPOSE, sealed, str(who.id)) == (phone.secret.encode(), True)
    for other_keys, subject in ((keys, uuid.uuid4()), (Keyring("another secret of some length!"), who.id)):
        with pytest.raises(UnsealError):
            other_keys.unseal(second_factor.PURPOSE, sealed, str(subject))
    new = "Another-Secret-9-Of-Enough-Length!"
    both, alone = Keyring(new, app.config["SECRET_KEY"]), Keyring(new)
    assert second_factor.use(engine, both, who.id, phone.at(clock.now)) == "totp"
    with owner.begin() as connection:  # those of other tests, so that the count is ours
        connection.execute(text("DELETE FROM second_factors WHERE user_id <> :id"), {"id": who.id})
    assert second_factor.seal_anew(engine, alone, Origin()) == (0, 1)
    assert second_factor.seal_anew(engine, both, Origin()) == (1, 0)
    assert second_factor.seal_anew(engine, both, Origin()) == (0, 0)
    clock.forward()
    assert second_factor.use(engine, alone, who.id, phone.at(clock.now)) == "totp"


def test_token_of_the_api_needs_the_code_as_well(app, enrolled, clock):
    who, phone, codes = enrolled
    api = browser(app).client

    def ask(password=PASSWORD, **more):
        body = {"email": who.email, "password": password, "scopes": ["accounts:read"], **more}
        return api.post("/api/v1/token", json=body, base_url=ORIGIN)

    refused = [ask(), ask(code="000000"), ask("wrong password", code=phone.at(clock.now))]
    assert {(answer.status_code, answer.json["detail"]) for answer in refused} == {
        (401, "The log-in data are wrong, or a code is needed.")
    }
    assert ask(code=phone.at(clock.now)).status_code == 201
    assert ask(code=phone.at(clock.now)).status_code == 401
    assert ask(code=codes[0]).status_code == 201
    for _ in range(5):
        assert ask("wrong password").status_code == 401
    blocked = ask(code=codes[1])
    assert blocked.status_code == 429
    assert blocked.headers["Retry-After"]
    assert browser(app).log_in(who.email).status_code == 429  # one counter for both


# Slowing down


@pytest.fixture
def counter():
    return throttle.Counter(f"test:{uuid.uuid4()}", 5, 30, 900)


def test_delays_begin_at_the_limit_and_double_but_end(app, counter):
    redis = app.extensions["bank"].redis
    for attempt in range(1, 6):
        assert throttle.reserve(redis, [counter]) == ([counter] if attempt == 5 else [])
    waits = []
    for _ in range(7):
        with pytest.raises(throttle.BlockedError) as blocked:
            throttle.reserve(redis, [counter])
        waits.append(blocked.value.seconds)
        redis.hset(throttle.PREFIX + counter.key, "open_at", 0)  # the time has passed
        throttle.reserve(redis, [counter])
    assert waits == [30, 60, 120, 240, 480, 900, 900]
    assert 0 < redis.ttl(throttle.PREFIX + counter.key) <= 3600
    throttle.forget(redis, counter)
    throttle.reserve(redis, [counter])


def test_attempts_at_once_do_not_pass_together(app, settings, counter):
    from bank.resources import make_redis

    instances = [make_redis(settings) for _ in range(3)]
    start = threading.Barrier(12)

    def attempt(number):
        start.wait(20)
        try:
            throttle.reserve(instances[number % 3], [counter])
        except throttle.BlockedError:
            return "blocked"
        return "tried"

    with ThreadPoolExecutor(12) as pool:
        outcomes = list(pool.map(attempt, range(12)))
    assert (outcomes.count("tried"), outcomes.count("blocked")) == (5, 7)


@pytest.mark.parametrize("known", [True, False])
def test_five_failures_slow_the_email_down_on_every_instance(app, settings, make_customer, known):
    email = make_customer().email if known else f"{uuid.uuid4().hex}@test.local"
    other = create_app(settings)
    for number in range(5):  # from a new address each, by turns on two instances
        assert browser((app, other)[number % 2]).log_in(email, "wrong password").status_code == 401
    for instance in (app, other):
        refused = browser(instance).log_in(email)
        assert refused.status_code == 429
        assert 0 < int(refused.headers["Retry-After"]) <= 30
        assert "Too many attempts" in body(refused)
    other.extensions["bank"].engine.dispose()


def test_strangers_lock_out_neither_a_known_browser_nor_a_session(app, make_customer):
    who = make_customer()
    home = browser(app)
    home.log_in(who.email)
    for _ in range(5):
        browser(app).log_in(who.email, "wrong password")
    assert browser(app).log_in(who.email).status_code == 429
    assert home.get("/accounts").status_code == 200
    home.log_out()
    assert home.log_in(who.email).status_code == 303
    stolen = browser(app)  # the mark of a browser is good for its own person only
    mark = home.client.get_cookie("__Host-bank-device", domain="bank.test").value
    other = make_customer()
    for _ in range(5):
        browser(app).log_in(other.email, "wrong password")
    stolen.client.set_cookie("__Host-bank-device", mark, domain="bank.test")
    assert stolen.log_in(other.email).status_code == 429


def test_success_forgets_the_failures_of_the_email_but_not_those_of_the_address(app, make_customer):
    who, redis = make_customer(), app.extensions["bank"].redis
    client = browser(app)
    for _ in range(3):
        client.log_in(who.email, "wrong password")
    assert client.log_in(who.email).status_code == 303
    address = client.client.environ_base["REMOTE_ADDR"]
    assert redis.hget(f"{throttle.PREFIX}log-in:address:{address}/32", "count") == b"3"
    client.log_out()
    client.client.delete_cookie("__Host-bank-device", domain="bank.test")
    for _ in range(4):
        assert client.log_in(who.email, "wrong password").status_code == 401
    assert client.log_in(who.email).status_code == 303


def test_one_address_that_tries_many_emails_is_slowed_down(app):
    client = browser(app)
    statuses = [client.log_in(f"{uuid.uuid4().hex}@test.local", "x").status_code for _ in range(21)]
    assert statuses == [401] * 20 + [429]


def test_codes_count_as_attempts(app, enrolled):
    client = browser(app)
    assert client.log_in(enrolled[0].email).status_code == 401
    statuses = [submit(client, "/login/code", code="12345x").status_code for _ in range(5)]
    assert statuses == [401] * 4 + [429]


def test_counters_hold_no_email(app, make_customer):
    who = make_customer()
    browser(app).log_in(who.email, "wrong password")
    redis = app.extensions["bank"].redis
    assert not [key for key in redis.scan_iter("*") if who.email.encode() in key]


def test_without_redis_nobody_logs_in_and_a_page_says_so(servers, owner, tmp_path, make_customer):
    path = tmp_path / "bank.toml"
    text_ = configuration_text(servers, log=str(tmp_path / "bank.json"))
    path.write_text(text_.replace(f"port = {servers.redis_port}", f"port = {free_port()}"))
    app = create_app(load_settings(path))
    client, who = browser(app), make_customer()
    client.client.set_cookie("__Host-bank-session", "A" * 43, domain="bank.test")
    form = {"email": who.email, "password": PASSWORD, "csrf_token": "x"}
    answers = [client.get(path) for path in ("/login", "/sign-up", "/accounts")]
    for response in (*answers, client.post("/login", form)):
        assert response.status_code == 503
        assert response.headers["Retry-After"] == "10"
        assert "Your money is safe" in body(response)
    assert client.get("/health").status_code == 200
    app.extensions["bank"].engine.dispose()


def test_counter_that_fails_in_the_middle_lets_nobody_in(app, client, make_customer, monkeypatch):
    from redis.exceptions import ConnectionError as RedisConnectionError

    def fail(*_):
        raise RedisConnectionError("gone")

    who = make_customer()
    monkeypatch.setattr(throttle, "reserve", fail)
    assert client.log_in(who.email).status_code == 503
    assert client.get("/accounts").status_code == 302


# Passwords


@pytest.mark.parametrize(
    ("password", "words"),
    [
        ("short enough", None), ("eleven char", "12 characters"), ("x" * 1025, "1024"),
        ("correct horse battery " * 40, None), ("pässwörter mögen €uro ☃", None), ("   spaces count too   ", None),
        ("passwordpassword", "easy to guess"), ("Password123456", "easy to guess"),
        ("P@ssw0rd!P@ssw0rd", "easy to guess"), ("P@$$w0rd-2026!", "easy to guess"), ("4dm1n1str4t0r", "easy to guess"),
        ("qwertyuiopasdf", "easy to guess"), ("123456789012", "easy to guess"), ("aaaaaaaaaaaaa", "easy to guess"),
        ("LindenBank2026!", "easy to guess"), ("welcome-to-bank", None), ("azertyuiop12", "easy to guess"),
        ("Someone@Example.org 1", "email"), ("my name is someone", "email"),
    ],
)  # fmt: skip
def test_rules_for_new_passwords(password, words):
    if words is None:
        passwords.check_new(password, "someone@example.org")
        return
    with pytest.raises(passwords.PasswordError, match=words):
        passwords.check_new(password, "someone@example.org")


def test_nothing_of_a_long_password_is_cut_off():
    long = "€" * 1023
    assert not passwords.matches(passwords.make_hash(long + "a"), long + "b")


def test_changing_the_password_ends_all_other_sessions(app, make_customer, engine):
    who = make_customer()
    here, elsewhere = browser(app), browser(app)
    for client in (here, elsewhere):
        client.log_in(who.email)
    assert submit(here, "/security/password", current="wrong password", new=NEW_PASSWORD).status_code == 422
    assert submit(here, "/security/password", current=PASSWORD, new="password1234").status_code == 422
    assert elsewhere.get("/accounts").status_code == 200
    before = here.session_cookie
    assert submit(here, "/security/password", current=PASSWORD, new=NEW_PASSWORD).status_code == 303
    assert here.session_cookie != before
    assert here.get("/accounts").status_code == 200
    assert elsewhere.get("/accounts").status_code == 302
    assert browser(app).log_in(who.email).status_code == 401
    assert browser(app).log_in(who.email, NEW_PASSWORD).status_code == 303
    assert "password-change" in [e.action for e in audit.read(engine, Filter(actor_id=who.id)).events]


def test_guessing_the_current_password_in_a_stolen_session_is_slowed_down(client, make_customer):
    client.log_in(make_customer().email)
    answers = [
        submit(client, "/security/password", current=f"wrong {n}", new=NEW_PASSWORD).status_code for n in range(6)
    ]
    assert answers == [422] * 5 + [429]


@pytest.mark.parametrize("password", [PASSWORD, "p" * 71 + "é and what bcrypt never saw"])
def test_imported_hash_is_accepted_and_renewed(app, owner, make_customer, password):
    who = make_customer()
    imported = bcrypt.hashpw(password.encode()[:72], bcrypt.gensalt(4)).decode()
    with owner.begin() as connection:
        connection.execute(
            text("UPDATE users SET password_hash = :hash WHERE id = :id"), {"hash": imported, "id": who.id}
        )
    assert browser(app).log_in(who.email, "wrong password").status_code == 401
    assert browser(app).log_in(who.email, password).status_code == 303
    with owner.connect() as connection:
        stored = connection.execute(text("SELECT password_hash FROM users WHERE id = :id"), {"id": who.id}).scalar()
    assert stored.startswith("$argon2id$")
    assert passwords.matches(stored, password)
    assert not passwords.matches(stored, password[:-1])


# Sign-up


def sign_up(app, address, **changes):
    form = {"display_name": "Nia Newcomer", "email": address, "password": NEW_PASSWORD}
    return submit(browser(app), "/sign-up", **(form | changes))


def test_sign_up_waits_for_approval_and_opens_an_account(app, engine):
    email = f"{uuid.uuid4().hex}@new.local"
    assert sign_up(app, email.upper()).location == "/login"
    assert browser(app).log_in(email, NEW_PASSWORD).status_code == 401
    waiting = next(found for found in sign_ups.pending_sign_ups(engine) if found.email == email)
    assert (waiting.display_name, waiting.rivals, waiting.email_known) == ("Nia Newcomer", 0, False)
    staff = Origin(uuid.uuid4(), "203.0.113.9", "r")
    customer = sign_ups.approve_sign_up(engine, waiting.id, staff)
    for decide in (sign_ups.approve_sign_up, sign_ups.reject_sign_up):
        with pytest.raises(sign_ups.SignUpNotFoundError):
            decide(engine, waiting.id, staff)
    client = browser(app)
    assert client.log_in(email, NEW_PASSWORD).status_code == 303
    assert "Everyday account" in body(client.get("/accounts"))
    event = audit.read(engine, Filter(object_id=str(customer), action="sign-up-approve")).events[0]
    assert event.actor_id == staff.actor_id


def test_known_email_gets_the_same_answer_and_work(app, engine, make_customer, monkeypatch):
    hashed = []
    real = passwords.make_hash
    monkeypatch.setattr(passwords, "make_hash", lambda password: hashed.append(1) or real(password))
    who = make_customer()
    answers = []
    for email in (who.email, f"{uuid.uuid4().hex}@new.local"):
        response = sign_up(app, email)
        answers.append((response.status_code, response.location, response.get_data()))
    assert answers[0] == answers[1]
    assert len(hashed) == 2
    waiting = next(found for found in sign_ups.pending_sign_ups(engine) if found.email == who.email)
    assert waiting.email_known
    with pytest.raises(users.EmailTakenError):
        sign_ups.approve_sign_up(engine, waiting.id, Origin())
    sign_ups.reject_sign_up(engine, waiting.id, Origin())
    assert not [found for found in sign_ups.pending_sign_ups(engine) if found.email == who.email]


def test_sign_up_sent_twice_asks_once_and_rivals_are_shown(app, engine):
    email = f"{uuid.uuid4().hex}@new.local"
    client = browser(app)
    data = {**client.fields("/sign-up"), "display_name": "N", "email": email, "password": NEW_PASSWORD}
    assert {client.post("/sign-up", data).status_code for _ in range(2)} == {303}
    assert len([found for found in sign_ups.pending_sign_ups(engine) if found.email == email]) == 1
    sign_up(app, email)
    both = [found for found in sign_ups.pending_sign_ups(engine) if found.email == email]
    assert [found.rivals for found in both] == [1, 1]
    sign_ups.approve_sign_up(engine, both[1].id, Origin())
    assert not [found for found in sign_ups.pending_sign_ups(engine) if found.email == email]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"password": "too short"}, "12 characters"),
        ({"email": "nobody"}, "email address"),
        ({"display_name": ""}, "name"),
        ({"key": "x"}, "Reload"),
        ({"email": "a\x00@b.c"}, "letters, digits"),
        ({"password": "nul \x00 in the middle"}, "letters, digits"),
    ],
)
def test_sign_up_refuses_with_a_reason(app, changes, words):
    response = sign_up(app, "someone@new.local", **changes)
    assert response.status_code == 400
    assert words in body(response)


def test_many_sign_ups_from_one_address_are_slowed_down(app, monkeypatch):
    monkeypatch.setattr(sign_ups, "ask", lambda *_, **__: None)
    client = browser(app)
    form = {"display_name": "N", "email": "x@new.local", "password": NEW_PASSWORD}
    statuses = [submit(client, "/sign-up", **form).status_code for _ in range(6)]
    assert statuses == [303] * 5 + [429]


# Sessions


def test_sessions_are_listed_and_ended(app, make_customer):
    who, stranger = make_customer(), browser(app)
    stranger.log_in(make_customer().email)
    tabs = [browser(app) for _ in range(3)]
    agent = "Mozilla/5.0 (Windows NT 10.0) Gecko/20100101 Firefox/140.0"
    tabs[1].client.environ_base["HTTP_USER_AGENT"] = agent
    for tab in tabs:
        tab.log_in(who.email)
    page = body(tabs[0].get("/security"))
    names = re.findall(r'name="session" value="([0-9a-f]{64})"', page)
    assert len(names) == 2
    assert "Firefox, Windows" in page
    assert page.count("This session") == 1
    form = {"csrf_token": token(stranger), "session": names[0]}
    assert stranger.post("/security/sessions/end", form).status_code == 404
    here = token(tabs[0])
    assert tabs[0].post("/security/sessions/end", {"csrf_token": here, "session": names[0]}).status_code == 303
    assert sorted(tab.get("/accounts").status_code for tab in tabs) == [200, 200, 302]
    assert tabs[0].post("/security/sessions/end", {"csrf_token": here, "session": names[0]}).status_code == 404
    assert tabs[0].post("/security/sessions/end-others", {"csrf_token": here}).status_code == 303
    assert [tab.get("/accounts").status_code for tab in tabs] == [200, 302, 302]
    assert stranger.get("/accounts").status_code == 200


def test_session_that_only_reads_remembers_when_it_was_used(app, client, make_customer, monkeypatch):
    from bank import sessions

    who = make_customer()
    client.log_in(who.email)
    directory, now = sessions.SessionDirectory(app.extensions["bank"].redis), time.time()
    monkeypatch.setattr(sessions.time, "time", lambda: now + 120)
    client.get("/accounts")
    found = directory.of(str(who.id))
    assert [round((view.last_used - view.since).total_seconds(), -1) for view in found] == [120]


def test_disabled_people_are_out_at_once_and_do_not_come_back_by_an_old_session(app, engine, client, make_customer):
    who, admin = make_customer(), Origin(uuid.uuid4(), "", "")
    client.log_in(who.email)
    staffing.set_enabled(engine, admin, who.id, enabled=False)
    assert client.get("/accounts").status_code == 302
    assert browser(app).log_in(who.email).status_code == 401
    staffing.set_enabled(engine, admin, who.id, enabled=True)
    assert client.get("/accounts").status_code == 302
    assert browser(app).log_in(who.email).status_code == 303


# Nothing leaks


CANARY = "canary7f3e"


def test_what_people_type_is_in_no_log_metric_or_error_page(servers, owner, tmp_path, make_customer, clock):
    """Goes through every form with marked values and looks for them in all that the run left behind."""
    path = tmp_path / "bank.toml"
    more = '[webhook]\nsecret = "a-secret-of-monitoring"'
    path.write_text(configuration_text(servers, log=str(tmp_path / "bank.json"), more=more))
    app = create_app(load_settings(path))
    who, pages = make_customer(1_000), []
    secrets = {CANARY, PASSWORD, who.email, who.number, NEW_PASSWORD}
    client = browser(app)
    client.log_in(who.email)
    phone, codes = enrol(client, clock)
    clock.forward()
    secrets |= {phone.secret, *codes, client.session_cookie, token(client)}
    forms = {}
    for _, method, route in routes(app):
        if method == "GET":
            for visitor in (client, browser(app)):
                page = body(visitor.get(route))
                forms |= {
                    (route, field): None for field in re.findall(r'<(?:input|select)[^>]* name="([^"]+)"', page)
                    if field not in {"csrf_token", "key"}
                }  # fmt: skip
    assert {field for _, field in forms} >= {"email", "password", "code", "amount", "reference", "new", "display_name"}
    marked = (f"{CANARY}@x.y", who.number, f"{CANARY} password", phone.at(clock.now), codes[0], client.session_cookie)
    for _, method, route in routes(app):
        if method != "POST" or route == "/logout":
            continue
        fields = {field for found, field in forms} | {"key"}
        for visitor in (client, browser(app)):
            visitor.client.environ_base["REMOTE_ADDR"] = "10.9.9.9"
            given = token_of(visitor)
            for value in marked:
                answer = visitor.post(route, {**dict.fromkeys(fields, value), "csrf_token": given})
                assert answer.status_code < 500, route
                if "Back to the start" in body(answer):  # an error page, not a form with what was typed
                    pages.append(body(answer))
        client.client.get(f"{route}?q={CANARY}", base_url=ORIGIN)
        pages.append(body(client.post(route, {"csrf_token": f"{CANARY}", "email": who.email})))
    two_steps(browser(app), who.email, codes[3])
    secrets |= {phone.at(clock.now)}
    log = (tmp_path / "bank.json").read_text()
    shown = "\n".join([log, body(client.get("/metrics")), *pages])
    assert len(log.splitlines()) > 100
    assert len(pages) > 20
    for line in log.splitlines():
        json.loads(line)
    assert [secret for secret in secrets if re.search(rf"(?<![0-9a-f]){re.escape(secret)}(?![0-9a-f])", shown)] == []
    app.extensions["bank"].engine.dispose()


def routes(app):
    for rule in app.url_map.iter_rules():
        for method in sorted(rule.methods - {"HEAD", "OPTIONS"}):
            yield rule.endpoint, method, re.sub(r"<[a-z]+:[a-z_]+>", str(uuid.uuid4()), rule.rule)


def token_of(client):
    """Return a token of the session; a page's is good for all forms until the session is another."""
    page = client.get("/login")
    if page.status_code == 302:
        page = client.get("/security")
    return re.search(r'name="csrf_token"[^>]* value="([^"]+)"', body(page))[1]
