"""Password hashes: Argon2id, and bcrypt as far as it was imported; and what a new password must be like."""

from __future__ import annotations

import re
import string

import bcrypt
from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from bank import tracing
from bank.texts import marked

# OWASP ASVS 5.0, 6.2.1 and 6.2.9: the bank asks for more than the 8 characters that are the least allowed there.
MIN_LENGTH = 12
MAX_LENGTH = 1024
# bcrypt knows only this much of a password; what imported hashes were made from ended here.
BCRYPT_BYTES = 72
DISTINCT_CHARACTERS = 5
HASHER = PasswordHasher(time_cost=2, memory_cost=19456, parallelism=1)
# Verified when a user is unknown, so that the answer takes the same time.
_DUMMY = HASHER.hash("a password that nobody has")
_BCRYPT = re.compile(r"\$2[aby]\$[0-9]{2}\$[./A-Za-z0-9]{53}", re.ASCII)

# Guessed first: what people choose, the words of this site, and the rows of a keyboard. Most lists of common
# passwords hold nothing of 12 characters but these, repeated or with a number behind them.
_COMMON_WORDS = frozenset(
    word
    for line in (
        "password passwort passphrase motdepasse contrasena secret secrets private letmein welcome bienvenue bonjour",
        "hello login logon signin access account accounts customer admin administrator administrateur root superuser",
        "user username test tester testing demo guest default changeme change master manager teller supervisor auditor",
        "bank banking banker banque linden lindenbank mybank money payment transfer euro euros dollar cash credit",
        "iloveyou jetaime love lovely sunshine princess princesse dragon monkey football baseball basketball soccer",
        "superman batman starwars pokemon shadow michael jennifer jordan charlie thomas nicolas azerty qwerty qwertz",
        "qwertyuiop azertyuiop asdfghjkl qsdfghjklm zxcvbnm wxcvbn asdf zxcv qwer abcdefgh abcdef abcd abc azertyui",
        "computer internet google facebook whatever trustno freedom blink summer winter spring autumn january february",
        "march april june july august september october november december monday tuesday wednesday thursday friday",
        "saturday sunday paris london berlin france germany company business office",
    )
    for word in line.split()
)
_SEQUENCES = tuple(
    row + row[::-1] + row
    for row in ("01234567890123456789", "abcdefghijklmnopqrstuvwxyz", "qwertyuiopasdfghjklzxcvbnm",
                "azertyuiopqsdfghjklmwxcvbn", "qwertzuiopasdfghjklyxcvbnm", "1qaz2wsx3edc4rfv5tgb6yhn7ujm8ik9ol0p")
)  # fmt: skip
_DIGITS = "0123456789"
_TRAILING = _DIGITS + string.punctuation + " "
_LOOKALIKES = str.maketrans("0134578@$", "oieastbas")


class PasswordError(ValueError):
    """The password is not good enough; ``text`` says why, for the person, before it is translated."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text


def make_hash(password: str) -> str:
    """Hash a password with a new salt (about 30 ms of one core)."""
    return HASHER.hash(password)


def matches(password_hash: str | None, password: str) -> bool:
    """Tell whether the password belongs to the hash; without a hash it takes as long and is never true."""
    if len(password) > MAX_LENGTH:
        return False
    if password_hash and _BCRYPT.fullmatch(password_hash):
        with tracing.span("bcrypt", "crypto"):
            return bcrypt.checkpw(password.encode()[:BCRYPT_BYTES], password_hash.encode())
    try:
        with tracing.span("argon2", "crypto"):
            HASHER.verify(password_hash or _DUMMY, password)
    except (VerificationError, InvalidHashError):
        return False
    return password_hash is not None


def is_outdated(password_hash: str) -> bool:
    """Tell whether the hash was made in another way, or with other cost settings, than today's."""
    return bool(_BCRYPT.fullmatch(password_hash)) or HASHER.check_needs_rehash(password_hash)


def _is_common(password: str) -> bool:
    folded = password.casefold()
    plain, spelled = (re.sub(r"[\W_]+", "", text) for text in (folded, folded.translate(_LOOKALIKES)))
    if len(set(plain)) < DISTINCT_CHARACTERS or any(plain in row for row in _SEQUENCES):
        return True
    # What is left when numbers around it and tricks of spelling are taken away: one or more of the common words?
    unnumbered = re.sub(r"[\W_]+", "", folded.rstrip(_TRAILING).translate(_LOOKALIKES))
    for core in {plain.strip(_DIGITS), spelled, unnumbered}:
        reachable = {0}
        for start in range(len(core)):
            if start in reachable:
                reachable |= {start + len(word) for word in _COMMON_WORDS if core.startswith(word, start)}
        if len(core) in reachable:
            return True
    return False


def check_new(password: str, email: str) -> None:
    """Check a password that somebody chooses; any characters will do, and nothing is cut off.

    Raises:
        PasswordError: It is too short, too long, holds the email, or is among those that are guessed first.
    """
    if len(password) < MIN_LENGTH:
        raise PasswordError(marked("Use at least 12 characters; a sentence of a few words is easy to remember."))
    if len(password) > MAX_LENGTH:
        raise PasswordError(marked("Use at most 1024 characters."))
    folded, email = password.casefold(), email.strip().casefold()
    name = email.partition("@")[0]
    if email and (email in folded or (len(name) >= 4 and name in folded)):  # noqa: PLR2004  (shorter: by chance)
        raise PasswordError(marked("Do not use your email in the password."))
    if _is_common(password):
        raise PasswordError(marked("This password is easy to guess. Choose another one."))
