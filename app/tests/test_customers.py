"""What customers find and keep: search in the history, beneficiaries, notifications."""

import html
import re
import time
import uuid
from datetime import UTC, datetime, timedelta

import pyotp
import pytest
from sqlalchemy import insert, select, text
from sqlalchemy.exc import DBAPIError

from bank.models import Account, JournalEntry, Posting
from bank.services import accounts, beneficiaries, notifications
from bank.services.notifications import Kind
from conftest import PASSWORD, browser

DAY = datetime(2026, 3, 1, 12, tzinfo=UTC)


@pytest.fixture
def payer(make_customer):
    return make_customer(1_000_000, name="Paula Payer")


@pytest.fixture
def write(owner):
    """Book entries against the bank's own account: one after the other, a day apart."""

    def book(account, entries):
        with owner.begin() as connection:
            settlement = connection.execute(
                select(Account.id).where(Account.kind == "internal", Account.currency == "EUR")
            ).scalar_one()
            rows, legs = [], []
            for number, (kind, amount, counterparty, reference) in enumerate(entries):
                entry = uuid.uuid4()
                rows.append({"id": entry, "kind": kind, "currency": "EUR", "counterparty": counterparty,
                             "reference": reference, "booked_at": DAY + timedelta(days=number)})  # fmt: skip
                legs.append({"entry_id": entry, "account_id": account, "amount_minor": amount})
                legs.append({"entry_id": entry, "account_id": settlement, "amount_minor": -amount})
            connection.execute(insert(JournalEntry), rows)
            connection.execute(insert(Posting), legs)

    return book


def pay(client, payer, payee, amount="1.00", reference=""):
    data = {"from_account": str(payer.account), "to_number": payee.number, "amount": amount, "reference": reference}
    response = client.post("/transfer", {**client.fields("/transfer"), **data})
    assert response.status_code == 303
    return response


# Search


def found(engine, account, **wanted):
    page = accounts.history(engine, account, search=accounts.Search(**wanted))
    assert page.next_before is None
    return [movement.reference for movement in page.movements]


def test_search_finds_what_was_asked_for(engine, payer, write):
    write(payer.account, [("payment", -1_000, "Corner Bakery", "bread"), ("payment", -2_500, "Bücher & Mehr", "100%"),
                          ("salary", 300_000, "Corner Works", "March"), ("interest", 7, "", "ÉTÉ_1")])  # fmt: skip
    account = payer.account
    assert found(engine, account, text="corner") == ["March", "bread"]
    assert found(engine, account, text="BÜCHER") == ["100%"]
    assert found(engine, account, text="0%") == ["100%"]
    assert found(engine, account, text="été_") == ["ÉTÉ_1"]
    assert found(engine, account, text="_") == ["ÉTÉ_1"]
    assert found(engine, account, kind="payment") == ["100%", "bread"]
    assert found(engine, account, least_minor=1_000, most_minor=2_500) == ["100%", "bread"]
    assert found(engine, account, most_minor=999) == ["ÉTÉ_1"]
    assert found(engine, account, since=DAY.date(), until=DAY.date()) == ["bread"]
    assert found(engine, account, since=DAY.date() + timedelta(days=3)) == ["ÉTÉ_1", ""]
    assert found(engine, account, text="corner", kind="salary", least_minor=300_000) == ["March"]
    assert found(engine, account, text="'; DROP TABLE users; --") == []


def test_search_finds_the_other_side_by_name_and_number(engine, logged_in, payer, payee):
    pay(logged_in, payer, payee, reference="to Pete")
    grouped = " ".join(payee.number[start : start + 4] for start in range(0, 20, 4)).lower()
    for words in ("pete pay", payee.number, payee.number[-4:], grouped):
        assert found(engine, payer.account, text=words) == ["to Pete"], words
    assert found(engine, payee.account, text="paula") == ["to Pete"]


def test_search_looks_through_a_window_and_goes_on_without_gap_or_repetition(engine, payer, write, monkeypatch):
    monkeypatch.setattr(accounts, "WINDOW", 10)
    write(payer.account, [("payment", -100 - number, "Shop", str(number)) for number in range(40)])
    wanted = accounts.Search(text="shop", most_minor=130)
    seen, before, cuts = [], None, 0
    for _ in range(20):
        page = accounts.history(engine, payer.account, before, length=4, search=wanted)
        seen += [int(movement.reference) for movement in page.movements]
        cuts += page.is_cut
        if page.next_before is None:
            break
        before = page.next_before
        write(payer.account, [("payment", -100, "Shop", "late")])  # arrives between two pages
    assert seen == list(range(30, -1, -1))
    assert cuts


def test_search_reads_a_range_of_the_index_only(engine, payer, write):
    write(payer.account, [("payment", -100, "Shop", "")])
    with engine.begin() as connection:
        connection.execute(text("SET LOCAL enable_seqscan = off"))
        plan = "\n".join(
            connection.execute(
                text(
                    "EXPLAIN "
                    + accounts.MOVEMENTS.format(conditions=accounts._WINDOW.format(more=f" AND {accounts._TEXT}"))
                ),
                {"account_id": payer.account, "before": 9, "floor": 1, "length": 9, "text": "x", "number": "X"},
            ).scalars()
        )
    assert "uq_postings_account_id_version" in plan
    assert re.search(r"Index Cond:.*account_id = .*version < .*version >= ", plan)


def test_search_page_keeps_what_was_asked_for_in_its_links(logged_in, payer, write):
    write(payer.account, [("payment", -200, "Shop", f"visit {number}") for number in range(30)])
    path = f"/accounts/{payer.account}"
    page = logged_in.get(path, query_string={"text": "visit", "kind": "payment", "least": "2.00"}).get_data(True)
    assert page.count("visit 2") == 10
    older = html.unescape(re.search(r'href="([^"]+before=[^"]+)"', page)[1])
    assert {"text=visit", "kind=payment", "least=2.00"} <= set(older.split("?")[1].split("&"))
    rest = logged_in.get(older).get_data(as_text=True)
    assert rest.count("<tr>") == 1 + 5
    assert "Nothing found" in logged_in.get(path, query_string={"text": "nowhere"}).get_data(as_text=True)


@pytest.mark.parametrize(
    ("asked", "field"),
    [({"least": "x"}, "least"), ({"most": "1,5"}, "most"), ({"since": "2026-13-01"}, "since"),
     ({"kind": "theft"}, "kind"),
     ({"text": "a\x00b"}, "text"), ({"text": "x" * 141}, "text")],
)  # fmt: skip
def test_search_says_what_it_does_not_understand(logged_in, payer, asked, field):
    response = logged_in.get(f"/accounts/{payer.account}", query_string=asked)
    assert response.status_code == 400
    assert f'id="{field}-error"' in response.get_data(as_text=True)


# Review before a transfer


def test_transfer_is_reviewed_and_confirmed_with_one_key(app, logged_in, payer, payee, balance_of):
    assert 'action="/transfer/review"' in logged_in.get("/transfer").get_data(as_text=True)
    typed = {**logged_in.fields("/transfer"), "from_account": str(payer.account),
             "to_number": payee.number.lower(), "amount": "12.30", "reference": "a & b"}  # fmt: skip
    page = logged_in.post("/transfer/review", typed).get_data(as_text=True)
    assert "12.30 EUR" in page
    assert "9,987.70 EUR" in page
    assert balance_of(payee.account) == 0
    main = page[page.index("<main") :]
    fields = {
        name: html.unescape(value)
        for name, value in re.findall(r'name="(\w+)"(?: type="hidden")? value="([^"]*)"', main)
    }
    change = fields.pop("change")
    assert fields["key"] == typed["key"]
    back = logged_in.post("/transfer/review", {**fields, "change": change}).get_data(as_text=True)
    assert 'value="a &amp; b"' in back
    assert typed["key"] in back
    for _ in range(2):
        assert logged_in.post("/transfer", fields).status_code == 303
    assert balance_of(payee.account) == 1_230
    assert logged_in.get("/transfer/review").location == "/transfer"


def test_review_refuses_what_the_transfer_would_refuse(logged_in, payer, payee, balance_of):
    from bank import account_numbers

    typed = {**logged_in.fields("/transfer"), "from_account": str(payer.account), "to_number": payee.number,
             "amount": "1", "reference": ""}  # fmt: skip
    for change, status, words in (
        ({"amount": "10000.01"}, 422, "not enough money"),
        ({"to_number": account_numbers.make(4244)}, 422, "no account"),
        ({"to_number": payer.number}, 422, "another account"), ({"amount": "x"}, 400, "in digits"),
        ({"from_account": str(payee.account)}, 404, "not yours"),
    ):  # fmt: skip
        response = logged_in.post("/transfer/review", typed | change)
        assert response.status_code == status, change
        assert words in response.get_data(as_text=True), change
    # Refusals burn no key.
    assert logged_in.post("/transfer", typed).status_code == 303


def test_frozen_account_says_so_and_sends_nothing(engine, logged_in, payer, payee, balance_of):
    typed = {**logged_in.fields("/transfer"), "from_account": str(payer.account), "to_number": payee.number,
             "amount": "1", "reference": ""}  # fmt: skip
    with engine.begin() as connection:
        connection.execute(text("SELECT set_account_frozen(:id, true)"), {"id": payer.account})
    for path in ("/transfer/review", "/transfer"):
        response = logged_in.post(path, typed)
        assert response.status_code == 422
        assert "frozen" in response.get_data(as_text=True)
    assert "Frozen" in logged_in.get("/accounts").get_data(as_text=True)
    assert "Transfer from here" not in logged_in.get(f"/accounts/{payer.account}").get_data(as_text=True)
    assert balance_of(payee.account) == 0


# Beneficiaries


def add(client, name, number):
    form = {**client.fields("/beneficiaries"), "name": name, "number": number, "password": PASSWORD}
    return client.post("/beneficiaries", form)


def test_beneficiary_is_added_once_used_and_removed(app, engine, logged_in, payer, payee):
    spaced = " ".join(payee.number[start : start + 4] for start in range(0, 20, 4)).lower()
    assert add(logged_in, "Pete <b>", spaced).status_code == 303
    assert add(logged_in, "Pete again", payee.number).status_code == 303
    (saved,) = beneficiaries.list_of(engine, payer.id)
    assert (saved.name, saved.number) == ("Pete <b>", payee.number)
    page = logged_in.get("/beneficiaries").get_data(as_text=True)
    assert "Pete &lt;b&gt;" in page
    form = logged_in.get("/transfer", query_string={"to": str(saved.id)}).get_data(as_text=True)
    assert payee.number in form.replace(" ", "")
    token = logged_in.fields("/beneficiaries")["csrf_token"]
    stranger = browser(app)
    stranger.log_in(payee.email)
    theirs = {"csrf_token": stranger.fields("/beneficiaries")["csrf_token"]}
    assert stranger.post(f"/beneficiaries/{saved.id}/remove", theirs).status_code == 404
    assert "Pete &lt;b" not in stranger.get("/transfer", query_string={"to": str(saved.id)}).get_data(as_text=True)
    assert logged_in.post(f"/beneficiaries/{saved.id}/remove", {"csrf_token": token}).status_code == 303
    assert beneficiaries.list_of(engine, payer.id) == []


def test_beneficiary_must_be_an_account_of_somebody_else(logged_in, payer, payee):
    from bank import account_numbers

    wrong = payee.number[:-1] + str((int(payee.number[-1]) + 1) % 10)
    for name, number, status in (
        ("Nobody", account_numbers.make(4243), 422), ("Myself", payer.number, 422), ("Typing error", wrong, 400),
        ("", payee.number, 400), ("x" * 71, payee.number, 400), ("a\nb", payee.number, 400),
    ):  # fmt: skip
        assert add(logged_in, name, number).status_code == status, name


def test_new_beneficiary_needs_the_password(engine, logged_in, payer, payee):
    assert "Your password" in logged_in.get("/beneficiaries").get_data(as_text=True)
    for given in ("", "wrong"):
        form = {**logged_in.fields("/beneficiaries"), "name": "Pete", "number": payee.number, "password": given}
        response = logged_in.post("/beneficiaries", form)
        assert response.status_code == 403
        assert 'id="password-error"' in response.get_data(as_text=True)
    assert beneficiaries.list_of(engine, payer.id) == []
    assert logged_in.post("/beneficiaries", {**form, "password": PASSWORD}).status_code == 303
    # What is there already needs no proof to be answered again.
    assert logged_in.post("/beneficiaries", {**form, "password": ""}).status_code == 303
    assert len(beneficiaries.list_of(engine, payer.id)) == 1


def test_new_beneficiary_needs_the_second_factor_where_there_is_one(app, engine, client, make_customer, payee):
    from bank.services import audit, second_factor

    owner = make_customer()
    seed = second_factor.new_seed()
    step = int(time.time()) // 30
    code = pyotp.TOTP(seed).generate_otp
    keys = app.extensions["bank"].keys
    second_factor.enrol(engine, keys, owner.id, seed=seed, code=code(step - 1), origin=audit.Origin(owner.id))
    assert client.log_in(owner.email).status_code == 401
    assert client.post("/login/code", {**client.fields("/login/code"), "code": code(step)}).status_code == 303
    form = {**client.fields("/beneficiaries"), "name": "Pete", "number": payee.number}
    for given, status in (({"password": PASSWORD}, 403), ({"code": code(step)}, 403), ({"code": code(step + 1)}, 303)):
        assert client.post("/beneficiaries", {**form, **given}).status_code == status, given
    kinds_seen = {kind for kind, _ in kinds(engine, owner.id)}
    assert {Kind.SECOND_FACTOR_ON, Kind.LOG_IN, Kind.BENEFICIARY_ADDED} <= kinds_seen


def test_list_of_beneficiaries_has_an_end(logged_in, payer, payee, monkeypatch):
    monkeypatch.setattr(beneficiaries, "MAX_COUNT", 0)
    response = add(logged_in, "Pete", payee.number)
    assert response.status_code == 422
    assert "list is full" in response.get_data(as_text=True)


# Notifications


def kinds(engine, user_id):
    return [(item.kind, item.is_new) for item in notifications.latest(engine, user_id)[0]]


def test_money_that_comes_in_is_news_until_it_was_seen(app, engine, logged_in, payer, payee, owner):
    pete = browser(app)
    pete.log_in(payee.email)
    before, sender = notifications.count_new(engine, payee.id), notifications.count_new(engine, payer.id)
    pay(logged_in, payer, payee, "12.34")
    assert notifications.count_new(engine, payer.id) == sender
    assert notifications.count_new(engine, payee.id) == before + 1
    assert (Kind.MONEY_IN, True) in kinds(engine, payee.id)
    page = pete.get("/notifications").get_data(as_text=True)
    assert "12.34 EUR came in on Everyday." in page
    fields = re.findall(r'name="(csrf_token|last|seen)" value="([^"]+)"', page[page.index("<main") :])
    # What comes after the page was made stays new, however often its form is sent.
    pay(logged_in, payer, payee, "0.01")
    with engine.begin() as connection:
        notifications.tell(connection, payee.id, Kind.ACCOUNT_FROZEN, account="Everyday")
    for _ in range(2):
        assert pete.post("/notifications/read", dict(fields)).status_code == 303
        assert notifications.count_new(engine, payee.id) == 2


def test_transfer_writes_nothing_for_notifications(engine, logged_in, payer, payee, owner):
    def rows():
        with owner.connect() as connection:
            return connection.execute(
                text("SELECT (SELECT count(*) FROM notifications), (SELECT count(*) FROM seen_postings)")
            ).one()

    before = rows()
    pay(logged_in, payer, payee)
    assert rows() == before


def test_notifications_of_somebody_else_stay_unread(app, engine, logged_in, payer, payee):
    pay(logged_in, payer, payee)
    with engine.begin() as connection:
        notifications.tell(connection, payee.id, Kind.ACCOUNT_FROZEN, account="Everyday")
    theirs = notifications.count_new(engine, payee.id)
    token = logged_in.fields("/beneficiaries")["csrf_token"]
    forged = {"csrf_token": token, "last": str(10**17), "seen": f"{payee.account}:{10**17}"}
    assert logged_in.post("/notifications/read", forged).status_code == 303
    assert notifications.count_new(engine, payee.id) == theirs
    for wrong in ({"last": "x"}, {"last": "1", "seen": "x"}, {"last": "1", "seen": f"{payee.account}:-1"}, {}):
        assert logged_in.post("/notifications/read", {"csrf_token": token, **wrong}).status_code == 400


def test_every_kind_of_notification_has_a_text(app, engine, logged_in, payer):
    details = {"amount_minor": 1_050, "currency": "EUR", "account": "Everyday", "name": "Pete"}
    with engine.begin() as connection:
        for kind in Kind:
            notifications.tell(connection, payer.id, kind, **details)
        connection.execute(
            text("INSERT INTO notifications (user_id, kind) VALUES (:id, 'of-a-later-release')"), {"id": payer.id}
        )
    page = logged_in.get("/notifications").get_data(as_text=True)
    assert "of-a-later-release" in page
    assert "Your transfer of 10.50 EUR was approved" in page
    from bank.routes.notifications import TEXTS

    assert set(TEXTS) == set(Kind)


def test_log_in_is_news_from_a_browser_that_is_not_known(app, engine, payer):
    def log_ins():
        return [kind for kind, _ in kinds(engine, payer.id)].count(Kind.LOG_IN)

    client = browser(app)
    client.log_in(payer.email)
    assert log_ins() == 1
    client.log_out()
    client.log_in(payer.email)
    assert log_ins() == 1
    browser(app).log_in(payer.email)
    assert log_ins() == 2


def test_old_notifications_go_and_nobody_rewrites_them(engine, owner, payer):
    with owner.begin() as connection:
        connection.execute(
            text(
                "INSERT INTO notifications (user_id, kind, created_at) "
                "VALUES (:id, 'log-in', now() - interval '91 days')"
            ),
            {"id": payer.id},
        )
    with engine.begin() as connection:
        notifications.tell(connection, payer.id, Kind.LOG_IN)
    assert [kind for kind, _ in kinds(engine, payer.id)].count("log-in") == 1
    with pytest.raises(DBAPIError, match="permission denied"), engine.begin() as connection:
        connection.execute(text("UPDATE notifications SET kind = 'x'"))


# Frozen accounts


def test_frozen_account_receives_and_does_not_send_in_the_database_itself(engine, owner, payer, payee, balance_of):
    def move(amount):
        entry = uuid.uuid4()
        with engine.begin() as connection:
            connection.execute(insert(JournalEntry).values(id=entry, kind="transfer", currency="EUR"))
            connection.execute(
                text("INSERT INTO postings (entry_id, account_id, amount_minor) VALUES (:e, :a, :m), (:e, :b, -:m)"),
                {"e": entry, "a": payer.account, "b": payee.account, "m": amount},
            )

    def freeze(frozen):
        with engine.begin() as connection:
            return connection.execute(
                text("SELECT set_account_frozen(:id, :frozen)"), {"id": payer.account, "frozen": frozen}
            ).scalar_one()

    move(-500)
    assert freeze(True)
    assert not freeze(True)
    with pytest.raises(DBAPIError, match="open account"):
        move(-1)
    move(200)
    assert freeze(False)
    move(-1)
    assert balance_of(payee.account) == 301
    with engine.begin() as connection:
        internal = connection.execute(select(Account.id).where(Account.kind == "internal").limit(1)).scalar_one()
        query = text("SELECT set_account_frozen(:id, true)")
        assert connection.execute(query, {"id": internal}).scalar_one() is False
    with pytest.raises(DBAPIError, match="permission denied"), engine.begin() as connection:
        connection.execute(text("UPDATE accounts SET status = 'frozen'"))
