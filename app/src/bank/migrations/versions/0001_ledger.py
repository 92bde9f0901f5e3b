"""Users, accounts and the double-entry ledger.

Revision ID: 0001
Revises:
"""

from typing import Any

import sqlalchemy as sa
from alembic import context, op

revision = "0001"
down_revision = None

# Runs with the owner's rights, so that the application's role can move a balance by a posting and in no other way.
APPLY_POSTING = """
CREATE FUNCTION public.apply_posting() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    PERFORM 1 FROM public.journal_entries e JOIN public.accounts a ON a.currency = e.currency
      WHERE e.id = NEW.entry_id AND a.id = NEW.account_id AND a.status = 'open';
    IF NOT FOUND THEN
        RAISE EXCEPTION 'posting needs an entry and an open account of the same currency'
            USING ERRCODE = 'check_violation';
    END IF;
    UPDATE public.balances
       SET balance_minor = balance_minor + NEW.amount_minor, version = version + 1, updated_at = now()
     WHERE account_id = NEW.account_id
    RETURNING balance_minor, version INTO NEW.balance_after_minor, NEW.version;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'account has no balance row' USING ERRCODE = 'foreign_key_violation';
    END IF;
    RETURN NEW;
END $$;
"""

STAMP_ENTRY = """
CREATE FUNCTION public.stamp_journal_entry() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    NEW.recorded_at := now();
    RETURN NEW;
END $$;
"""

# Checked at COMMIT, when all legs are there. An entry is complete in the transaction that made it: legs that a
# later transaction adds are refused, even if they balance.
CHECK_BALANCED = """
CREATE FUNCTION public.check_entry_balanced() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    entry uuid;
    total numeric;
    legs bigint;
BEGIN
    entry := CASE TG_TABLE_NAME WHEN 'journal_entries' THEN to_jsonb(NEW) ->> 'id'
                                ELSE to_jsonb(NEW) ->> 'entry_id' END;
    SELECT coalesce(sum(amount_minor), 0), count(*) INTO total, legs
      FROM public.postings WHERE entry_id = entry;
    IF total <> 0 OR legs < 2 THEN
        RAISE EXCEPTION 'journal entry % has % postings that sum to %', entry, legs, total
            USING ERRCODE = 'check_violation', CONSTRAINT = 'entry_balanced';
    END IF;
    PERFORM 1 FROM public.journal_entries WHERE id = entry AND recorded_at = now();
    IF NOT FOUND THEN
        RAISE EXCEPTION 'journal entry % is already complete', entry
            USING ERRCODE = 'check_violation', CONSTRAINT = 'entry_complete';
    END IF;
    RETURN NULL;
END $$;
"""

REFUSE_CHANGE = """
CREATE FUNCTION public.refuse_change() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    RAISE EXCEPTION '% on % is refused: the journal is append-only', TG_OP, TG_TABLE_NAME
        USING ERRCODE = 'restrict_violation';
END $$;
"""

# One account of the bank's own for each currency: money from and to the outside world passes through it.
SETTLEMENT_ACCOUNTS = (
    ("00000000-0000-4000-8000-000000000001", "BK090000000000000001", "EUR"),
    ("00000000-0000-4000-8000-000000000002", "BK790000000000000002", "GBP"),
    ("00000000-0000-4000-8000-000000000003", "BK520000000000000003", "USD"),
    ("00000000-0000-4000-8000-000000000004", "BK250000000000000004", "CHF"),
    ("00000000-0000-4000-8000-000000000005", "BK950000000000000005", "JPY"),
    ("00000000-0000-4000-8000-000000000006", "BK680000000000000006", "KWD"),
)


def _timestamp(name: str) -> sa.Column[Any]:
    return sa.Column(name, sa.DateTime(timezone=True), server_default=sa.func.now(), nullable=False)


def _uuid_key() -> sa.Column[Any]:
    return sa.Column("id", sa.Uuid(), server_default=sa.func.gen_random_uuid(), primary_key=True)


def upgrade() -> None:
    op.create_table(
        "users",
        _uuid_key(),
        sa.Column("email", sa.Text(), nullable=False),
        sa.Column("display_name", sa.Text(), nullable=False),
        sa.Column("password_hash", sa.Text(), nullable=False),
        sa.Column("role", sa.Text(), server_default=sa.text("'customer'"), nullable=False),
        sa.Column("is_enabled", sa.Boolean(), server_default=sa.text("true"), nullable=False),
        _timestamp("created_at"),
        sa.PrimaryKeyConstraint("id", name="pk_users"),
        sa.UniqueConstraint("email", name="uq_users_email"),
        sa.CheckConstraint(
            "email = lower(email) AND length(email) BETWEEN 3 AND 254", name=op.f("ck_users_email_normal")
        ),
        sa.CheckConstraint("role IN ('customer', 'admin')", name=op.f("ck_users_role_known")),
    )
    op.create_table(
        "accounts",
        _uuid_key(),
        sa.Column("owner_id", sa.Uuid(), nullable=True),
        sa.Column("number", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("currency", sa.Text(), nullable=False),
        sa.Column("status", sa.Text(), server_default=sa.text("'open'"), nullable=False),
        _timestamp("created_at"),
        sa.PrimaryKeyConstraint("id", name="pk_accounts"),
        sa.ForeignKeyConstraint(["owner_id"], ["users.id"], name="fk_accounts_owner_id"),
        sa.UniqueConstraint("number", name="uq_accounts_number"),
        sa.CheckConstraint("kind IN ('checking', 'savings', 'internal')", name=op.f("ck_accounts_kind_known")),
        sa.CheckConstraint("(kind = 'internal') = (owner_id IS NULL)", name=op.f("ck_accounts_owner_present")),
        sa.CheckConstraint("currency ~ '^[A-Z]{3}$'", name=op.f("ck_accounts_currency_code")),
        sa.CheckConstraint("status IN ('open', 'closed')", name=op.f("ck_accounts_status_known")),
    )
    op.create_index("ix_accounts_owner_id", "accounts", ["owner_id"])
    op.create_table(
        "balances",
        sa.Column("account_id", sa.Uuid(), nullable=False),
        sa.Column("balance_minor", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("overdraft_limit_minor", sa.BigInteger(), server_default=sa.text("0"), nullable=True),
        sa.Column("version", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        _timestamp("updated_at"),
        sa.PrimaryKeyConstraint("account_id", name="pk_balances"),
        sa.ForeignKeyConstraint(["account_id"], ["accounts.id"], name="fk_balances_account_id"),
        sa.CheckConstraint(
            "overdraft_limit_minor IS NULL OR balance_minor >= -overdraft_limit_minor",
            name=op.f("ck_balances_within_overdraft"),
        ),
        sa.CheckConstraint("overdraft_limit_minor >= 0", name=op.f("ck_balances_overdraft_limit_sign")),
    )
    op.create_table(
        "journal_entries",
        _uuid_key(),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("currency", sa.Text(), nullable=False),
        sa.Column("reference", sa.Text(), server_default=sa.text("''"), nullable=False),
        sa.Column("counterparty", sa.Text(), server_default=sa.text("''"), nullable=False),
        sa.Column("created_by", sa.Uuid(), nullable=True),
        _timestamp("booked_at"),
        _timestamp("recorded_at"),
        sa.PrimaryKeyConstraint("id", name="pk_journal_entries"),
        sa.ForeignKeyConstraint(["created_by"], ["users.id"], name="fk_journal_entries_created_by"),
        sa.CheckConstraint(
            "kind IN ('opening', 'transfer', 'payment', 'salary', 'interest')",
            name=op.f("ck_journal_entries_kind_known"),
        ),
        sa.CheckConstraint("currency ~ '^[A-Z]{3}$'", name=op.f("ck_journal_entries_currency_code")),
        sa.CheckConstraint("length(reference) <= 140", name=op.f("ck_journal_entries_reference_length")),
        sa.CheckConstraint("length(counterparty) <= 140", name=op.f("ck_journal_entries_counterparty_length")),
        sa.CheckConstraint("booked_at <= recorded_at", name=op.f("ck_journal_entries_not_in_future")),
    )
    op.create_table(
        "postings",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("entry_id", sa.Uuid(), nullable=False),
        sa.Column("account_id", sa.Uuid(), nullable=False),
        sa.Column("amount_minor", sa.BigInteger(), nullable=False),
        sa.Column("balance_after_minor", sa.BigInteger(), nullable=False),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_postings"),
        sa.ForeignKeyConstraint(["entry_id"], ["journal_entries.id"], name="fk_postings_entry_id"),
        sa.ForeignKeyConstraint(["account_id"], ["accounts.id"], name="fk_postings_account_id"),
        sa.UniqueConstraint("account_id", "version", name="uq_postings_account_id_version"),
        sa.CheckConstraint("amount_minor <> 0", name=op.f("ck_postings_amount_present")),
    )
    op.create_index("ix_postings_entry_id", "postings", ["entry_id"])
    op.create_table(
        "idempotency_keys",
        sa.Column("user_id", sa.Uuid(), nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("fingerprint", sa.Text(), nullable=False),
        sa.Column("entry_id", sa.Uuid(), nullable=False),
        _timestamp("created_at"),
        sa.PrimaryKeyConstraint("user_id", "key", name="pk_idempotency_keys"),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name="fk_idempotency_keys_user_id"),
        sa.ForeignKeyConstraint(
            ["entry_id"],
            ["journal_entries.id"],
            name="fk_idempotency_keys_entry_id",
            deferrable=True,
            initially="DEFERRED",
        ),
        sa.CheckConstraint("length(key) BETWEEN 1 AND 255", name=op.f("ck_idempotency_keys_key_length")),
    )

    for function in (APPLY_POSTING, STAMP_ENTRY, CHECK_BALANCED, REFUSE_CHANGE):
        op.execute(function)
    for name in ("apply_posting", "stamp_journal_entry", "check_entry_balanced", "refuse_change"):
        op.execute(f"REVOKE ALL ON FUNCTION public.{name}() FROM PUBLIC")
    op.execute(
        "CREATE TRIGGER stamp BEFORE INSERT ON journal_entries FOR EACH ROW EXECUTE FUNCTION stamp_journal_entry()"
    )
    op.execute("CREATE TRIGGER apply BEFORE INSERT ON postings FOR EACH ROW EXECUTE FUNCTION apply_posting()")
    for table in ("journal_entries", "postings"):
        op.execute(
            f"CREATE CONSTRAINT TRIGGER balanced AFTER INSERT ON {table} DEFERRABLE INITIALLY DEFERRED "
            "FOR EACH ROW EXECUTE FUNCTION check_entry_balanced()"
        )
        op.execute(
            f"CREATE TRIGGER append_only BEFORE UPDATE OR DELETE ON {table} "
            "FOR EACH ROW EXECUTE FUNCTION refuse_change()"
        )
        op.execute(
            f"CREATE TRIGGER append_only_truncate BEFORE TRUNCATE ON {table} "
            "FOR EACH STATEMENT EXECUTE FUNCTION refuse_change()"
        )

    for account_id, number, currency in SETTLEMENT_ACCOUNTS:
        op.execute(
            "INSERT INTO accounts (id, number, name, kind, currency) "
            f"VALUES ('{account_id}', '{number}', 'Settlement {currency}', 'internal', '{currency}')"
        )
        op.execute(f"INSERT INTO balances (account_id, overdraft_limit_minor) VALUES ('{account_id}', NULL)")

    role = '"' + context.config.attributes["application_role"] + '"'
    op.execute(f"GRANT USAGE ON SCHEMA public TO {role}")
    op.execute(f"GRANT SELECT ON alembic_version TO {role}")
    op.execute(f"GRANT SELECT, INSERT ON users, accounts, journal_entries, idempotency_keys TO {role}")
    op.execute(f"GRANT UPDATE (password_hash) ON users TO {role}")
    # A row lock needs the right to update some column; the trigger alone moves money.
    op.execute(f"GRANT SELECT, INSERT (account_id), UPDATE (updated_at) ON balances TO {role}")
    op.execute(f"GRANT SELECT, INSERT (entry_id, account_id, amount_minor) ON postings TO {role}")


def downgrade() -> None:
    for table in ("idempotency_keys", "postings", "journal_entries", "balances", "accounts", "users"):
        op.drop_table(table)
    for name in ("apply_posting", "stamp_journal_entry", "check_entry_balanced", "refuse_change"):
        op.execute(f"DROP FUNCTION public.{name}()")
