"""The platform at a glance: what Prometheus' answers say about hosts, services, alerts, backups and objectives."""

from __future__ import annotations

import math
import re
import time
from collections import defaultdict
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from bank.monitoring.prometheus import PrometheusError, Server
from bank.services.alerts import SEVERITIES, UNKNOWN_SEVERITY

if TYPE_CHECKING:
    from collections.abc import Iterable

    from bank.config import Prometheus
    from bank.monitoring.prometheus import Failure, RuleAlert, Sample

HOST_JOB, BANK_JOB = "node", "bank"
UP, PROBE = "up", "probe_success"
SNAPSHOT = "elasticsearch_snapshot_last_success_timestamp_seconds"
BACKUP = "pg_backup_last_success_timestamp_seconds"
IMBALANCE = "bank_ledger_imbalance_minor_units"
REQUESTS = "site:bank_requests:rate5m"
BUDGET = "slo:error_budget_left:ratio"
LIMIT = "capacity:used:ratio"
# One selector for everything costs Prometheus one question, and less than that many expressions.
EXPRESSION = f'{{__name__=~"{"|".join((UP, PROBE, SNAPSHOT, BACKUP, IMBALANCE, REQUESTS, BUDGET, LIMIT))}"}}'
# Always fires: it shows that rules are evaluated.
WATCHDOG = "Watchdog"
FIRING = "firing"
# Busy processors are at work, not at a limit.
NO_LIMIT = "processors"
ALERT_PLACES = ("instance", "mountpoint", "name", "slo")
# The site only matters where there are several.
SHARE_PLACES = ("site", "instance", "mountpoint")
_LINK = re.compile(r"https?://[!-~]+", re.ASCII | re.IGNORECASE)
# Older than this, a copy that is made every day is late.
LATE_SECONDS = 26 * 3600
FULL, SCARCE_BUDGET = 0.9, 0.25


@dataclass(frozen=True)
class Target:
    """Something that Prometheus asks, and whether it answers."""

    name: str
    is_up: bool


@dataclass(frozen=True)
class Service:
    """The targets of one job."""

    name: str
    targets: tuple[Target, ...]

    @property
    def up(self) -> int:
        """Return how many answer."""
        return sum(target.is_up for target in self.targets)

    @property
    def down(self) -> tuple[str, ...]:
        """Return the names of those that do not."""
        return tuple(target.name for target in self.targets if not target.is_up)


@dataclass(frozen=True)
class Reference:
    """What an alert refers to: an address, or a path that whoever reads it may know."""

    text: str

    @property
    def is_link(self) -> bool:
        """Whether a browser may follow it: nothing but http and https, so that no text becomes a script."""
        return bool(_LINK.fullmatch(self.text))


@dataclass(frozen=True)
class FiringAlert:
    """An alert that fires."""

    name: str
    severity: str
    place: str
    since: datetime | None
    summary: str
    runbook: Reference | None
    dashboard: Reference | None


@dataclass(frozen=True)
class Share:
    """A part of a whole, 1 being all of it, and what it is of."""

    value: float
    name: str
    place: str = ""


@dataclass(frozen=True)
class Figures:
    """The platform at a moment; None and empty mean not measured."""

    at: datetime
    url: str
    hosts: tuple[Target, ...]
    services: tuple[Service, ...]
    alerts: tuple[FiringAlert, ...]
    rules_work: bool
    snapshot_at: datetime | None
    backup_at: datetime | None
    imbalance: int | None
    requests_per_second: float | None
    budgets: tuple[Share, ...]
    fullest: Share | None

    @property
    def hosts_down(self) -> int:
        """Return how many hosts do not answer."""
        return sum(not host.is_up for host in self.hosts)

    @property
    def bank(self) -> Service | None:
        """Return the instances of the bank."""
        return next((service for service in self.services if service.name == BANK_JOB), None)

    @property
    def targets(self) -> int:
        """Return how many targets there are."""
        return sum(len(service.targets) for service in self.services)

    @property
    def targets_up(self) -> int:
        """Return how many targets answer."""
        return sum(service.up for service in self.services)

    def is_late(self, moment: datetime) -> bool:
        """Tell whether a copy of that moment is older than a daily one may be."""
        return (self.at - moment).total_seconds() > LATE_SECONDS


@dataclass(frozen=True)
class Seen:
    """What asking led to: figures, unless no server answered, and what is wrong with those that were asked before."""

    figures: Figures | None
    failures: tuple[Failure, ...] = ()


def ask(options: Prometheus, seconds: float) -> Seen:
    """Ask one server after another until one answers, each for its part of the time."""
    end = time.monotonic() + seconds
    failures: list[Failure] = []
    for number, url in enumerate(options.urls):
        now = time.monotonic()
        try:
            with Server(url, options, now + (end - now) / (len(options.urls) - number)) as server:
                samples, alerts = server.query(EXPRESSION), server.alerts()
        except PrometheusError as error:
            failures.append(error.failure)
        else:
            return Seen(summarise(url, samples, alerts), tuple(failures))
    return Seen(None, tuple(failures))


def summarise(url: str, samples: Iterable[Sample], alerts: Iterable[RuleAlert]) -> Figures:
    """Return what the answers of a server mean."""
    named: dict[str, list[Sample]] = defaultdict(list)
    for sample in samples:
        if math.isfinite(sample.value):
            named[sample.metric.get("__name__", "")].append(sample)
    firing = [alert for alert in alerts if alert.state == FIRING]
    services = _services(named[UP], named[PROBE])
    sites = {sample.metric.get("site", "") for found in named.values() for sample in found}
    where = SHARE_PLACES if len(sites) > 1 else SHARE_PLACES[1:]
    limits = [_share(sample, "resource", where) for sample in named[LIMIT] if sample.metric.get("resource") != NO_LIMIT]
    budgets = sorted(
        (_share(sample, "slo", where) for sample in named[BUDGET]), key=lambda share: (share.name, share.place)
    )
    return Figures(
        at=datetime.now(UTC),
        url=url,
        hosts=next((service.targets for service in services if service.name == HOST_JOB), ()),
        services=services,
        alerts=_most_urgent_first(alert for alert in firing if alert.labels.get("alertname") != WATCHDOG),
        rules_work=any(alert.labels.get("alertname") == WATCHDOG for alert in firing),
        snapshot_at=_latest(named[SNAPSHOT]),
        backup_at=_latest(named[BACKUP]),
        imbalance=max((round(sample.value) for sample in named[IMBALANCE]), key=abs, default=None),
        requests_per_second=sum(sample.value for sample in named[REQUESTS]) if named[REQUESTS] else None,
        budgets=tuple(budgets),
        fullest=max(limits, key=lambda share: share.value, default=None),
    )


def _services(ups: Iterable[Sample], probes: Iterable[Sample]) -> tuple[Service, ...]:
    def identity(sample: Sample) -> tuple[str, str, str, str]:
        job, probe, site, instance = (sample.metric.get(name, "") for name in ("job", "probe", "site", "instance"))
        return job, probe, site, instance

    # Whoever looks from outside answers itself when what it looks at does not.
    failed = {identity(sample) for sample in probes if sample.value == 0}
    found: dict[str, list[Target]] = defaultdict(list)
    for sample in ups:
        job, probe, _, instance = key = identity(sample)
        found[f"{job} · {probe}" if probe else job].append(Target(instance, sample.value != 0 and key not in failed))
    return tuple(
        Service(name, tuple(sorted(targets, key=lambda target: (target.is_up, target.name))))
        for name, targets in sorted(found.items())
    )


def _most_urgent_first(alerts: Iterable[RuleAlert]) -> tuple[FiringAlert, ...]:
    found = []
    for alert in alerts:
        labels, texts = alert.labels, alert.annotations
        severity = labels.get("severity", "").lower()
        found.append(
            FiringAlert(
                name=labels.get("alertname", ""),
                severity=severity if severity in SEVERITIES else UNKNOWN_SEVERITY,
                place=_place(labels),
                since=alert.since,
                summary=texts.get("summary", ""),
                runbook=_reference(texts.get("runbook_url", "")),
                dashboard=_reference(texts.get("dashboard_url", "")),
            )
        )
    ranks = {severity: rank for rank, severity in enumerate((*SEVERITIES, UNKNOWN_SEVERITY))}
    return tuple(sorted(found, key=lambda alert: (ranks[alert.severity], alert.name, alert.place)))


def _place(labels: dict[str, str], names: tuple[str, ...] = ALERT_PLACES) -> str:
    return " ".join(labels[name] for name in names if labels.get(name))


def _reference(text: str) -> Reference | None:
    return Reference(text) if text else None


def _share(sample: Sample, name: str, where: tuple[str, ...]) -> Share:
    return Share(sample.value, sample.metric.get(name, ""), _place(sample.metric, where))


def _latest(samples: Iterable[Sample]) -> datetime | None:
    moments = [sample.value for sample in samples if sample.value > 0]
    try:
        return datetime.fromtimestamp(max(moments), UTC) if moments else None
    except (OverflowError, OSError, ValueError):  # no moment that a calendar has
        return None
