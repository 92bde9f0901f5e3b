"""The example of a ticket receiver opens one ticket for a group, closes it, and says why it cannot."""

import http.client
import http.server
import json
import runpy
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from lab.settings import PROJECT
from tests import ticket_desk

EXAMPLE = runpy.run_path(str(PROJECT / "files/alertmanager/ticket_webhook.py"))
TOKEN = "token-of-a-test"


@contextmanager
def running(server: http.server.HTTPServer) -> Iterator[int]:
    """Serve in a thread while the block runs; give the port."""
    threading.Thread(target=server.serve_forever, args=[0.05], daemon=True).start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        server.server_close()


def webhook(folder: Path, desk: int, password: str) -> http.server.HTTPServer:
    """Return the example with settings for a desk at a port."""
    (folder / "token").write_text(TOKEN, encoding="utf-8")
    (folder / "password").write_text(password, encoding="utf-8")
    return EXAMPLE["serve"](
        {
            "port": 0,
            "token_file": folder / "token",
            "desk": f"http://127.0.0.1:{desk}",
            "desk_user": "alerts",
            "desk_password_file": folder / "password",
        }
    )


def notify(port: int, body: object, token: str = TOKEN, **headers: str) -> tuple[int, str]:
    """Send a notification; return status and text of the answer."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    text = body if isinstance(body, str) else json.dumps(body)
    connection.request("POST", "/", text, {"Authorization": f"Bearer {token}"} | headers)
    answer = connection.getresponse()
    return answer.status, answer.read().decode()


def notification(status: str, group: str = "AllApiDown") -> dict[str, object]:
    """Return what Alertmanager sends for one alert."""
    annotations = {"summary": "No instance answers", "description": "0 of 3", "runbook_url": "docs/runbooks/x.md"}
    return {
        "groupKey": f'{{}}:{{alertname="{group}"}}',
        "status": status,
        "groupLabels": {"alertname": group},
        "commonLabels": {"severity": "p1", "site": "main"},
        "alerts": [{"status": status, "annotations": annotations}],
    }


def test_ticket_is_opened_once_followed_up_and_closed(tmp_path: Path) -> None:
    desk = ticket_desk.serve(0, "alerts", "gooD pass'word")
    incidents = desk.RequestHandlerClass.incidents
    with running(desk) as at, running(webhook(tmp_path, at, "gooD pass'word")) as port:
        assert notify(port, notification("resolved")) == (200, "nothing to close")
        assert notify(port, notification("firing")) == (200, "opened")
        assert notify(port, notification("firing")) == (200, "followed up")
        assert notify(port, notification("firing", "RedisDown")) == (200, "opened")
        assert notify(port, notification("resolved")) == (200, "closed")
        # A ticket that is closed stays closed; what comes again is a new one.
        assert notify(port, notification("firing")) == (200, "opened")
    assert [(entry["short_description"], entry["urgency"], entry["state"]) for entry in incidents] == [
        ("AllApiDown main", "1", "6"),
        ("RedisDown main", "1", "1"),
        ("AllApiDown main", "1", "1"),
    ]
    assert incidents[0]["description"] == "firing: No instance answers\n0 of 3\ndocs/runbooks/x.md"
    assert incidents[0]["close_notes"].startswith("resolved: No instance answers")


def test_failure_of_the_desk_is_to_be_tried_again(tmp_path: Path) -> None:
    desk = ticket_desk.serve(0, "alerts", "password")
    with running(desk) as at, running(webhook(tmp_path, at, "another")) as port:
        status, text = notify(port, notification("firing"))
    assert (status, text) == (502, "the ticket system: HTTP Error 401: Unauthorized")
    with running(webhook(tmp_path, at, "another")) as port:
        status, text = notify(port, notification("firing"))
    assert status == 502
    assert "refused" in text


@pytest.mark.parametrize(
    ("body", "token", "status", "text"),
    [
        (notification("firing"), "wrong", 401, "wrong token"),
        ("{", TOKEN, 400, "no notification of Alertmanager"),
        ({"alerts": []}, TOKEN, 400, "groupKey"),
        ([], TOKEN, 400, "no notification of Alertmanager"),
    ],
)
def test_what_is_no_notification_is_refused_and_opens_nothing(
    tmp_path: Path, body: object, token: str, status: int, text: str
) -> None:
    desk = ticket_desk.serve(0, "alerts", "password")
    with running(desk) as at, running(webhook(tmp_path, at, "password")) as port:
        answer = notify(port, body, token)
    assert answer[0] == status
    assert text in answer[1]
    assert desk.RequestHandlerClass.incidents == []


def test_what_is_too_large_is_refused_before_it_is_read(tmp_path: Path) -> None:
    with running(webhook(tmp_path, 1, "password")) as port:
        answer = notify(port, "", **{"Content-Length": "1048577"})
    assert answer == (413, "at most 1048576 bytes are taken")
