"""Filter that turns a password into the verifier PostgreSQL stores."""

import base64
import hashlib
import hmac
import stringprep
import unicodedata

ITERATIONS = 4096
SALT_ITERATIONS = 50_000

PROHIBITED = (
    stringprep.in_table_a1,
    stringprep.in_table_c12,
    stringprep.in_table_c21_c22,
    stringprep.in_table_c3,
    stringprep.in_table_c4,
    stringprep.in_table_c5,
    stringprep.in_table_c6,
    stringprep.in_table_c7,
    stringprep.in_table_c8,
    stringprep.in_table_c9,
)


def saslprep(password: str) -> str:
    """Normalise a password as libpq does: RFC 4013, or unchanged where that forbids a character."""
    mapped = "".join(
        " " if stringprep.in_table_c12(character) else character
        for character in password
        if not stringprep.in_table_b1(character)
    )
    prepared = unicodedata.normalize("NFKC", mapped)
    if not prepared or any(forbidden(character) for character in prepared for forbidden in PROHIBITED):
        return password
    if any(stringprep.in_table_d1(character) for character in prepared):
        ends_right_to_left = stringprep.in_table_d1(prepared[0]) and stringprep.in_table_d1(prepared[-1])
        if not ends_right_to_left or any(stringprep.in_table_d2(character) for character in prepared):
            return password
    return prepared


def scram_verifier(password: str, user: str) -> str:
    """Return the SCRAM-SHA-256 verifier of a password, the same one for the same user and password.

    The salt is derived, so that a second run finds nothing to change. Deriving it costs more than checking a
    guess against the verifier, so that it gives an attacker no shortcut.
    """
    secret = saslprep(password).encode()
    salt = hashlib.pbkdf2_hmac("sha256", secret, b"postgresql scram salt " + user.encode(), SALT_ITERATIONS)[:16]
    salted = hashlib.pbkdf2_hmac("sha256", secret, salt, ITERATIONS)
    stored_key = hashlib.sha256(hmac.digest(salted, b"Client Key", "sha256")).digest()
    server_key = hmac.digest(salted, b"Server Key", "sha256")
    encoded = [base64.b64encode(part).decode() for part in (salt, stored_key, server_key)]
    return f"SCRAM-SHA-256${ITERATIONS}:{encoded[0]}${encoded[1]}:{encoded[2]}"


class FilterModule:
    """Filters of the role postgresql."""

    def filters(self) -> dict:
        """Name the filters."""
        return {"postgresql_scram_verifier": scram_verifier}
