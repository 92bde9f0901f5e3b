"""Alerts that monitoring sends."""

import copy
import json
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import text

from bank.app import create_app
from bank.config import ConfigError, load_settings
from bank.services import alerts
from conftest import browser, configuration_text

SECRET = "a-secret:for+monitoring/41"
PATH = "/api/webhook/alert"
CANARY = "canary-77aa01"
NOTICE = {
    "status": "firing",
    "labels": {"alertname": "ApiDown", "severity": "p1", "instance": "app1"},
    "annotations": {"summary": "app1 does not answer"},
    "startsAt": "2026-11-20T10:00:00.123456789Z",
    "endsAt": "0001-01-01T00:00:00Z",
    "generatorURL": "http://prometheus/graph",
    "fingerprint": "c0ffee0123456789",
}
PAYLOAD = {
    "version": "4", "groupKey": '{}:{alertname="ApiDown"}', "truncatedAlerts": 0, "status": "firing",
    "receiver": "bank", "groupLabels": {}, "externalURL": "http://alertmanager", "alerts": [], "commonLabels": {},
    "commonAnnotations": {},
}  # fmt: skip


@pytest.fixture(scope="module")
def watched(servers, owner, tmp_path_factory):
    folder = tmp_path_factory.mktemp("watched")
    path = folder / "bank.toml"
    more = f'[webhook]\nsecret = "{SECRET}"\n[limits]\nalerts_per_minute = 100000'
    path.write_text(configuration_text(servers, log=str(folder / "bank.json"), more=more))
    app = create_app(load_settings(path))
    app.log_file = folder / "bank.json"
    yield app
    app.extensions["bank"].engine.dispose()


@pytest.fixture
def clean(owner):
    with owner.begin() as connection:
        connection.execute(text("DELETE FROM alerts"))


def send(app, *notices, secret=SECRET, **options):
    given = {"data": json.dumps({**PAYLOAD, "alerts": list(notices)}), "content_type": "application/json", **options}
    headers = {"Authorization": f"Bearer {secret}"} if secret else {}
    return browser(app).post(PATH, headers=headers, **given)


def notice(**changes):
    return {**copy.deepcopy(NOTICE), **changes}


def received(app, severity, status):
    page = browser(app).get("/metrics").get_data(as_text=True)
    name = f'bank_alert_webhook_received_total{{severity="{severity}",status="{status}"}}'
    return float(page.split(name)[1].split()[0])


def test_alert_opens_and_closes_once(watched, engine, clean):
    before = received(watched, "p1", "firing")
    response = send(watched, notice())
    assert (response.status_code, response.json) == (200, {"opened": 1, "closed": 0})
    assert send(watched, notice(), notice()).json == {"opened": 0, "closed": 0}  # sent again, and twice in one
    (found,) = alerts.list_of(engine, status=alerts.FIRING)
    assert (found.name, found.severity, found.labels["instance"]) == ("ApiDown", "p1", "app1")
    assert (found.starts_at.isoformat(), found.ends_at) == ("2026-11-20T10:00:00.123456+00:00", None)
    assert received(watched, "p1", "firing") == before + 3

    ended = notice(status="resolved", endsAt="2026-11-20T10:05:00Z")
    assert send(watched, ended).json == {"opened": 0, "closed": 1}
    assert send(watched, ended).json == {"opened": 0, "closed": 0}
    assert send(watched, notice()).json == {"opened": 0, "closed": 0}  # late: it does not open again
    assert alerts.list_of(engine, status=alerts.FIRING) == []
    (found,) = alerts.list_of(engine, status=alerts.RESOLVED)
    assert found.ends_at.isoformat() == "2026-11-20T10:05:00+00:00"
    assert found.closed_at >= found.received_at

    # The next time it fires is another alert; one that is heard of at its end only is closed from the start.
    again = notice(startsAt="2026-11-20T11:00:00Z")
    unheard = notice(status="resolved", fingerprint="feed", endsAt="2026-11-20T11:30:00Z", labels={"severity": CANARY})
    assert send(watched, again, unheard).json == {"opened": 1, "closed": 1}
    assert {found.severity for found in alerts.list_of(engine, status=alerts.RESOLVED)} == {"p1", "other"}
    assert len(alerts.list_of(engine, status=alerts.RESOLVED, before=found.starts_at)) == 0
    assert CANARY not in browser(watched).get("/metrics").get_data(as_text=True)


def measured(app, name, severity):
    """Return how many times of a kind were measured, and their sum."""
    page = browser(app).get("/metrics").get_data(as_text=True)
    return tuple(
        float(page.split(f'bank_alert_{name}_seconds_{part}{{severity="{severity}"}}')[1].split()[0])
        for part in ("count", "sum")
    )


def test_times_of_an_alert_are_measured_once(watched, owner, clean):
    with owner.connect() as connection:
        now = connection.execute(text("SELECT now()")).scalar_one()
    starts = now - timedelta(seconds=40)
    told, lasted = measured(watched, "told", "p2"), measured(watched, "lasted", "p2")
    changes = {"startsAt": starts.isoformat(), "labels": {"alertname": "X", "severity": "p2"}}
    send(watched, notice(**changes))
    send(watched, notice(**changes))  # sent again
    count, total = measured(watched, "told", "p2")
    assert count == told[0] + 1
    assert 40 <= total - told[1] < 70
    assert measured(watched, "lasted", "p2") == lasted

    ended = {**changes, "status": "resolved", "endsAt": (starts + timedelta(seconds=300)).isoformat()}
    send(watched, notice(**ended))
    send(watched, notice(**ended))
    assert measured(watched, "told", "p2") == (count, total)
    assert measured(watched, "lasted", "p2") == (lasted[0] + 1, pytest.approx(lasted[1] + 300))


def test_alert_of_which_only_the_end_is_heard_tells_nothing_about_the_way(watched, clean):
    told, lasted = measured(watched, "told", "p4"), measured(watched, "lasted", "p4")
    changes = {"status": "resolved", "fingerprint": "late", "labels": {"severity": "p4"}}
    send(watched, notice(**changes, endsAt="2026-11-20T10:01:00.123456789Z"))
    assert measured(watched, "told", "p4") == told
    assert measured(watched, "lasted", "p4") == (lasted[0] + 1, pytest.approx(lasted[1] + 60))
    # A clock that is ahead, and an end without a time.
    ahead = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
    send(watched, notice(fingerprint="ahead", startsAt=ahead, labels={"severity": "p4"}))
    assert measured(watched, "told", "p4") == (told[0] + 1, told[1])
    send(watched, notice(fingerprint="endless", status="resolved", labels={"severity": "p4"}))
    assert measured(watched, "lasted", "p4")[0] == lasted[0] + 1


@pytest.mark.parametrize("secret", ["", "wrong", SECRET[:-1], SECRET + "x", "é" * 50])
def test_forged_alert_is_refused(watched, engine, clean, secret):
    response = send(watched, notice(), secret=secret)
    assert response.status_code == 401
    assert response.content_type == "application/problem+json"
    assert response.headers["WWW-Authenticate"] == "Bearer"
    assert alerts.list_of(engine, status=alerts.FIRING) == []
    assert SECRET not in response.get_data(as_text=True)


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 422), (b"{", 422), (b"[]", 422), (b'"x"', 422), (b"[" * 60_000, 422), (b"\xff\xfe", 422),
        (json.dumps(PAYLOAD), 422),
        (json.dumps({**PAYLOAD, "version": "5", "alerts": [NOTICE]}), 422),
        *[(json.dumps({**PAYLOAD, "alerts": [{**NOTICE, **wrong}]}), 422) for wrong in (
            {"status": "open"}, {"labels": {"a": 1}}, {"labels": {CANARY: "\x00"}}, {"labels": {"a": "x" * 5_000}},
            {"startsAt": "yesterday"}, {"startsAt": "2026-11-20T10:00:00"}, {"fingerprint": ""},
            {"fingerprint": "../x"},
        )],
        (b"x" * 600_000, 413),
    ],
)  # fmt: skip
def test_malformed_and_huge_payloads_are_refused(watched, engine, clean, body, status):
    response = send(watched, data=body)
    assert response.status_code == status
    assert response.content_type == "application/problem+json"
    assert alerts.list_of(engine, status=alerts.FIRING) == []
    if status == 422:
        assert response.json["errors"]


def test_all_of_a_notification_or_nothing(watched, engine, clean):
    assert send(watched, notice(), notice(fingerprint="b", startsAt="no")).status_code == 422
    assert alerts.list_of(engine, status=alerts.FIRING) == []
    large = [notice(fingerprint=f"{number:x}", labels={"x": "y" * 500}) for number in range(300)]
    assert send(watched, *large).json == {"opened": 300, "closed": 0}


def test_without_a_secret_nothing_is_taken(app):
    response = send(app, notice())
    assert response.status_code == 503
    assert response.json["type"] == "urn:bank:problem:webhook-off"


def test_content_type_and_method(watched):
    assert send(watched, notice(), content_type="text/plain").status_code == 415
    response = browser(watched).get(PATH)
    assert (response.status_code, "POST" in response.headers["Allow"]) == (405, True)


def test_secret_is_nowhere_in_the_log(watched):
    send(watched, notice(annotations={"summary": CANARY}))
    send(watched, notice(), secret=CANARY)
    lines = watched.log_file.read_text()
    assert "alerts received" in lines
    assert "alert refused" in lines
    assert SECRET not in lines
    assert CANARY not in lines


@pytest.mark.parametrize("secret", ["short", "a secret with blanks in it", "sécrèt-non-ascii-0123"])
def test_weak_secret_is_refused(servers, tmp_path, secret):
    path = tmp_path / "bank.toml"
    path.write_text(configuration_text(servers, more=f'[webhook]\nsecret = "{secret}"'))
    with pytest.raises(ConfigError, match=r"webhook\.secret"):
        load_settings(path)
