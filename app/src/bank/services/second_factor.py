"""The second factor: time-based codes (RFC 6238: SHA-1, 30 s, 6 digits) and recovery codes.

A code works once: the time step that it belongs to is remembered, and neither it nor an earlier one is taken again,
on whichever instance. Seeds are encrypted, bound to their owner; of recovery codes there are only hashes. Those are
plain SHA-256, because a code holds 120 random bits (OWASP ASVS 5.0, 6.5.2 asks for 112).
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
import secrets
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import pyotp
from sqlalchemy import delete, func, insert, select, update

from bank.keys import UnsealError
from bank.models import RecoveryCode, SecondFactor, User
from bank.services import audit, notifications

if TYPE_CHECKING:
    import uuid

    from sqlalchemy import Connection, Engine

    from bank.keys import Keyring

PURPOSE = "second factor"
ISSUER = "Linden Bank"
STEP_SECONDS = 30
DRIFT_STEPS = 1
RECOVERY_CODES = 10
RECOVERY_BYTES = 15
GROUP = 6
_CODE = re.compile(r"[0-9]{6}", re.ASCII)
# Compared when somebody has no second factor, so that the answer takes the same work.
_DUMMY = pyotp.random_base32()

Factor = Literal["totp", "recovery"]


class WrongCodeError(Exception):
    """The code is wrong, was used before, or is out of time."""


class AlreadyEnrolledError(Exception):
    """The person has a second factor."""


@dataclass(frozen=True)
class State:
    """Whether a person has a second factor, and how many recovery codes are left."""

    enrolled: bool
    recovery_codes: int


def new_seed() -> str:
    """Return a random seed of 160 bits, as base32."""
    return pyotp.random_base32()


def enrolment_uri(seed: str, name: str) -> str:
    """Return what an authenticator app reads from the QR code."""
    return pyotp.TOTP(seed, interval=STEP_SECONDS).provisioning_uri(name=name, issuer_name=ISSUER)


def state(engine: Engine, user_id: uuid.UUID) -> State:
    """Return what a person has."""
    with engine.connect() as connection:
        enrolled = connection.execute(select(SecondFactor.user_id).where(SecondFactor.user_id == user_id)).scalar()
        left = connection.execute(
            select(func.count()).where(RecoveryCode.user_id == user_id, RecoveryCode.used_at.is_(None))
        ).scalar_one()
    return State(enrolled is not None, left)


def _matching_step(seed: str, code: str) -> int | None:
    """Return the time step of a code; every step within the drift is looked at, whichever fits."""
    totp, now, found = pyotp.TOTP(seed, interval=STEP_SECONDS), int(time.time()) // STEP_SECONDS, None
    for step in range(now - DRIFT_STEPS, now + DRIFT_STEPS + 1):
        if hmac.compare_digest(totp.generate_otp(step), code):
            found = step
    return found


def _normal(code: str) -> str:
    return re.sub(r"[\s-]", "", code).upper()


def _hash(user_id: uuid.UUID | None, code: str) -> bytes:
    return hashlib.sha256((user_id.bytes if user_id else b"") + _normal(code).encode()).digest()


def _replace_recovery_codes(connection: Connection, user_id: uuid.UUID) -> list[str]:
    connection.execute(delete(RecoveryCode).where(RecoveryCode.user_id == user_id))
    codes = []
    for _ in range(RECOVERY_CODES):
        letters = base64.b32encode(secrets.token_bytes(RECOVERY_BYTES)).decode()
        codes.append("-".join(letters[start : start + GROUP] for start in range(0, len(letters), GROUP)))
    connection.execute(
        insert(RecoveryCode), [{"user_id": user_id, "code_hash": _hash(user_id, code)} for code in codes]
    )
    return codes


def _end_other_sessions(connection: Connection, user_id: uuid.UUID) -> int:
    return connection.execute(
        update(User)
        .where(User.id == user_id)
        .values(credentials_version=User.credentials_version + 1)
        .returning(User.credentials_version)
    ).scalar_one()


def enrol(
    engine: Engine, keys: Keyring, user_id: uuid.UUID, *, seed: str, code: str, origin: audit.Origin
) -> tuple[list[str], int]:
    """Begin to use a seed, once a code proves that the person's app holds it.

    Returns:
        The recovery codes, which cannot be shown again, and the version of the person's credentials from now on.

    Raises:
        WrongCodeError: The code does not belong to the seed.
        AlreadyEnrolledError: There is a second factor already.
    """
    step = _matching_step(seed, _normal(code))
    if step is None:
        raise WrongCodeError
    with engine.begin() as connection:
        # Two forms sent at once wait for each other here.
        connection.execute(select(User.id).where(User.id == user_id).with_for_update())
        if connection.execute(select(SecondFactor.user_id).where(SecondFactor.user_id == user_id)).one_or_none():
            raise AlreadyEnrolledError
        sealed = keys.seal(PURPOSE, seed.encode(), str(user_id))
        connection.execute(insert(SecondFactor).values(user_id=user_id, seed=sealed, last_step=step))
        codes = _replace_recovery_codes(connection, user_id)
        version = _end_other_sessions(connection, user_id)
        notifications.tell(connection, user_id, notifications.Kind.SECOND_FACTOR_ON)
        audit.record(connection, origin, "second-factor-enrol", audit.Object("user", str(user_id)))
    return codes, version


def use(engine: Engine, keys: Keyring, user_id: uuid.UUID | None, code: str) -> Factor | None:
    """Use up a code of the app or a recovery code.

    Args:
        engine: The database.
        keys: To open the seed.
        user_id: Whose code; None for nobody, which takes as much work and is never right.
        code: What the person typed.

    Returns:
        What it was, or None if it is not right.
    """
    code = _normal(code)
    with engine.begin() as connection:
        if not _CODE.fullmatch(code):
            used = connection.execute(
                update(RecoveryCode)
                .where(
                    RecoveryCode.user_id == user_id,
                    RecoveryCode.code_hash == _hash(user_id, code),
                    RecoveryCode.used_at.is_(None),
                )
                .values(used_at=func.now())
            )
            return "recovery" if used.rowcount else None
        sealed = connection.execute(select(SecondFactor.seed).where(SecondFactor.user_id == user_id)).scalar()
        seed = keys.unseal(PURPOSE, sealed, str(user_id))[0].decode() if sealed else _DUMMY
        step = _matching_step(seed, code)
        if step is None or sealed is None:
            return None
        used = connection.execute(
            update(SecondFactor)
            .where(SecondFactor.user_id == user_id, SecondFactor.last_step < step)
            .values(last_step=step)
        )
        return "totp" if used.rowcount else None


def renew_recovery_codes(engine: Engine, user_id: uuid.UUID, origin: audit.Origin) -> list[str]:
    """Replace the recovery codes; the caller has asked for a code of the app."""
    with engine.begin() as connection:
        codes = _replace_recovery_codes(connection, user_id)
        audit.record(connection, origin, "recovery-codes-renew", audit.Object("user", str(user_id)))
    return codes


def remove(engine: Engine, user_id: uuid.UUID, origin: audit.Origin) -> bool:
    """Take a lost second factor away and end the person's sessions; what an administrator does.

    Returns:
        False if there was none.
    """
    with engine.begin() as connection:
        if not connection.execute(delete(SecondFactor).where(SecondFactor.user_id == user_id)).rowcount:
            return False
        connection.execute(delete(RecoveryCode).where(RecoveryCode.user_id == user_id))
        _end_other_sessions(connection, user_id)
        notifications.tell(connection, user_id, notifications.Kind.SECOND_FACTOR_OFF)
        audit.record(connection, origin, "second-factor-remove", audit.Object("user", str(user_id)))
    return True


def seal_anew(engine: Engine, keys: Keyring, origin: audit.Origin) -> tuple[int, int]:
    """Encrypt with today's secret what the earlier one had sealed.

    Returns:
        How many seeds were changed, and how many no known secret opens.
    """
    changed = unreadable = 0
    with engine.begin() as connection:
        rows = connection.execute(select(SecondFactor.user_id, SecondFactor.seed).with_for_update()).all()
        for row in rows:
            try:
                seed, is_current = keys.unseal(PURPOSE, row.seed, str(row.user_id))
            except UnsealError:
                unreadable += 1
                continue
            if not is_current:
                sealed = keys.seal(PURPOSE, seed, str(row.user_id))
                connection.execute(update(SecondFactor).where(SecondFactor.user_id == row.user_id).values(seed=sealed))
                changed += 1
        if changed:
            audit.record(connection, origin, "key-rotation", audit.Object("keys", PURPOSE), after={"seeds": changed})
    return changed, unreadable
