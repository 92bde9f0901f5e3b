"""Looking at an order before its money moves: what is known about person, payee and account, the score, its record.

It happens in the transaction that books, once the accounts are locked, so that an order sees all that its account paid
before it. That costs one question; the record goes with the booking. Every order of a customer is looked at but those
between their own accounts, where nothing leaves them, and standing orders, which were confirmed when they were made.
"""

from __future__ import annotations

import ipaddress
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from sqlalchemy import select, text

from bank import account_numbers, database, tracing
from bank.models import Approval, AuditEvent, FraudDecision, User
from bank.services import fraud, ledger

if TYPE_CHECKING:
    import uuid
    from collections.abc import Mapping
    from datetime import datetime

    from sqlalchemy import Connection, Engine

    from bank.config import Fraud

# Movements of an account, and events of a person at log-in, that are looked at: the latest ones, so that a long
# history costs no more than a short one.
MOVEMENTS = 50
LOG_INS = 500
PAGE_LENGTH = 100
# A household or office gets a whole network of this size in IPv6.
IPV6_PREFIX = 64

# Its constants stand in it, so that PostgreSQL can keep one plan for everybody; the actions are those of the index
# ix_audit_events_credentials.
_KNOWN = """
SELECT paid.orders, paid.largest, events.refused, events.changes,
       (SELECT count(*) FROM (SELECT 1 FROM fraud_decisions
                               WHERE user_id = :user_id AND decided_at > now() - interval '10 minutes'
                               LIMIT {most_orders}) recent),
       EXISTS (SELECT 1 FROM beneficiaries WHERE owner_id = :user_id AND number = :payee)
       OR EXISTS (SELECT 1 FROM fraud_decisions d LEFT JOIN approvals a ON a.id = d.approval_id
                   WHERE d.user_id = :user_id AND d.payee = :payee AND coalesce(d.entry_id, a.entry_id) IS NOT NULL)
  FROM (SELECT count(*) AS orders, coalesce(max(-amount_minor), 0) AS largest
          FROM (SELECT amount_minor FROM postings WHERE account_id = :account ORDER BY version DESC
                 LIMIT {movements}) latest
         WHERE amount_minor < 0) paid,
       (SELECT count(*) FILTER (WHERE action = 'log-in-refused' AND occurred_at > now() - interval '1 hour') AS refused,
               count(*) FILTER (WHERE action <> 'log-in-refused') AS changes
          FROM audit_events
         WHERE object_type = 'user' AND object_id = CAST(:user_id AS text) AND occurred_at > now() - interval '1 day'
           AND action IN ('log-in-refused', 'password-change', 'recovery-codes-renew', 'second-factor-enrol',
                          'second-factor-remove')) events
"""
# More orders than these give no more points.
KNOWN = text(_KNOWN.format(movements=MOVEMENTS, most_orders=max(fraud.PERSON_TOO_FAST, fraud.PROGRAM_TOO_FAST)))
_INSERT = """
    INSERT INTO fraud_decisions (user_id, kind, amount_minor, currency, payee, score, decision, rules, indicators,
                                 inputs, entry_id, approval_id)
    VALUES (:judged_user, :judged_kind, :judged_amount, :judged_currency, :judged_payee, :score, :decision, :rules,
            CAST(:indicators AS jsonb), CAST(:inputs AS jsonb), :judged_entry, :judged_approval)
"""
_RECORD = text(_INSERT)
BOOK_JUDGED = ledger.booking_with(_INSERT)


@dataclass(frozen=True)
class Circumstances:
    """How the order came in; an earlier release's session knows nothing of device and place, and they count as known.

    Attributes:
        by_program: With a token, and not from a page.
        is_new_device: From a browser in which the person had never logged in before this session.
        is_new_place: From an address where they had not.
    """

    by_program: bool = False
    is_new_device: bool = False
    is_new_place: bool = False


@dataclass(frozen=True)
class Screened:
    """How an order was judged."""

    assessment: fraud.Assessment
    decision: fraud.Decision
    account: str
    """The account that pays, with all but its last digits hidden."""


class MustWaitError(Exception):
    """The order is to wait for a second person, but its key was claimed for an entry: begin the transaction anew."""

    def __init__(self, screened: Screened) -> None:
        super().__init__("the order is to be held")
        self.screened = screened


class Judge(Protocol):
    """Looks at orders whose accounts are locked."""

    def judge(
        self, connection: Connection, movement: ledger.Movement, debit: ledger.Side, credit: ledger.Side
    ) -> Screened | None:
        """Return how suspicious an order is, or None for one that is not looked at."""


@dataclass(frozen=True)
class Screening:
    """Judges orders by a policy."""

    policy: Fraud
    circumstances: Circumstances = Circumstances()

    def judge(
        self, connection: Connection, movement: ledger.Movement, debit: ledger.Side, credit: ledger.Side
    ) -> Screened | None:
        """Return how suspicious an order is, or None for one that is not looked at; its accounts are locked."""
        if movement.owner_id is None or movement.owner_id == credit.owner_id:
            return None
        with tracing.span("fraud"):
            assessment = fraud.assess(self._signals(connection, movement, debit, credit))
        decision = fraud.decide(assessment.score, self.policy)
        return Screened(assessment, decision, account_numbers.masked(debit.number))

    def _signals(
        self, connection: Connection, movement: ledger.Movement, debit: ledger.Side, credit: ledger.Side
    ) -> fraud.Signals:
        row = database.execute(
            connection,
            KNOWN,
            {
                "user_id": movement.owner_id,
                "account": debit.id,
                "payee": payee_of(movement, credit),
            },
        ).fetchone()
        assert row is not None  # noqa: S101  (aggregates always give a row)
        earlier, largest, refused, changes, recent, knows_payee = row
        return fraud.Signals(
            amount_minor=movement.amount_minor,
            low_value_minor=self.policy.limit_for(movement.currency),
            available_minor=debit.available_after(0),
            earlier_orders=earlier,
            largest_minor=largest,
            recent_orders=recent,
            by_program=self.circumstances.by_program,
            knows_payee=knows_payee,
            is_new_device=self.circumstances.is_new_device,
            is_new_place=self.circumstances.is_new_place,
            refused_log_ins=refused,
            credential_changes=changes,
        )


@dataclass(frozen=True)
class Judged:
    """Gives the judgement that was made before the transaction had to begin anew."""

    screened: Screened

    def judge(
        self, _connection: Connection, _movement: ledger.Movement, _debit: ledger.Side, _credit: ledger.Side
    ) -> Screened:
        """Return it."""
        return self.screened


def payee_of(movement: ledger.Movement, credit: ledger.Side) -> str:
    """Return the number of who is paid: at another bank, or here."""
    return movement.counterparty_number or credit.number


def row_of(
    screened: Screened,
    movement: ledger.Movement,
    credit: ledger.Side,
    *,
    entry_id: uuid.UUID | None = None,
    approval_id: uuid.UUID | None = None,
) -> dict[str, object]:
    """Return the values of the record of a judgement."""
    found = screened.assessment
    return {
        "judged_user": movement.owner_id,
        "judged_kind": movement.kind,
        "judged_amount": movement.amount_minor,
        "judged_currency": movement.currency,
        "judged_payee": payee_of(movement, credit),
        "score": found.score,
        "decision": screened.decision,
        "rules": found.rules,
        "indicators": json.dumps(found.points),
        "inputs": json.dumps(found.inputs),
        "judged_entry": entry_id,
        "judged_approval": approval_id,
    }


def record(connection: Connection, values: Mapping[str, object]) -> None:
    """Keep the judgement of an order that waits; one that is booked has its record in the booking."""
    database.execute(connection, _RECORD, values)


@dataclass(frozen=True)
class Novelty:
    """What is new about a log-in, for as long as its session or token lives."""

    device: bool = False
    place: bool = False


def network_of(address: str) -> str:
    """Return the network that an address stands for: itself, or the household's or office's in IPv6."""
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return "unknown"
    prefix = IPV6_PREFIX if found.version == 6 else found.max_prefixlen  # noqa: PLR2004
    return str(ipaddress.ip_network((found, prefix), strict=False))


def novelty_of(engine: Engine, user_id: uuid.UUID, address: str, *, knows_device: bool) -> Novelty:
    """Tell what is new about a log-in that is not in the audit trail yet; at the very first, nothing is."""
    latest = (
        select(AuditEvent.action, AuditEvent.source_ip)
        .where(AuditEvent.object_type == "user", AuditEvent.object_id == str(user_id))
        .order_by(AuditEvent.number.desc())
        .limit(LOG_INS)
        .subquery()
    )
    with database.reading(engine) as connection:
        query = select(latest.c.source_ip).where(latest.c.action == "log-in").distinct()
        known = {network_of(found) for found in connection.execute(query).scalars()}
    return Novelty(bool(known) and not knows_device, bool(known) and network_of(address) not in known)


@dataclass(frozen=True)
class Suspicious:
    """An order that was flagged or held, as staff sees it; the amount is in minor units."""

    id: int
    decided_at: datetime
    user_id: uuid.UUID
    customer: str
    kind: str
    amount_minor: int
    currency: str
    payee: str
    score: int
    decision: str
    indicators: dict[str, int]
    approval_status: str | None
    """What became of one that waited."""


def suspicious(engine: Engine, length: int = PAGE_LENGTH) -> list[Suspicious]:
    """Return the latest orders that were flagged or held, the newest first."""
    query = (
        select(
            FraudDecision.id,
            FraudDecision.decided_at,
            FraudDecision.user_id,
            User.display_name.label("customer"),
            FraudDecision.kind,
            FraudDecision.amount_minor,
            FraudDecision.currency,
            FraudDecision.payee,
            FraudDecision.score,
            FraudDecision.decision,
            FraudDecision.indicators,
            Approval.status.label("approval_status"),
        )
        .join(User, User.id == FraudDecision.user_id)
        .outerjoin(Approval, Approval.id == FraudDecision.approval_id)
        .where(FraudDecision.decision != "allowed")
        .order_by(FraudDecision.id.desc())
        .limit(length)
    )
    with database.reading(engine) as connection:
        return [Suspicious(**row) for row in connection.execute(query).mappings()]
