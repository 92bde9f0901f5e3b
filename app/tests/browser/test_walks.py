"""People's ways through the pages in a real browser: Debian's Chromium, without a screen.

Every page that is reached is checked with axe, at desk and phone width, and leaves a screenshot for the eye.
"""

import dataclasses
import re
import shutil
import threading
import time
import uuid
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyotp
import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import expect, sync_playwright
from werkzeug.serving import WSGIRequestHandler, make_server

from bank.app import create_app
from bank.config import Confirmation, Fraud, Prometheus
from bank.monitoring.watch import Watch
from bank.services import approvals, transfers
from bank.services import seed as seeding
from bank.services.screening import Circumstances, Screening
from conftest import PASSWORD
from fake_prometheus import READER_PASSWORD, USER, WATCHDOG, alert, platform_series, running
from throwaway import need

SCREENSHOTS = Path(__file__).parent / "screenshots"
DESK = {"width": 1280, "height": 800}
PHONE = {"width": 390, "height": 844}
# Also on a machine that is busy with other things.
PATIENCE_MS = 30_000
expect.set_options(timeout=PATIENCE_MS)


class QuietHandler(WSGIRequestHandler):
    protocol_version = "HTTP/1.1"

    def log(self, *_arguments):
        pass


@pytest.fixture(scope="module")
def app(settings, owner):
    """The bank with its own rules about what must be confirmed."""
    app = create_app(settings.model_copy(update={"confirmation": Confirmation()}))
    yield app
    app.extensions["bank"].engine.dispose()


@pytest.fixture(scope="module")
def site(app):
    """The bank on this machine's own name, which browsers trust with secure cookies as they trust HTTPS."""
    server = make_server("localhost", 0, app, threaded=True, request_handler=QuietHandler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://localhost:{server.server_port}"
    server.shutdown()
    thread.join()


@pytest.fixture(scope="module")
def chromium():
    program = need(shutil.which("chromium"), "Chromium", "chromium")
    SCREENSHOTS.mkdir(exist_ok=True)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox", "--disable-gpu"])
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def demo(engine):
    """The demonstration people, whose accounts have a history."""
    seeding.seed(engine, customers=0, seed_number=1, password=PASSWORD)


class Visitor:
    """A person with a browser window of their own."""

    def __init__(self, browser, site, **options) -> None:
        self.site = site
        self.complaints: list[str] = []
        self.context = browser.new_context(viewport=DESK, base_url=site, reduced_motion="reduce", **options)
        self.context.set_default_timeout(PATIENCE_MS)
        self.page = self.context.new_page()
        self.page.on("console", lambda message: self._listen(message.type, message.text))
        self.page.on("pageerror", lambda error: self._listen("error", str(error)))

    def _listen(self, kind: str, words: str) -> None:
        # Chromium also notes each answer that is no success, which the walks provoke on purpose.
        if kind in {"error", "warning"} and not words.startswith("Failed to load resource: the server responded"):
            self.complaints.append(words)

    def log_in(self, email: str, password: str = PASSWORD) -> None:
        self.page.goto("/login")
        self.page.get_by_label(re.compile(r"Email|Adresse e-mail")).fill(email)
        self.page.get_by_label(re.compile(r"Password|Mot de passe")).fill(password)
        self.press("Log in", "Se connecter")

    def press(self, *names: str) -> None:
        """Press the button that has one of these names in the page's main part."""
        pattern = re.compile("^(" + "|".join(map(re.escape, names)) + ")$")
        self.page.get_by_role("main").get_by_role("button", name=pattern).click()

    def look(self, name: str) -> None:
        """Check the page for accessibility at both widths, and keep pictures of it."""
        # A click does not wait for the page that it leads to.
        self.page.wait_for_load_state("load")
        for width, viewport in (("desk", DESK), ("phone", PHONE)):
            self.page.set_viewport_size(viewport)
            found = Axe().run(self.page, options={"resultTypes": ["violations"]})
            self.page.screenshot(path=SCREENSHOTS / f"{name}-{width}.png", full_page=True, animations="disabled")
            assert found.violations_count == 0, f"{name} at {width} width: {found.generate_report()}"
            wide = self.page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
            assert wide <= 0, f"{name} is {wide} px wider than the {width}"
        self.page.set_viewport_size(DESK)

    def leave(self) -> None:
        self.context.close()
        assert not self.complaints


@pytest.fixture
def visit(chromium, site, demo):
    visitors = []

    def enter(**options) -> Visitor:
        visitors.append(Visitor(chromium, site, **options))
        return visitors[-1]

    yield enter
    for visitor in visitors:
        visitor.leave()


def test_customer_walks_through_accounts_and_a_transfer(visit, make_customer):
    friend = make_customer(name="Frida Friend")
    robin = visit(locale="en-GB")
    page = robin.page
    page.goto("/accounts")
    expect(page).to_have_url(re.compile("/login"))
    robin.look("login")
    robin.log_in("user@demo.local", "wrong")
    expect(page.get_by_role("alert")).to_contain_text("wrong")
    robin.look("login-refused")
    robin.log_in("user@demo.local")
    expect(page.get_by_role("heading", level=1)).to_have_text("Your accounts")
    robin.look("accounts")
    page.get_by_role("link", name=re.compile("Everyday account")).first.click()
    robin.look("account")
    page.get_by_role("link", name="Transfer from here").click()
    robin.press("Continue")
    robin.look("transfer-refused")
    page.get_by_label("To IBAN").fill(friend.number)
    page.get_by_label("Amount").fill("12.50")
    page.get_by_label("Reference").fill("Tickets")
    robin.look("transfer")
    robin.press("Continue")
    expect(page.get_by_role("heading", level=1)).to_have_text("Check your transfer")
    robin.look("transfer-review")
    robin.press("Change")
    expect(page.get_by_label("Reference")).to_have_value("Tickets")
    robin.press("Continue")
    robin.press("Send money")
    robin.look("transfer-unconfirmed")
    page.get_by_label("Your password").fill(PASSWORD)
    robin.press("Send money")
    expect(page.get_by_role("status")).to_contain_text("12.50")
    expect(page.get_by_role("table")).to_contain_text("Frida Friend")
    page.emulate_media(media="print")
    page.screenshot(path=SCREENSHOTS / "account-print.png", full_page=True)
    page.emulate_media(media="screen")
    page.goto("/nowhere")
    expect(page.get_by_role("heading", level=1)).to_have_text("Page not found")
    robin.look("error-404")


def test_customer_searches_and_keeps_beneficiaries(visit, make_customer):
    friend = make_customer(name="Frida Friend")
    robin = visit(locale="en-GB")
    page = robin.page
    robin.log_in("user@demo.local")
    page.get_by_role("link", name=re.compile("Everyday account")).first.click()
    page.locator("summary").click()
    page.get_by_label("Kind").select_option("Payment")
    page.get_by_label("From amount").fill("20")
    robin.press("Search")
    expect(page.get_by_role("link", name="Show everything")).to_be_visible()
    robin.look("account-search")
    page.get_by_role("link", name="Beneficiaries").click()
    page.get_by_label("Name").fill("Frida")
    robin.press("Add")
    robin.look("beneficiaries-refused")
    page.get_by_label("IBAN").fill(friend.number)
    page.get_by_label("Your password").fill(PASSWORD)
    robin.press("Add")
    expect(page.get_by_role("status")).to_contain_text("Frida")
    robin.look("beneficiaries")
    page.get_by_role("link", name="Notifications").click()
    robin.look("notifications")
    robin.press("Mark all as read")
    expect(page.get_by_role("button", name="Mark all as read")).to_have_count(0)


def test_customer_keeps_a_standing_order_and_gets_statements(visit, make_customer):
    friend = make_customer(name="Frida Friend")
    robin = visit(locale="en-GB")
    page = robin.page
    robin.log_in("user@demo.local")
    page.goto("/transfer")
    page.get_by_role("main").get_by_role("link", name="Standing orders").click()
    page.get_by_role("link", name="New standing order").click()
    robin.press("Save")
    robin.look("standing-order-refused")
    page.get_by_label("From").select_option(index=0)
    page.get_by_label("To IBAN").fill(friend.number)
    page.get_by_label("Amount").fill("12.50")
    page.get_by_label("How often").select_option("Every week")
    page.get_by_label("First payment").fill(f"{datetime.now(UTC) + timedelta(days=3):%Y-%m-%d}")
    robin.press("Save")
    robin.look("standing-order-confirm")
    page.get_by_label("Your password").fill(PASSWORD)
    robin.press("Save")
    expect(page.get_by_role("status")).to_contain_text("Standing order saved")
    robin.look("standing-orders")
    page.get_by_role("main").get_by_role("button", name=re.compile("Cancel")).click()
    expect(page.get_by_role("main")).to_contain_text("Cancelled")
    page.goto("/accounts")
    page.get_by_role("link", name=re.compile("Everyday account")).first.click()
    with page.expect_download() as download:
        page.get_by_role("link", name=re.compile("^PDF")).first.click()
    assert download.value.suggested_filename.startswith("statement-")


def test_customer_pays_to_another_bank(visit):
    robin = visit(locale="fr-FR")
    page = robin.page
    robin.log_in("user@demo.local")
    page.get_by_role("navigation").get_by_role("link", name="Virement").click()
    page.get_by_role("link", name="Vers une autre banque").click()
    page.get_by_label("Nom du destinataire").fill("Stadtwerke Köln")
    page.get_by_label("Vers l’IBAN").fill("DE88370400440532013000")
    page.get_by_label("Montant").fill("49,90")
    robin.press("Continuer")
    robin.look("payment-refused-french")
    page.get_by_label("Vers l’IBAN").fill("DE89370400440532013000")
    robin.press("Continuer")
    expect(page.get_by_role("heading", level=1)).to_have_text("Vérifiez votre paiement")
    page.get_by_label("Votre mot de passe").fill(PASSWORD)
    robin.look("payment-review-french")
    robin.press("Envoyer")
    expect(page.get_by_role("status")).to_contain_text("49,90")
    expect(page.get_by_role("table")).to_contain_text("Stadtwerke Köln")


def test_language_follows_the_browser_until_one_is_chosen(visit):
    robin = visit(locale="fr-FR", color_scheme="dark")
    page = robin.page
    page.goto("/login")
    expect(page.locator("html")).to_have_attribute("lang", "fr")
    robin.look("login-french-dark")
    robin.log_in("user@demo.local")
    expect(page.get_by_role("heading", level=1)).to_have_text("Vos comptes")
    robin.look("accounts-french-dark")
    page.get_by_role("link", name=re.compile("Everyday account")).first.click()
    robin.look("account-french-dark")
    where = page.url
    page.get_by_role("button", name="English").click()
    expect(page).to_have_url(where)
    expect(page.get_by_role("heading", name="History")).to_be_visible()
    page.goto("/transfer")
    expect(page.get_by_role("heading", level=1)).to_have_text("New transfer")
    page.get_by_role("button", name="Français").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Nouveau virement")


def test_keyboard_reaches_everything_and_shows_where_it_is(visit):
    robin = visit(locale="en-GB")
    page = robin.page
    robin.log_in("user@demo.local")
    expect(page.get_by_role("heading", level=1)).to_have_text("Your accounts")
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to content")).to_be_focused()
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="New transfer")).to_be_focused()
    outline = page.evaluate("getComputedStyle(document.activeElement).outlineWidth")
    assert outline == "3px"


def test_stranger_becomes_a_customer(visit, make_staff):
    stranger = visit(locale="fr-FR")
    stranger.page.goto("/sign-up")
    stranger.look("sign-up-french")
    email = f"{uuid.uuid4().hex}@test.local"
    stranger.page.get_by_label("Nom").fill("Nina Neuve")
    stranger.page.get_by_label("Adresse e-mail").fill(email)
    stranger.page.get_by_label("Mot de passe").fill(PASSWORD)
    stranger.page.get_by_role("main").locator("button").click()
    expect(stranger.page.get_by_role("status")).to_be_visible()
    _, supervisor_email = make_staff("supervisor")
    supervisor = visit(locale="en-GB")
    supervisor.log_in(supervisor_email)
    supervisor.page.get_by_role("navigation").get_by_role("link", name="Sign-ups").click()
    supervisor.look("staff-sign-ups")
    supervisor.page.get_by_role("button", name="Approve Nina Neuve").click()
    expect(supervisor.page.get_by_role("status")).to_contain_text("can log in")
    stranger.log_in(email)
    expect(stranger.page.get_by_role("heading", level=1)).to_have_text("Vos comptes")


def test_supervisor_sees_why_an_order_is_held(visit, engine, make_staff, make_customer):
    payer, payee = make_customer(500_000, name="Paula Payer"), make_customer(name="Pete Payee")
    held = Fraud(flag_from_score=1, hold_from_score=1)
    for policy in (held.model_copy(update={"mode": "observe"}), held):
        order = transfers.Order(payer.id, uuid.uuid4().hex, payer.account, payee.number, 90_000, "EUR", "")
        receipt = transfers.transfer(engine, order, judge=Screening(policy, Circumstances(is_new_device=True)))
    supervisor = visit(locale="en-GB")
    page = supervisor.page
    supervisor.log_in(make_staff("supervisor")[1])
    page.get_by_role("navigation").get_by_role("link", name="Approvals").click()
    card = page.get_by_role("region").filter(has_text="Paula Payer")
    expect(card).to_contain_text("30 of 100")
    expect(card).to_contain_text("new browser or place (15)")
    supervisor.look("staff-approvals-fraud")
    card.get_by_role("button", name="Reject").click()
    expect(page.get_by_role("status")).to_contain_text("Rejected")
    assert receipt.approval_id not in {item.id for item in approvals.pending(engine)}
    auditor = visit(locale="fr-FR", color_scheme="dark")
    auditor.log_in(make_staff("auditor")[1])
    auditor.page.get_by_role("navigation").get_by_role("link", name="Fraude").click()
    latest = auditor.page.get_by_role("main").get_by_role("listitem").filter(has_text="Paula Payer")
    expect(latest).to_contain_text(["Retenu · Refusé", "Exécuté"])
    auditor.look("staff-fraud-french-dark")


def test_large_withdrawal_takes_four_eyes(visit, make_staff, make_customer):
    customer = make_customer(5_000_000, name="Clara Customer")
    _, teller_email = make_staff("teller")
    _, supervisor_email = make_staff("supervisor")
    teller = visit(locale="en-GB")
    teller.log_in(teller_email)
    expect(teller.page.get_by_role("heading", level=1)).to_contain_text("Hello")
    teller.look("staff-teller")
    teller.page.get_by_role("navigation").get_by_role("link", name="Customers").click()
    teller.page.get_by_label("Email or IBAN").fill(customer.number)
    teller.look("staff-find")
    teller.press("Find")
    teller.look("staff-customer")
    teller.page.get_by_role("link", name=re.compile("Everyday")).click()
    teller.look("staff-account")
    teller.page.get_by_role("link", name="Cash").click()
    teller.press("Book")
    teller.look("staff-cash-refused")
    teller.page.get_by_label("Takes out").check()
    teller.page.get_by_label("Amount").fill("20000")
    teller.press("Book")
    expect(teller.page.get_by_role("status")).to_contain_text("waiting for approval")

    supervisor = visit(locale="fr-FR")
    page = supervisor.page
    supervisor.log_in(supervisor_email)
    page.get_by_role("navigation").get_by_role("link", name="Approbations").click()
    expect(page.get_by_role("main")).to_contain_text("Test teller")
    supervisor.look("staff-approvals-french")
    supervisor.press("Approuver")
    expect(page.get_by_role("status")).to_contain_text("Approuvé")
    teller.page.reload()
    expect(teller.page.get_by_role("main")).to_contain_text("30,000.00")
    teller.page.get_by_role("link", name="Reverse").first.click()
    teller.look("staff-reverse")


def test_administrator_and_auditor_work(visit, make_staff, make_customer):
    customer = make_customer(100, name="Clara Customer")
    _, admin_email = make_staff("admin")
    _, auditor_email = make_staff("auditor")
    make_staff("teller")
    admin = visit(locale="en-GB")
    page = admin.page
    admin.log_in(admin_email)
    page.get_by_role("navigation").get_by_role("link", name="Users").click()
    admin.look("staff-users")
    page.get_by_role("main").get_by_role("link", name="Test teller").first.click()
    page.get_by_label("New role").select_option("Supervisor")
    admin.look("staff-user")
    admin.press("Ask for it")
    page.get_by_role("navigation").get_by_role("link", name="Roles").click()
    admin.look("staff-roles")
    page.goto(f"/staff/accounts/{customer.account}")
    page.get_by_label("Reason").fill("Court order")
    admin.press("Freeze")
    expect(page.get_by_role("main")).to_contain_text("it can receive money")
    admin.look("staff-frozen")
    auditor = visit(locale="en-GB")
    auditor.log_in(auditor_email)
    auditor.page.get_by_role("navigation").get_by_role("link", name="Audit trail").click()
    expect(auditor.page.get_by_role("main")).to_contain_text("account-freeze")
    auditor.look("staff-audit")
    auditor.page.goto("/transfer")
    expect(auditor.page.get_by_role("heading", level=1)).to_have_text("Not allowed")
    auditor.look("error-403")


@pytest.fixture
def monitoring(app, pki):
    """A Prometheus that watches a platform where not everything is well."""
    found = app.extensions["bank"]
    with running(pki) as server:
        options = Prometheus(urls=(server.url,), user=USER, password=READER_PASSWORD, ca_certificate=pki / "ca.crt")
        app.extensions["bank"] = dataclasses.replace(found, watch=Watch(options, 2))
        yield server
    app.extensions["bank"] = found


def test_administrator_watches_the_platform(visit, make_staff, monitoring):
    _, email = make_staff("admin")
    admin = visit(locale="en-GB")
    page = admin.page
    admin.log_in(email)
    page.get_by_role("navigation").get_by_role("link", name="Platform").click()
    expect(page.get_by_role("main")).to_contain_text("No alert fires.")
    admin.look("staff-platform-well")

    monitoring.series = platform_series(hosts_down=("app2",))
    monitoring.alerts = [
        WATCHDOG,
        alert("HostDown", "p2", labels={"instance": "app2"}, annotations={
            "summary": "app2 does not answer", "runbook_url": "https://git.example/docs/runbooks/hosts.md#hostdown",
            "dashboard_url": "/d/hosts"}),
        alert("ErrorBudgetSpent", "p4", labels={"slo": "transfers"}),
        alert("MemoryHigh", "p3", labels={"instance": "db1"}, annotations={
            "runbook_url": "docs/runbooks/a-rather-long-name-of-a-runbook-that-does-not-fit.md#memoryhigh"}),
    ]  # fmt: skip
    # Nobody presses anything: the page loads itself again.
    expect(page.get_by_role("main")).to_contain_text("down: app2", timeout=60_000)
    admin.look("staff-platform-trouble")
    page.get_by_role("link", name="Stop that").click()
    expect(page.get_by_role("link", name="Let it load itself again")).to_be_visible()
    admin.look("staff-platform-stopped")

    auditor = visit(locale="fr-FR", color_scheme="dark")
    auditor.log_in(make_staff("auditor")[1])
    auditor.page.get_by_role("navigation").get_by_role("link", name="Plateforme").click()
    expect(auditor.page.get_by_role("main")).to_contain_text("en panne : app2")
    auditor.look("staff-platform-trouble-french-dark")
    monitoring.manner = "starting"
    expect(auditor.page.get_by_role("alert")).to_contain_text("n’est pas prêt", timeout=90_000)
    auditor.look("staff-platform-unknown-french-dark")


def test_customer_sets_a_second_factor_up_and_logs_in_with_it(visit, make_customer):
    nina = make_customer(1_000, name="Nina Newton")
    visitor = visit(locale="en-GB")
    page = visitor.page
    page.goto("/sign-up")
    visitor.look("sign-up")
    visitor.log_in(nina.email)
    page.get_by_role("link", name="Security").click()
    page.get_by_role("link", name="Set up").click()
    phone = pyotp.TOTP(page.locator("main code").inner_text().replace(" ", ""))
    visitor.look("second-factor")
    page.get_by_role("textbox", name="Code").fill(phone.now())
    page.get_by_label("Password").fill(PASSWORD)
    visitor.press("Set up")
    expect(page.get_by_role("heading", level=1)).to_have_text("Recovery codes")
    visitor.look("recovery-codes")
    page.goto("/security")
    visitor.look("security")
    page.get_by_role("button", name="Log out").click()
    visitor.log_in(nina.email)
    expect(page.get_by_role("heading", level=1)).to_have_text("One more step")
    visitor.look("log-in-code")
    # The code of this half minute is used up; the app's next one is within the drift.
    page.get_by_role("textbox", name="Code").fill(phone.at(time.time() + 30))
    visitor.press("Continue")
    expect(page.get_by_role("heading", level=1)).to_have_text("Your accounts")
