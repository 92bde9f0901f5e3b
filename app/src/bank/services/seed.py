"""Demonstration data: the same seed gives the same people, accounts and amounts, however often it runs.

Who exists is left alone, so a second run adds nothing and a larger number adds only the difference.
"""

from __future__ import annotations

import random
import uuid
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from sqlalchemy import insert, select, update

from bank import account_numbers
from bank.models import Account, Balance, JournalEntry, Posting, User
from bank.permissions import Role
from bank.services import passwords

if TYPE_CHECKING:
    from sqlalchemy import Connection, Engine

NAMESPACE = uuid.UUID("6f0f0f7e-9a3c-4f86-8a53-0f2d1a4d7b10")
CURRENCY = "EUR"
MIN_PASSWORD = 8
BATCH = 25
DEMO_PEOPLE = (
    ("admin@demo.local", "Alex Morgan", "admin"),
    ("user@demo.local", "Robin Hale", "customer"),
    ("teller@demo.local", "Tessa Lindgren", "teller"),
    ("supervisor@demo.local", "Samuel Osei", "supervisor"),
    ("auditor@demo.local", "Aude Marchand", "auditor"),
)
FIRST_NAMES = (
    "Ada", "Amir", "Anna", "Bruno", "Chloé", "Clara", "Dario", "Elif", "Emil", "Freya", "Hugo", "Ines", "Jonas",
    "Kofi", "Lena", "Mateo", "Mina", "Noor", "Oskar", "Priya", "Rosa", "Samir", "Sofia", "Tomás", "Wanda", "Zoë",
)  # fmt: skip
LAST_NAMES = (
    "Abara", "Andersen", "Becker", "Costa", "Dubois", "Eriksen", "Fischer", "García", "Haddad", "Ivanova", "Jansen",
    "Keller", "Lindqvist", "Moreau", "Novák", "Okafor", "Petrov", "Quinn", "Rossi", "Silva", "Tanaka", "Weber",
)  # fmt: skip
EMPLOYERS = ("Brightwater Engineering", "Calder & Sons", "City Hospital", "Fernwood School", "Nordlicht Studio")
# Name, smallest and largest amount in minor units, reference.
MERCHANTS = (
    ("Corner Bakery", 240, 1_480, ""),
    ("Greenway Market", 1_250, 9_640, ""),
    ("Metro Transport", 290, 4_900, "Tickets"),
    ("Hollis Energy", 5_400, 11_200, "Electricity"),
    ("Lumen Telecom", 1_999, 4_499, "Mobile contract"),
    ("Paper & Ink Books", 890, 4_250, ""),
    ("Oak Street Pharmacy", 450, 3_890, ""),
    ("Riverside Cinema", 1_100, 2_900, ""),
)


@dataclass
class _Entry:
    account_id: uuid.UUID
    amount_minor: int
    kind: str
    counterparty: str
    reference: str
    booked_at: datetime
    other_id: uuid.UUID | None = None
    id: uuid.UUID = field(default_factory=uuid.uuid4)


@dataclass
class _Customer:
    id: uuid.UUID
    email: str
    name: str
    role: str
    accounts: list[dict[str, object]]
    entries: list[_Entry]


@dataclass(frozen=True)
class SeedResult:
    """How many people there are in the demonstration data, and how many of them are new."""

    people: int
    created: int
    passwords_changed: int


def demo_email(index: int) -> str:
    """Return the email of the customer with this number, counted from 1."""
    return f"customer{index:05d}@demo.local"


def _invent(email: str, name: str | None, role: str, seed: int, now: datetime) -> _Customer:
    chance = random.Random(f"{seed}:{email}")  # noqa: S311  (must repeat; nothing here is secret)
    name = name or f"{chance.choice(FIRST_NAMES)} {chance.choice(LAST_NAMES)}"
    user_id = uuid.uuid5(NAMESPACE, email)
    if role != Role.CUSTOMER:
        return _Customer(user_id, email, name, role, [], [])

    def account(kind: str, title: str) -> dict[str, object]:
        account_id = uuid.uuid5(user_id, kind)
        # Apart from the bank's own accounts, whose numbers are small.
        body = 10**15 + account_id.int % (9 * 10**15)
        return {
            "id": account_id,
            "owner_id": user_id,
            "number": account_numbers.make(body),
            "name": title,
            "kind": kind,
            "currency": CURRENCY,
        }

    checking, savings = account("checking", "Everyday account"), account("savings", "Savings")
    checking_id, savings_id = uuid.uuid5(user_id, "checking"), uuid.uuid5(user_id, "savings")
    midnight = now.replace(hour=0, minute=0, second=0, microsecond=0)

    def moment(days: int) -> datetime:
        return midnight - timedelta(days=days) + timedelta(minutes=chance.randrange(7 * 60, 21 * 60))

    balance = chance.randrange(120_000, 640_000)
    entries = [_Entry(checking_id, balance, "opening", "Opening deposit", "", moment(64))]
    plan: list[tuple[datetime, str]] = [(moment(days), "salary") for days in (56, 26)]
    plan += [(moment(days), "save") for days in (54, 24)]
    plan += [(moment(chance.randrange(2, 60)), "spend") for _ in range(chance.randrange(14, 24))]
    employer, salary = chance.choice(EMPLOYERS), chance.randrange(210_000, 480_000)
    for when, what in sorted(plan):
        if what == "salary":
            entries.append(_Entry(checking_id, salary, "salary", employer, "Salary", when))
            balance += salary
        elif what == "save":
            amount = chance.randrange(100, 600) * 100
            entries.append(_Entry(checking_id, -amount, "transfer", "", "Savings plan", when, savings_id))
            balance -= amount
        else:
            merchant, low, high, reference = chance.choice(MERCHANTS)
            amount = chance.randrange(low, high)
            if amount <= balance:
                entries.append(_Entry(checking_id, -amount, "payment", merchant, reference, when))
                balance -= amount
    for number, entry in enumerate(entries):
        entry.id = uuid.uuid5(user_id, f"entry {number}")
    return _Customer(user_id, email, name, role, [checking, savings], entries)


def _write(connection: Connection, customer: _Customer, password_hash: str, settlement: uuid.UUID) -> None:
    connection.execute(
        insert(User).values(
            id=customer.id,
            email=customer.email,
            display_name=customer.name,
            role=customer.role,
            password_hash=password_hash,
        )
    )
    if not customer.accounts:
        return
    connection.execute(insert(Account), customer.accounts)
    connection.execute(insert(Balance), [{"account_id": account["id"]} for account in customer.accounts])
    connection.execute(
        insert(JournalEntry),
        [
            {
                "id": entry.id,
                "kind": entry.kind,
                "currency": CURRENCY,
                "reference": entry.reference,
                "counterparty": entry.counterparty,
                "booked_at": entry.booked_at,
            }
            for entry in customer.entries
        ],
    )
    legs = []
    for entry in customer.entries:
        other = entry.other_id or settlement
        legs += [
            {"entry_id": entry.id, "account_id": entry.account_id, "amount_minor": entry.amount_minor},
            {"entry_id": entry.id, "account_id": other, "amount_minor": -entry.amount_minor},
        ]
    connection.execute(insert(Posting), legs)


def seed(engine: Engine, *, customers: int, seed_number: int, password: str) -> SeedResult:
    """Create what is missing of the demonstration data.

    Args:
        engine: The database; the application's own rights are enough.
        customers: How many customers there should be besides user@demo.local and one person of each
            staff role, who have no accounts.
        seed_number: Decides names and amounts. Dates count back from today.
        password: Of every demonstration user, at least 8 characters.

    Raises:
        ValueError: The password is too short.
    """
    if len(password) < MIN_PASSWORD:
        raise ValueError(f"the demonstration password must have at least {MIN_PASSWORD} characters")
    now = datetime.now(UTC)
    wanted: list[tuple[str, str | None, str]] = list(DEMO_PEOPLE)
    wanted += [(demo_email(index), None, "customer") for index in range(1, customers + 1)]
    with engine.connect() as connection:
        settlement = connection.execute(
            select(Account.id).where(Account.kind == "internal", Account.currency == CURRENCY)
        ).scalar_one()
        known = set(connection.execute(select(User.email).where(User.email.like("%@demo.local"))).scalars())
    new = [person for person in wanted if person[0] not in known]
    changed = _change_passwords(engine, password) if len(new) < len(wanted) else 0
    with ThreadPoolExecutor(max_workers=4) as pool:
        for start in range(0, len(new), BATCH):
            batch = [_invent(email, name, role, seed_number, now) for email, name, role in new[start : start + BATCH]]
            hashes = list(pool.map(lambda _: passwords.make_hash(password), batch))
            with engine.begin() as connection:
                for customer, password_hash in zip(batch, hashes, strict=True):
                    _write(connection, customer, password_hash, settlement)
    return SeedResult(people=len(wanted), created=len(new), passwords_changed=changed)


def _change_passwords(engine: Engine, password: str) -> int:
    """Give all demonstration users the password, if the first of them has another."""
    with engine.connect() as connection:
        rows = connection.execute(
            select(User.id, User.password_hash).where(User.email.like("%@demo.local")).order_by(User.email)
        ).all()
    if not rows or passwords.matches(rows[0].password_hash, password):
        return 0
    with ThreadPoolExecutor(max_workers=4) as pool:
        hashes = list(pool.map(lambda _: passwords.make_hash(password), rows))
    with engine.begin() as connection:
        for row, password_hash in zip(rows, hashes, strict=True):
            connection.execute(update(User).where(User.id == row.id).values(password_hash=password_hash))
    return len(rows)
