"""The score of an order: each indicator alone, its boundaries, and what holds for every order."""

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bank.config import Fraud
from bank.services import fraud
from bank.services.fraud import Decision, Indicator, Signals

# An order about which nothing is strange.
USUAL = Signals(
    amount_minor=5_000,
    low_value_minor=3_000,
    available_minor=100_000,
    earlier_orders=20,
    largest_minor=5_000,
    recent_orders=0,
    by_program=False,
    knows_payee=True,
    is_new_device=False,
    is_new_place=False,
    refused_log_ins=0,
    credential_changes=0,
)
DEFAULT = Fraud()


def points(**changes):
    return dict(fraud.assess(dataclasses.replace(USUAL, **changes)).points)


def test_usual_order_has_no_points():
    found = fraud.assess(USUAL)
    assert (found.score, found.points, found.rules) == (0, {}, fraud.RULES)
    assert found.inputs == dataclasses.asdict(USUAL)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"amount_minor": 5_000}, 0),
        ({"amount_minor": 5_001}, 15),
        ({"amount_minor": 15_000}, 15),
        ({"amount_minor": 15_001}, 30),
        # Too few earlier orders to tell what is usual, however large they were.
        ({"earlier_orders": 4}, 15),
        ({"earlier_orders": 4, "largest_minor": 1}, 15),
        ({"earlier_orders": 5}, 0),
        # Nine tenths of what is there.
        ({"available_minor": 5_556}, 0),
        ({"available_minor": 5_555}, 15),
        ({"available_minor": 5_000, "amount_minor": 4_499}, 0),
        ({"available_minor": 5_000, "amount_minor": 4_500}, 15),
        ({"available_minor": 5_000, "amount_minor": 5_001}, 30),
        ({"available_minor": 5_000, "amount_minor": 20_000}, 30),
        ({"available_minor": None, "amount_minor": 5_001}, 15),
        # A low value says nothing, whatever else is so.
        ({"amount_minor": 3_000, "largest_minor": 1, "available_minor": 3_000}, 0),
        ({"amount_minor": 3_001, "largest_minor": 1, "available_minor": 3_001}, 30),
        ({"amount_minor": 3_000, "low_value_minor": 2_999, "largest_minor": 1}, 30),
    ],
)
def test_amount(changes, expected):
    assert points(**changes) == ({Indicator.AMOUNT: expected} if expected else {})


@pytest.mark.parametrize(
    ("recent", "by_program", "expected"),
    [(4, False, 0), (5, False, 10), (9, False, 10), (10, False, 20), (10_000, False, 20),
     (49, True, 0), (50, True, 10), (99, True, 10), (100, True, 20)],
)  # fmt: skip
def test_velocity_is_another_for_programs(recent, by_program, expected):
    found = points(recent_orders=recent, by_program=by_program)
    assert found == ({Indicator.VELOCITY: expected} if expected else {})


def test_payee_device_and_place():
    assert points(knows_payee=False) == {Indicator.NEW_PAYEE: 15}
    assert points(is_new_place=True) == {Indicator.NEW_DEVICE: 8}
    assert points(is_new_device=True) == {Indicator.NEW_DEVICE: 15}
    # A new browser is at a new place as often as not: that is no second reason.
    assert points(is_new_device=True, is_new_place=True) == {Indicator.NEW_DEVICE: 15}


@pytest.mark.parametrize(
    ("refused", "changes", "expected"), [(2, 0, 0), (3, 0, 10), (0, 1, 10), (0, 2, 10), (3, 1, 20), (99, 99, 20)]
)
def test_credentials(refused, changes, expected):
    found = points(refused_log_ins=refused, credential_changes=changes)
    assert found == ({Indicator.CREDENTIALS: expected} if expected else {})


@pytest.mark.parametrize(
    ("score", "policy", "decision"),
    [
        (0, DEFAULT, Decision.ALLOWED),
        (59, DEFAULT, Decision.ALLOWED),
        (60, DEFAULT, Decision.FLAGGED),
        (79, DEFAULT, Decision.FLAGGED),
        (80, DEFAULT, Decision.HELD),
        (100, DEFAULT, Decision.HELD),
        (100, Fraud(mode="observe"), Decision.FLAGGED),
        (59, Fraud(mode="observe"), Decision.ALLOWED),
        (1, Fraud(flag_from_score=1, hold_from_score=1), Decision.HELD),
        (99, Fraud(flag_from_score=100, hold_from_score=100), Decision.ALLOWED),
    ],
)
def test_decision(score, policy, decision):
    assert fraud.decide(score, policy) is decision


SIGNALS = st.builds(
    Signals,
    amount_minor=st.integers(1, 10**12),
    low_value_minor=st.integers(0, 10**6),
    available_minor=st.none() | st.integers(0, 10**12),
    earlier_orders=st.integers(0, 50),
    largest_minor=st.integers(0, 10**12),
    recent_orders=st.integers(0, 200),
    by_program=st.booleans(),
    knows_payee=st.booleans(),
    is_new_device=st.booleans(),
    is_new_place=st.booleans(),
    refused_log_ins=st.integers(0, 200),
    credential_changes=st.integers(0, 200),
)
# What may only make an order more suspicious as it grows, and by how much it grows here.
MORE = st.fixed_dictionaries(
    {name: st.integers(0, 10**6) for name in ("amount_minor", "recent_orders", "refused_log_ins", "credential_changes")}
)
FLAGS = ("is_new_device", "is_new_place")


@given(SIGNALS)
def test_score_is_the_sum_of_its_points_and_within_0_to_100(signals):
    found = fraud.assess(signals)
    assert 0 <= found.score <= 100
    assert found.score == sum(found.points.values())
    assert all(count > 0 for count in found.points.values())
    assert fraud.assess(signals) == found


@given(SIGNALS, MORE, st.booleans())
def test_more_of_any_signal_never_lowers_the_score(signals, more, is_new):
    worse = {name: getattr(signals, name) + count for name, count in more.items()}
    worse |= {name: getattr(signals, name) or is_new for name in FLAGS}
    worse |= {"knows_payee": signals.knows_payee and not is_new}
    assert fraud.assess(dataclasses.replace(signals, **worse)).score >= fraud.assess(signals).score


@given(SIGNALS)
def test_low_value_is_never_held_by_default(signals):
    low = dataclasses.replace(signals, low_value_minor=signals.amount_minor)
    assert fraud.assess(low).score <= 70
    assert fraud.decide(fraud.assess(low).score, DEFAULT) is not Decision.HELD


def test_everything_at_once_is_100():
    worst = dataclasses.replace(
        USUAL, amount_minor=10**9, recent_orders=10, knows_payee=False, is_new_device=True, refused_log_ins=3,
        credential_changes=1,
    )  # fmt: skip
    found = fraud.assess(worst)
    assert found.score == 100
    assert set(found.points) == set(Indicator)
