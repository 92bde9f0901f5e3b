"""Proof that it is still the person who logged in, before something that a thief of the session would want."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING

from flask_babel import gettext
from flask_login import current_user

from bank.log import log_security
from bank.resources import resources
from bank.routes import attempts
from bank.services import second_factor, users

if TYPE_CHECKING:
    from flask_wtf import FlaskForm
    from wtforms import Field


class Proof(StrEnum):
    """What the person must give."""

    NONE = "none"
    PASSWORD = "password"  # noqa: S105  (a kind of proof)
    CODE = "code"


def own_proof() -> Proof:
    """Return what this person proves things with."""
    return Proof.CODE if current_user.has_second_factor else Proof.PASSWORD


def field_of(form: FlaskForm, proof: Proof) -> Field:
    """Return the field of a form that takes a proof."""
    return form.code if proof is Proof.CODE else form.password


def is_right(proof: Proof, field: Field, missing: str) -> bool:
    """Tell whether the field holds a proof; if not, the reason is beside it: ``missing`` if it is empty.

    Raises:
        werkzeug.exceptions.TooManyRequests: There were too many wrong ones.
    """
    if not field.data:
        field.errors = [missing]
        return False
    if take(proof, field.data):
        return True
    field.errors = [
        gettext("This code does not fit. Use the next one.")
        if proof is Proof.CODE
        else gettext("This is not your password.")
    ]
    return False


def take(proof: Proof, given: str) -> bool:
    """Use a proof up, and tell whether it was right; wrong ones are counted.

    Raises:
        werkzeug.exceptions.TooManyRequests: There were too many wrong ones.
        redis.exceptions.RedisError: Attempts cannot be counted.
    """
    counters = [attempts.own_counter(current_user.get_id())]
    attempts.reserve(counters)
    if _fits(proof, given):
        attempts.succeeded(counters)
        return True
    log_security("proof refused", action="step-up", outcome="failure", category="iam", reason=f"wrong {proof}")
    return False


def _fits(proof: Proof, given: str) -> bool:
    found = resources()
    if proof is Proof.CODE:
        return second_factor.use(found.engine, found.keys, current_user.id, given) is not None
    try:
        users.confirm_password(found.engine, current_user.id, given)
    except users.WrongPasswordError:
        return False
    return True
