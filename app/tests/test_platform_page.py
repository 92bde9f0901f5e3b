"""The staff's page about the platform, on a server that plays Prometheus over real HTTPS."""

import dataclasses
import html
import http.client
import re
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from bank import i18n, log
from bank.app import create_app
from bank.config import Prometheus
from bank.monitoring import status, watch
from bank.monitoring.watch import Watch
from bank.sessions import COOKIE, storage_key
from conftest import ORIGIN, browser
from fake_prometheus import READER_PASSWORD, USER, WATCHDOG, alert, platform_series, running, series
from throwaway import free_port

PATH = "/staff/platform"
# The limit, and what a busy machine adds to it.
WITHIN_SECONDS = watch.PATIENCE_SECONDS + 1.0


@pytest.fixture(scope="module")
def monitoring(pki):
    with running(pki) as server:
        yield server


@pytest.fixture(scope="module")
def app(settings, owner):
    app = create_app(settings)
    yield app
    app.extensions["bank"].engine.dispose()


@pytest.fixture(scope="module")
def auditor(app, make_staff):
    client = browser(app)
    _, email = make_staff("auditor")
    assert client.log_in(email).status_code == 303
    return client


@pytest.fixture
def point_at(app, pki, monitoring):
    """Return a function that gives the application another section prometheus."""
    monitoring.reset()

    def point(*urls, waiting=4, **changes):
        values = {"user": USER, "password": READER_PASSWORD, "ca_certificate": pki / "ca.crt", **changes}
        options = Prometheus(urls=urls, **values)
        found = app.extensions["bank"]
        app.extensions["bank"] = dataclasses.replace(
            found, watch=Watch(options, waiting), settings=found.settings.model_copy(update={"prometheus": options})
        )

    return point


def words_of(response):
    """Return what a reader of the page's main part reads."""
    page = response.get_data(as_text=True)
    bare = re.sub(r"<[^>]*>", " ", page[page.index("<main") : page.index("</main>")])
    return " ".join(html.unescape(bare).split())


def look(client, path=PATH, **options):
    began = time.monotonic()
    response = client.get(path, **options)
    assert time.monotonic() - began < WITHIN_SECONDS
    assert response.status_code == 200
    return response


def test_page_shows_the_platform(auditor, monitoring, point_at):
    monitoring.series = platform_series(hosts_down=("app2",))
    monitoring.alerts = [
        WATCHDOG,
        alert("DiskFull", "p3", labels={"instance": "db1", "mountpoint": "/data"}),
        alert("Odd", "wrong", annotations={"runbook_url": "docs/runbooks/hosts.md#odd"}),
        alert(
            "WholeApiDown", "p1",
            annotations={"runbook_url": "https://git.example/hosts.md#x", "dashboard_url": "http://graf.example/d/1"},
        ),
        alert("Maybe", "p1", state="pending"),
    ]  # fmt: skip
    point_at(monitoring.url)
    response = look(auditor)
    page, words = response.get_data(as_text=True), words_of(response)
    for shown in (
        "Hosts up 4/5 1 down", "Bank instances up 1/2", "Targets up 9/11 2 down", "Alerts firing 3 P1",
        "bank down: app2 1 of 2 up", "postgresql 1 of 1 up", "blackbox · bank 1 of 1 up",
        "Requests per second 12.3", "Books out of balance, in minor units 0", "Fullest limit 93.4% memory db1",
        "Last snapshot of Elasticsearch 3 hours ago", "Last backup of the database not measured",
        "availability 99.8%", "latency 12.0%", "transfers -50.0%",
        "Hosts down app2 up app1 up db1 up lb1 up mon1",
        "DiskFull · db1 /data · since 30 Nov 2026, 10:00 UTC", f"from {monitoring.url}.",
    ):  # fmt: skip
        assert shown in words, shown
    assert re.search(r"Figures of \d+ \w+ \d{4}, \d\d:\d\d:\d\d UTC", words)
    names = re.findall(r"(\w+) happened", words)
    assert names == ["WholeApiDown", "DiskFull", "Odd"]
    assert '<a href="https://git.example/hosts.md#x" rel="noreferrer">Runbook</a>' in page
    assert '<a href="http://graf.example/d/1" rel="noreferrer">Dashboard</a>' in page
    assert "Runbook: docs/runbooks/hosts.md#odd" in words
    assert 'href="docs/runbooks' not in page
    assert 'role="alert"' not in page


def test_page_is_in_the_menu_of_those_who_may_see_it(app, auditor, make_staff, make_customer):
    assert f'href="{PATH}"' in auditor.get("/staff").get_data(as_text=True)
    teller = browser(app)
    teller.log_in(make_staff("teller")[1])
    assert f'href="{PATH}"' not in teller.get("/staff").get_data(as_text=True)
    assert teller.get(PATH).status_code == 403


def test_page_in_french(app, auditor, monitoring, point_at):
    monitoring.alerts = []
    point_at(monitoring.url)
    auditor.client.set_cookie(i18n.COOKIE, "fr", domain=ORIGIN.removeprefix("https://"))
    try:
        words = words_of(look(auditor))
        point_at(f"https://localhost:{free_port()}")
        refused = words_of(look(auditor))
    finally:
        auditor.client.delete_cookie(i18n.COOKIE, domain=ORIGIN.removeprefix("https://"))
    for shown in (
        "Plateforme", "Hôtes actifs 5/5", "il y a 3 heures", "99,8\N{NO-BREAK SPACE}%", "12,3", "non mesuré",
        "Aucune alerte active", "L’alerte Watchdog",
    ):  # fmt: skip
        assert shown.replace("\N{NO-BREAK SPACE}", " ") in words, shown
    assert "est injoignable" in refused
    assert "Vérifiez que prometheus.service" in refused


@pytest.mark.parametrize(
    "address",
    ["javascript:alert(1)", "JavaScript:alert(1)", "data:text/html,x", "//evil.test", "https:evil", "https://a b",
     "https://x\njavascript:1", "/d/slo", 'https://x"onclick=1', "http://"],
)  # fmt: skip
def test_only_addresses_become_links(auditor, monitoring, point_at, address):
    monitoring.alerts = [WATCHDOG, alert("A", "p2", annotations={"runbook_url": address, "dashboard_url": address})]
    point_at(monitoring.url)
    response = look(auditor)
    page = response.get_data(as_text=True)
    alerts = page[page.index("A happened") : page.index("</section>")]
    links = re.findall(r'<a href="([^"]*)"', alerts)
    assert links == ([html.escape(address).replace("&quot;", "&#34;")] * 2 if "onclick" in address else [])
    assert "onclick" not in re.sub(r'"[^"]*"', '""', re.sub(r">[^<]*<", "><", alerts))
    if not links:
        assert words_of(response).count(" ".join(address.split())) == 2


def test_everything_from_prometheus_is_text(auditor, monitoring, point_at):
    nasty = "<script>alert('1')</script>\"'{{ 7*7 }}%(x)s"
    monitoring.series = [
        series("up", 0, job=nasty, instance=nasty),
        series("up", 1, job="node", instance=nasty),
        series("capacity:used:ratio", 0.5, resource=nasty, instance=nasty),
        series("slo:error_budget_left:ratio", 0.5, slo=nasty),
    ]
    monitoring.alerts = [
        alert(nasty, nasty, labels={"instance": nasty}, annotations={"summary": nasty, "runbook_url": nasty})
    ]
    point_at(monitoring.url)
    response = look(auditor)
    page = response.get_data(as_text=True)
    assert "<script" not in page
    assert words_of(response).count("{{ 7*7 }}%(x)s") == 10


def test_what_is_not_measured_is_not_said_to_be_good(auditor, monitoring, point_at):
    monitoring.series, monitoring.alerts = [], []
    point_at(monitoring.url)
    response = look(auditor)
    words = words_of(response)
    assert words.count("not measured") == 8
    assert "Watchdog, which always fires, does not" in words
    assert "No host is measured" in words
    assert "No target is measured" in words
    page = response.get_data(as_text=True)
    assert "tile-good" not in page
    assert "tile-plain" in page


def test_values_without_meaning_are_not_measured(auditor, monitoring, point_at):
    snapshot, backup = (f"{name}_last_success_timestamp_seconds" for name in ("elasticsearch_snapshot", "pg_backup"))
    monitoring.series = [
        series("up", 1, job="node", instance="a"),
        series(snapshot, "1e300"),
        series(backup, "NaN"),
        series("slo:error_budget_left:ratio", "NaN", slo="availability"),
        series("capacity:used:ratio", "+Inf", resource="disk"),
        series("site:bank_requests:rate5m", "-Inf"),
    ]
    point_at(monitoring.url)
    assert words_of(look(auditor)).count("not measured") == 7
    monitoring.series = [
        series(backup, time.time() - 30 * 3600),
        series("up", 1, job="blackbox", probe="bank", instance="lb1"),
        series("probe_success", 0, job="blackbox", probe="bank", instance="lb1"),
        series("bank_ledger_imbalance_minor_units", 5, instance="app1"),
        series("bank_ledger_imbalance_minor_units", -70, instance="app2"),
        series("slo:error_budget_left:ratio", 1, slo="latency", site="north"),
        series("slo:error_budget_left:ratio", 0.9996, slo="latency", site="south"),
    ]
    point_at(monitoring.url)
    words = words_of(look(auditor))
    assert "Last backup of the database 1 day ago late" in words
    assert "blackbox · bank down: lb1 0 of 1 up" in words
    assert "in minor units -70" in words
    # What is not whole never reads so, and where there are several sites each is named.
    assert "latency north 100.0% latency south 99.9%" in words


def test_many_alerts_are_cut_and_counted(auditor, monitoring, point_at):
    monitoring.alerts = [WATCHDOG, *(alert(f"A{n:03}", f"p{1 + n % 4}") for n in range(130))]
    point_at(monitoring.url)
    words = words_of(look(auditor))
    assert words.count(" happened") == 100
    shown = [int(number) for number in re.findall(r"A(\d+) happened", words)]
    assert shown == sorted(range(130), key=lambda n: (n % 4, n))[:100]
    assert "Only the 100 most urgent of 130 are shown." in words
    assert "Alerts firing 130 P1" in words


def test_not_configured(auditor, point_at):
    point_at()
    response = look(auditor)
    assert "Nobody told the bank where Prometheus is" in words_of(response)
    assert "run site.yml" in words_of(response)
    assert "Refresh" not in response.headers


MANNERS = {
    "silent": ("does not answer in time", "how busy"),
    "trickling": ("does not answer in time", "how busy"),
    "starting": ("is not ready", "Wait some minutes"),
    "page": ("not as Prometheus does: Invalid JSON", "See that urls"),
    "redirecting": ("not as Prometheus does: HTTP 302", "See that urls"),
    "refusing_the_question": ("HTTP 400 invalid parameter <query>", "See that urls"),
    "huge": ("more than 8388608 bytes", "See that urls"),
    "deep": ("not as Prometheus does", "See that urls"),
    "of_another_shape": ("data.result.0", "See that urls"),
    "unsuccessful": ("status Input should be 'success'", "See that urls"),
    "broken": ("not as Prometheus does: BadStatusLine", "See that urls"),
    "hanging_up": ("cannot be reached", "See that prometheus.service runs"),
}


@pytest.mark.parametrize("manner", MANNERS)
def test_what_is_wrong_and_what_to_do(auditor, monitoring, point_at, manner):
    monitoring.manner = manner
    point_at(monitoring.url)
    words = words_of(look(auditor))
    for expected in (monitoring.url, *MANNERS[manner]):
        assert expected in words
    assert "Hosts" not in words


def test_unreachable_untrusted_and_refused(auditor, monitoring, point_at, pki, tmp_path):
    strange = tmp_path / "ca.crt"
    strange.write_text("no certificate")
    port = monitoring.url.rpartition(":")[2]
    for urls, changes, expected in (
        ([f"https://localhost:{free_port()}"], {}, "cannot be reached: Connection refused"),
        (["https://no-such-host.invalid"], {}, "cannot be reached: "),
        ([monitoring.url], {"ca_certificate": pki / "other.crt"}, "does not prove who it is: "),
        ([monitoring.url], {"ca_certificate": strange}, "does not prove who it is: "),
        ([monitoring.url], {"ca_certificate": tmp_path / "none"}, "No such file"),
        ([monitoring.url], {"ca_certificate": None}, "does not prove who it is: "),
        ([f"https://127.0.0.1:{port}"], {}, "not valid for '127.0.0.1'"),
        ([monitoring.url], {"password": "wrong"}, "refuses the user bank or the password. Run site.yml"),
        ([monitoring.url], {"user": "", "password": ""}, "refuses the user - or the password"),
    ):
        point_at(*urls, **changes)
        words = words_of(look(auditor))
        assert expected in words, changes
        assert "Hosts" not in words
        assert READER_PASSWORD not in words


def test_connection_that_ends_in_the_handshake_is_not_about_trust(auditor, point_at):
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def hang_up():
            connection, _ = listener.accept()
            connection.recv(10_000)
            connection.shutdown(socket.SHUT_RDWR)
            connection.close()

        threading.Thread(target=hang_up, daemon=True).start()
        point_at(f"https://localhost:{listener.getsockname()[1]}")
        assert "cannot be reached: " in words_of(look(auditor))


def test_next_server_answers_and_the_trouble_with_the_first_is_told(auditor, monitoring, point_at):
    dead = f"https://localhost:{free_port()}"
    point_at(dead, monitoring.url)
    words = words_of(look(auditor))
    assert f"{dead} cannot be reached" in words
    assert f"from {monitoring.url}." in words
    assert "Hosts up 5/5" in words


def test_first_that_is_silent_leaves_time_for_the_next(auditor, monitoring, point_at, pki):
    with running(pki) as other:
        other.manner = "silent"
        point_at(other.url, monitoring.url)
        words = words_of(look(auditor))
    assert f"{other.url} does not answer in time" in words
    assert "Hosts up 5/5" in words


def readers(app, auditor, count):
    """Look as many readers at once; return the words that each of them reads, and the longest wait."""
    cookie = auditor.session_cookie

    def read(_number):
        client = browser(app)
        client.client.set_cookie(COOKIE, cookie, domain="bank.test", secure=True)
        began = time.monotonic()
        return words_of(client.get(PATH)), time.monotonic() - began

    with ThreadPoolExecutor(count) as pool:
        found = list(pool.map(read, range(count)))
    return [words for words, _ in found], [seconds for _, seconds in found]


def test_many_readers_cost_one_set_of_questions(app, auditor, monitoring, point_at, monkeypatch):
    monitoring.manner = "after a pause"
    point_at(monitoring.url, waiting=12)
    words, _ = readers(app, auditor, 12)
    assert all("Hosts up 5/5" in each for each in words)
    assert monitoring.questions == ["/api/v1/query", "/api/v1/alerts"]
    look(auditor)
    assert len(monitoring.questions) == 2
    monkeypatch.setattr(watch, "FRESH_SECONDS", 0.0)
    monitoring.series = platform_series(hosts_down=("db1",))
    assert "Hosts up 4/5" in words_of(look(auditor))
    assert len(monitoring.questions) == 4


def test_few_wait_and_the_others_go_on(app, auditor, monitoring, point_at, monkeypatch):
    monitoring.manner = "silent"
    point_at(monitoring.url, waiting=2)
    words, seconds = readers(app, auditor, 8)
    assert sum(taken > watch.ROUND_SECONDS - 0.1 for taken in seconds) == 2
    assert sum("has not answered yet" in each for each in words) == 6
    assert max(seconds) < WITHIN_SECONDS
    # What is known already is shown to those who do not wait.
    monitoring.manner = "good"
    point_at(monitoring.url, waiting=2)
    look(auditor)
    monkeypatch.setattr(watch, "FRESH_SECONDS", 0.0)
    monitoring.manner = "silent"
    words, _ = readers(app, auditor, 8)
    assert sum("Hosts up 5/5" in each for each in words) == 6


def test_where_nobody_may_wait_the_figures_are_there_when_the_page_loads_again(auditor, monitoring, point_at):
    point_at(monitoring.url, waiting=0)
    response = look(auditor)
    assert "has not answered yet" in words_of(response)
    time.sleep(int(response.headers["Refresh"].partition(";")[0]))
    assert "Hosts up 5/5" in words_of(look(auditor, f"{PATH}?auto=1"))
    assert len(monitoring.questions) == 2


def test_round_that_hangs_holds_nobody_up_twice(auditor, monitoring, point_at, monkeypatch):
    release, whole = threading.Event(), status.ask

    def hang(options, seconds):
        release.wait(20)
        return whole(options, seconds)

    monkeypatch.setattr(status, "ask", hang)
    monkeypatch.setattr(watch, "PATIENCE_SECONDS", 0.5)
    point_at(monitoring.url)
    response = look(auditor)
    assert "has not answered yet" in words_of(response)
    assert response.headers["Refresh"].startswith("3;")
    began = time.monotonic()
    for _ in range(3):
        assert "has not answered yet" in words_of(look(auditor))
    assert time.monotonic() - began < 0.5
    assert monitoring.questions == []
    release.set()
    deadline = time.monotonic() + 10
    while "Hosts up 5/5" not in (words := words_of(look(auditor))):
        assert time.monotonic() < deadline, words
        time.sleep(0.05)


def test_error_of_ours_is_told_and_logged(auditor, monitoring, point_at, monkeypatch, settings):
    log.configure(settings)  # other tests send the log elsewhere
    path = Path(settings.logging.path)
    before = path.stat().st_size
    monkeypatch.setattr(status, "summarise", lambda *_: 1 / 0)
    point_at(monitoring.url)
    assert "could not be read" in words_of(look(auditor))
    assert "ZeroDivisionError" in path.read_bytes()[before:].decode()


def test_trouble_is_logged_once_and_asked_after_rarely(auditor, monitoring, point_at, monkeypatch, settings):
    log.configure(settings)
    path = Path(settings.logging.path)
    before = path.stat().st_size
    point_at(monitoring.url, password="canary-wrong-5")
    for _ in range(3):
        look(auditor)
    assert monitoring.questions == ["/api/v1/query"]
    monkeypatch.setattr(watch, "TROUBLE_SECONDS", 0.0)
    look(auditor)
    assert len(monitoring.questions) == 2
    lines = path.read_bytes()[before:].decode()
    assert lines.count("Prometheus does not answer") == 1
    assert f"{monitoring.url}: refused" in lines
    assert "canary-wrong-5" not in lines


def test_page_loads_itself_again_until_told_not_to(auditor, monitoring, point_at):
    point_at(monitoring.url)
    response = look(auditor)
    assert response.headers["Refresh"] == f"30; url={PATH}?auto=1"
    assert "every 30 seconds" in words_of(response)
    stopped = look(auditor, f"{PATH}?refresh=off")
    assert "Refresh" not in stopped.headers
    assert f'href="{PATH}"' in stopped.get_data(as_text=True)


def test_loading_itself_again_does_not_keep_a_session_alive(app, auditor, monitoring, point_at, settings):
    point_at(monitoring.url)
    key, redis = storage_key(auditor.session_cookie), app.extensions["bank"].redis
    redis.expire(key, 100)
    look(auditor, f"{PATH}?auto=1")
    assert 90 < redis.ttl(key) <= 100
    look(auditor)
    assert redis.ttl(key) > settings.session.idle_seconds - 10
    # Also what the page has to write into the session leaves its end where it was.
    with auditor.client.session_transaction(base_url=ORIGIN) as session:
        session.pop("csrf_token", None)
    redis.expire(key, 100)
    assert "csrf_token" not in redis.get(key).decode()
    look(auditor, f"{PATH}?auto=1")
    assert "csrf_token" in redis.get(key).decode()
    assert 90 < redis.ttl(key) <= 100
    redis.delete(key)
    assert auditor.get(f"{PATH}?auto=1").status_code == 302
    assert not redis.exists(key)


def test_money_pages_of_an_instance_go_on_while_prometheus_is_silent(
    app, start_instance, make_staff, monitoring, point_at, pki
):
    point_at(monitoring.url)
    monitoring.manner = "silent"
    client = browser(app)
    client.log_in(make_staff("admin")[1])
    cookie = f"{COOKIE}={client.session_cookie}"
    escaped = READER_PASSWORD.replace("\\", "\\\\").replace('"', '\\"')
    instance = start_instance(
        more=f'[prometheus]\nurls = ["{monitoring.url}"]\nuser = "{USER}"\npassword = "{escaped}"\n'
        f'ca_certificate = "{pki}/ca.crt"',
        server="workers = 1\nthreads = 2",
    )

    def get(path):
        began = time.monotonic()
        connection = http.client.HTTPConnection("127.0.0.1", instance.port, timeout=10)
        connection.request("GET", path, headers={"Cookie": cookie, "Host": "bank.test"})
        answer = connection.getresponse()
        answer.read()
        connection.close()
        return answer.status, time.monotonic() - began

    get("/login")
    with ThreadPoolExecutor(6) as pool:
        waiting = [pool.submit(get, PATH) for _ in range(6)]
        time.sleep(0.5)
        money = [get("/login") for _ in range(5)]
        seen = [future.result() for future in waiting]
    assert {status for status, _ in money} == {302}
    assert max(seconds for _, seconds in money) < 0.5
    assert {status for status, _ in seen} == {200}
    assert sum(seconds > 1.5 for _, seconds in seen) == 1
