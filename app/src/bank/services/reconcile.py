"""Proof that the ledger adds up: every check of one reconciliation sees the same snapshot of the database."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

from sqlalchemy import Engine, insert, text

from bank.models import Reconciliation

if TYPE_CHECKING:
    from datetime import datetime

MAX_FINDINGS = 200
FIGURES_NS = 60 * 10**9


@dataclass(frozen=True)
class Check:
    """A rule of the ledger, and a query for what breaks it: object, what is wrong, by how many minor units."""

    name: str
    query: str
    next_step: str


@dataclass(frozen=True)
class Finding:
    """A row that breaks a rule."""

    check: Check
    subject: str
    problem: str
    off_minor: int


@dataclass(frozen=True)
class Result:
    """What a reconciliation found; ``off_minor`` of a check adds up over its findings."""

    findings: dict[str, list[Finding]] = field(default_factory=dict)

    @property
    def count(self) -> int:
        """Return the number of findings; a check stops counting at 200."""
        return sum(len(found) for found in self.findings.values())

    @property
    def imbalance_minor(self) -> int:
        """Return by how many minor units the ledger is off; 0 is the only good value."""
        return sum(finding.off_minor for found in self.findings.values() for finding in found)


_RESTORE = "compare with the last backup in which it was right, and restore what was changed outside the bank"
CHECKS = (
    Check(
        "entries are balanced",
        """
        SELECT 'entry ' || e.id, count(p.id) || ' postings that sum to ' || coalesce(sum(p.amount_minor), 0),
               abs(coalesce(sum(p.amount_minor), 0))
          FROM journal_entries e LEFT JOIN postings p ON p.entry_id = e.id
         GROUP BY e.id HAVING coalesce(sum(p.amount_minor), 0) <> 0 OR count(p.id) < 2
        """,
        _RESTORE,
    ),
    Check(
        "postings are in the currency of their entry",
        """
        SELECT 'posting ' || p.id, 'account in ' || coalesce(a.currency, '?') || ', entry in ' ||
               coalesce(e.currency, '?'), abs(p.amount_minor)
          FROM postings p LEFT JOIN accounts a ON a.id = p.account_id LEFT JOIN journal_entries e ON e.id = p.entry_id
         WHERE a.currency IS DISTINCT FROM e.currency OR a.id IS NULL
        """,
        _RESTORE,
    ),
    Check(
        "balances equal the sum of their postings",
        """
        SELECT 'account ' || coalesce(b.account_id, p.account_id),
               'balance ' || coalesce(b.balance_minor::text, 'missing') || ', postings ' || coalesce(p.total, 0),
               abs(coalesce(b.balance_minor, 0) - coalesce(p.total, 0))
          FROM balances b
          FULL JOIN (SELECT account_id, sum(amount_minor) AS total FROM postings GROUP BY account_id) p
               USING (account_id)
         WHERE b.balance_minor IS DISTINCT FROM coalesce(p.total, 0)
        """,
        "stop payments of the account; the postings are the truth unless another check names one of them",
    ),
    Check(
        "versions have no gap and carry the running balance",
        """
        SELECT 'account ' || account_id, 'at version ' || min(version) || ' the history does not follow on',
               max(abs(balance_after_minor - running))
          FROM (SELECT account_id, version, balance_after_minor,
                       row_number() OVER history AS expected, sum(amount_minor) OVER history AS running
                  FROM postings WINDOW history AS (PARTITION BY account_id ORDER BY version)) p
         WHERE version <> expected OR balance_after_minor <> running
         GROUP BY account_id
        UNION ALL
        SELECT 'account ' || b.account_id, 'version ' || b.version || ', postings ' || count(p.id), 0
          FROM balances b LEFT JOIN postings p USING (account_id)
         GROUP BY b.account_id, b.version HAVING b.version <> count(p.id)
        """,
        "a posting was removed, added or changed by hand: " + _RESTORE,
    ),
    Check(
        "each currency sums to zero",
        """
        SELECT 'currency ' || a.currency, 'balances sum to ' || sum(b.balance_minor), abs(sum(b.balance_minor))
          FROM balances b JOIN accounts a ON a.id = b.account_id
         GROUP BY a.currency HAVING sum(b.balance_minor) <> 0
        """,
        "look at the accounts that the other checks name",
    ),
    Check(
        "reserved money equals the holds",
        """
        SELECT 'account ' || b.account_id,
               'reserved ' || b.held_minor || ', holds ' || coalesce(sum(h.amount_minor), 0),
               abs(b.held_minor - coalesce(sum(h.amount_minor), 0))
          FROM balances b LEFT JOIN holds h ON h.account_id = b.account_id AND h.status = 'held'
         GROUP BY b.account_id, b.held_minor HAVING b.held_minor <> coalesce(sum(h.amount_minor), 0)
        """,
        "the holds are the truth; find out who changed the balance row",
    ),
    Check(
        "no account is below its limit",
        """
        SELECT 'account ' || account_id,
               'available ' || balance_minor - held_minor || ', limit ' || -overdraft_limit_minor,
               -overdraft_limit_minor - (balance_minor - held_minor)
          FROM balances WHERE balance_minor - held_minor < -overdraft_limit_minor
        """,
        "stop payments of the account and ask its owner",
    ),
    Check(
        "posted holds and approvals are what was booked",
        """
        SELECT 'hold ' || h.id, 'posted ' || h.posted_minor || ', booked ' || coalesce(-sum(p.amount_minor), 0),
               abs(h.posted_minor + coalesce(sum(p.amount_minor), 0))
          FROM holds h LEFT JOIN postings p ON p.entry_id = h.entry_id AND p.account_id = h.account_id
         WHERE h.status = 'posted'
         GROUP BY h.id HAVING h.posted_minor <> coalesce(-sum(p.amount_minor), 0)
        UNION ALL
        SELECT 'approval ' || v.id, 'approved ' || v.amount_minor || ', booked ' || coalesce(sum(p.amount_minor), 0),
               abs(v.amount_minor - coalesce(sum(p.amount_minor), 0))
          FROM approvals v LEFT JOIN postings p ON p.entry_id = v.entry_id AND p.account_id = v.credit_account_id
         WHERE v.status = 'approved'
         GROUP BY v.id HAVING v.amount_minor <> coalesce(sum(p.amount_minor), 0)
        """,
        _RESTORE,
    ),
    Check(
        "reversals are the exact opposite",
        """
        SELECT 'entry ' || r.id, 'account ' || p.account_id || ' keeps ' || sum(p.amount_minor),
               abs(sum(p.amount_minor))
          FROM journal_entries r JOIN postings p ON p.entry_id IN (r.id, r.reverses_id)
         WHERE r.reverses_id IS NOT NULL
         GROUP BY r.id, p.account_id HAVING sum(p.amount_minor) <> 0
        """,
        _RESTORE,
    ),
    Check(
        "keys lead to what they made",
        """
        SELECT 'key of user ' || k.user_id || ' from ' || k.created_at, 'its result does not exist', 0
          FROM idempotency_keys k
          LEFT JOIN journal_entries e ON e.id = k.entry_id
          LEFT JOIN approvals v ON v.id = k.approval_id
          LEFT JOIN holds h ON h.id = k.hold_id
          LEFT JOIN standing_orders o ON o.id = k.standing_order_id
         WHERE coalesce(e.id, v.id, h.id, o.id) IS NULL
        """,
        "an order of this person may be carried out again if it is sent again: " + _RESTORE,
    ),
)


def reconcile(engine: Engine) -> Result:
    """Run all checks in one read-only snapshot, and keep the figures for the metrics."""
    result = Result()
    with (
        engine.connect().execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True) as connection,
        connection.begin(),
    ):
        for check in CHECKS:
            rows = connection.execute(text(f"{check.query} LIMIT {MAX_FINDINGS}"))
            result.findings[check.name] = [Finding(check, row[0], row[1], int(row[2])) for row in rows]
    with engine.begin() as connection:
        connection.execute(insert(Reconciliation).values(findings=result.count, imbalance_minor=result.imbalance_minor))
    return result


@dataclass(frozen=True)
class Figures:
    """What the metrics report; times of the last reconciliation and check of the audit trail, None before the first."""

    imbalance_minor: int
    findings: int
    reconciled_at: datetime | None
    pending_approvals: int
    overdue_orders: int
    """Standing orders of a day before today that were not run: above 0 for long, no scheduler works."""
    oldest_approval_seconds: int
    """How long the oldest approval has been waiting; 0 if none is."""
    audit_checked_at: datetime | None
    audit_is_whole: bool


_FIGURES = text("""
SELECT (SELECT coalesce(sum(abs(total)), 0) FROM (SELECT sum(b.balance_minor) AS total
          FROM balances b JOIN accounts a ON a.id = b.account_id GROUP BY a.currency) t),
       r.imbalance_minor, r.findings, r.finished_at,
       w.waiting,
       (SELECT count(*) FROM standing_orders WHERE status = 'active' AND next_date < (now() AT TIME ZONE 'UTC')::date),
       coalesce(extract(epoch FROM now() - w.since), 0), a.finished_at, a.problem IS NULL
  FROM (SELECT count(*) AS waiting, min(created_at) AS since
          FROM approvals WHERE status = 'pending' AND expires_at > now()) w
  LEFT JOIN (SELECT * FROM reconciliations ORDER BY id DESC LIMIT 1) r ON true
  LEFT JOIN (SELECT * FROM audit_checks ORDER BY id DESC LIMIT 1) a ON true
""")
_cache: WeakKeyDictionary[Engine, tuple[int, Figures]] = WeakKeyDictionary()
_cache_lock = threading.Lock()


def figures(engine: Engine) -> Figures:
    """Return the state of the ledger, at most a minute old: from the last reconciliation, and from all balances now.

    It is the same whichever worker or instance is asked, since all of it is in the database.
    """
    with _cache_lock:
        kept = _cache.get(engine)
        if kept and time.monotonic_ns() - kept[0] < FIGURES_NS:
            return kept[1]
        with engine.connect() as connection:
            now_off, off, findings, finished_at, pending, overdue, waits, *audited = connection.execute(_FIGURES).one()
        found = Figures(
            max(int(now_off), int(off or 0)), int(findings or 0), finished_at, int(pending), int(overdue),
            int(waits), *audited,
        )  # fmt: skip
        _cache[engine] = (time.monotonic_ns(), found)
        return found
