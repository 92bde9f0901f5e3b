"""How suspicious an order is: a score from 0 to 100, made of five indicators that each say how many points they gave.

The indicators follow the risk factors that payment services must watch (Commission Delegated Regulation (EU) 2018/389,
article 2(2)): amounts, known scenarios such as many orders at once, unusual payees, unusual devices and places, and
stolen credentials. Nothing here asks a database or a clock: the same signals always give the same score, and more of
any of them never gives less.

The points are chosen so that no order up to the low value can reach the default limit for holding, 80: without the
amount's 30 points, 70 are left.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from bank.config import Fraud

# Changes with every change of what is below, so that an old decision can be understood.
RULES = "1"

# Amount: below this many earlier orders nobody can tell what is usual for an account.
ENOUGH_ORDERS = 5
# An amount above the largest of the earlier ones is unusual; above three times of it, it belongs to no habit.
FAR_ABOVE = 3
# Thieves empty accounts: this many tenths of what is available, or more, count as all of it.
EMPTYING_TENTHS = 9
AMOUNT_UNUSUAL = 15
AMOUNT_MOST = 30

# Velocity: how many orders the same person gave in the ten minutes before. With form, review and confirmation a
# person needs about two minutes for one; ten are more than a hurried person gives.
PERSON_FAST, PERSON_TOO_FAST = 5, 10
# Programs are fast by nature; the limit of the API lets 1,200 pass in the same time.
PROGRAM_FAST, PROGRAM_TOO_FAST = 50, 100
VELOCITY_FAST = 10
VELOCITY_MOST = 20

# A payee who was neither paid nor saved before. Everybody has new ones, so this alone is little.
NEW_PAYEE = 15

# An address changes with every mobile network, a browser rarely.
NEW_PLACE = 8
NEW_DEVICE = 15

# Credentials: two failures of an hour are somebody's own typing, the third is more than that; a thief changes password
# or second factor first, and pays within a day.
FAILURES = 3
CREDENTIALS_EACH = 10


class Indicator(StrEnum):
    """What can make an order suspicious; the values are stored, logged and counted."""

    AMOUNT = "amount"
    VELOCITY = "velocity"
    NEW_PAYEE = "new-payee"
    NEW_DEVICE = "new-device"
    CREDENTIALS = "credentials"


class Decision(StrEnum):
    """What was done with an order; the values are stored, logged and counted."""

    ALLOWED = "allowed"
    FLAGGED = "flagged"
    """Carried out, or waiting for its amount alone, but staff sees it."""
    HELD = "held"


@dataclass(frozen=True)
class Signals:
    """What the rules look at; money in minor units of the order's currency."""

    amount_minor: int
    low_value_minor: int
    available_minor: int | None
    """What the account could spare before the order; None: without a limit."""
    earlier_orders: int
    """How many payments out of the account there are among its latest movements."""
    largest_minor: int
    """The largest of them."""
    recent_orders: int
    """Orders of the person in the ten minutes before."""
    by_program: bool
    knows_payee: bool
    is_new_device: bool
    """The session began in a browser in which the person had never logged in."""
    is_new_place: bool
    """It began at an address from which the person had never logged in, or goes on at another one."""
    refused_log_ins: int
    """Of the person, in the hour before."""
    credential_changes: int
    """Of password and second factor, in the day before."""


@dataclass(frozen=True)
class Assessment:
    """A score with its reasons: the indicators that had points, and the signals behind them."""

    score: int
    points: Mapping[Indicator, int]
    signals: Signals
    rules: str = RULES

    @property
    def inputs(self) -> dict[str, int | bool | None]:
        """Return the signals by name."""
        return asdict(self.signals)


def assess(signals: Signals) -> Assessment:
    """Return the score of an order."""
    found = {
        Indicator.AMOUNT: _amount(signals),
        Indicator.VELOCITY: _velocity(signals),
        Indicator.NEW_PAYEE: 0 if signals.knows_payee else NEW_PAYEE,
        Indicator.NEW_DEVICE: NEW_DEVICE if signals.is_new_device else NEW_PLACE if signals.is_new_place else 0,
        Indicator.CREDENTIALS: _credentials(signals),
    }
    points = {indicator: count for indicator, count in found.items() if count}
    return Assessment(sum(points.values()), points, signals)


def decide(score: int, policy: Fraud) -> Decision:
    """Return what is to be done with an order of this score; a policy that only observes holds nothing."""
    if score >= policy.hold_from_score and policy.mode == "hold":
        return Decision.HELD
    return Decision.FLAGGED if score >= policy.flag_from_score else Decision.ALLOWED


def _amount(signals: Signals) -> int:
    if signals.amount_minor <= signals.low_value_minor:
        return 0
    if signals.earlier_orders < ENOUGH_ORDERS:
        points = AMOUNT_UNUSUAL
    elif signals.amount_minor > FAR_ABOVE * signals.largest_minor:
        points = AMOUNT_MOST
    else:
        points = AMOUNT_UNUSUAL if signals.amount_minor > signals.largest_minor else 0
    if signals.available_minor is not None and 10 * signals.amount_minor >= EMPTYING_TENTHS * signals.available_minor:
        points += AMOUNT_UNUSUAL
    return min(points, AMOUNT_MOST)


def _velocity(signals: Signals) -> int:
    fast, too_fast = (PROGRAM_FAST, PROGRAM_TOO_FAST) if signals.by_program else (PERSON_FAST, PERSON_TOO_FAST)
    if signals.recent_orders >= too_fast:
        return VELOCITY_MOST
    return VELOCITY_FAST if signals.recent_orders >= fast else 0


def _credentials(signals: Signals) -> int:
    guessed, changed = signals.refused_log_ins >= FAILURES, signals.credential_changes > 0
    return CREDENTIALS_EACH * (guessed + changed)
