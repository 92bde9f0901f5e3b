"""Where Alertmanager sends alerts to."""

from __future__ import annotations

import hmac
from datetime import datetime  # noqa: TC003  (pydantic reads it)
from typing import Annotated, Literal

from flask import Blueprint, request
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from bank import metrics
from bank.api.operations import Operation, Reply, add_limit_headers, operation
from bank.log import logger
from bank.problems import ProblemError
from bank.resources import resources
from bank.services import alerts

blueprint = Blueprint("alerts", __name__)
blueprint.after_request(add_limit_headers)
# Times before this mean "not yet" to Alertmanager, which writes the year 1.
FIRST_YEAR = 1970
# A notification names every alert of its group: more than a form or an order ever holds.
MAX_BODY_BYTES = 512 * 1024

Text = Annotated[str, Field(max_length=4_096, pattern=r"^[^\u0000]*$")]
Texts = Annotated[dict[Annotated[str, Field(max_length=256, pattern=r"^[^\u0000]*$")], Text], Field(max_length=64)]


class Received(BaseModel):
    """What this interface reads of Alertmanager's format; later versions of it may add more."""

    model_config = ConfigDict(extra="ignore", frozen=True, strict=True, hide_input_in_errors=True)


class AlertNotice(Received):
    """One alert."""

    status: Literal["firing", "resolved"]
    labels: Texts
    annotations: Texts = {}
    starts_at: Annotated[AwareDatetime, Field(alias="startsAt")]
    ends_at: Annotated[AwareDatetime | None, Field(alias="endsAt")] = None
    fingerprint: Annotated[str, Field(pattern=r"^[0-9A-Za-z]{1,64}$")]


class Notification(Received):
    """A notification of Alertmanager's webhook receiver, version 4."""

    version: Literal["4"]
    alerts: Annotated[list[AlertNotice], Field(min_length=1, max_length=500)]


class AlertsTaken(BaseModel):
    """What a notification led to."""

    opened: int
    closed: int


def _prove() -> None:
    request.max_content_length = MAX_BODY_BYTES
    secret = resources().settings.webhook.secret.get_secret_value()
    if not secret:
        raise ProblemError(503, "This bank takes no alerts: no secret is set for them.", kind="webhook-off")
    given = request.headers.get("Authorization", "").encode()
    if not hmac.compare_digest(given, f"Bearer {secret}".encode()):
        logger.warning(
            "alert refused",
            **{
                "event.dataset": "bank.user_behavior",
                "event.category": ["authentication"],
                "event.type": ["denied"],
                "event.action": "alert-webhook",
                "event.outcome": "failure",
            },
        )
        raise ProblemError(401, "The secret is missing or wrong.")


@operation(
    blueprint,
    Operation(
        name="receiveAlerts",
        method="POST",
        rule="/api/webhook/alert",
        summary="Take alerts from Alertmanager (webhook format version 4).",
        prove=_prove,
        body=Notification,
        answers={200: AlertsTaken},
        problems=(401,),
        limit="alert",
    ),
)
def receive(body: Notification) -> Reply:
    """Store alerts; the same notification again changes nothing."""
    notices = [
        alerts.Notice(
            alert.fingerprint, alert.starts_at, _time(alert.ends_at), alert.status, alert.labels, alert.annotations
        )
        for alert in body.alerts
    ]
    recorded = alerts.record(resources().engine, notices)
    for notice in notices:
        metrics.ALERTS.labels(notice.severity, notice.status).inc()
    for one in recorded.told:
        metrics.ALERT_TOLD_SECONDS.labels(one.severity).observe(one.time.total_seconds())
    for one in recorded.lasted:
        metrics.ALERT_LASTED_SECONDS.labels(one.severity).observe(one.time.total_seconds())
    logger.info(
        "alerts received",
        **{
            "event.dataset": "bank.app",
            "event.kind": "alert",
            "event.action": "alert-webhook",
            "event.outcome": "success",
            "event.reason": f"{recorded.opened} opened, {recorded.closed} closed, {len(notices)} named",
        },
    )
    return Reply(AlertsTaken(opened=recorded.opened, closed=recorded.closed))


def _time(value: datetime | None) -> datetime | None:
    return value if value is not None and value.year > FIRST_YEAR else None
