"""Beneficiaries, notifications, changes of roles with four eyes, and accounts that are frozen.

The release before this one goes on working: it takes a frozen account for one that is not open.

Revision ID: 0004
Revises: 0003
"""

import sqlalchemy as sa
from alembic import context, op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0004"
down_revision = "0003"

# A frozen account can be paid to, and nothing leaves it.
APPLY_POSTING = """
CREATE OR REPLACE FUNCTION public.apply_posting() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    PERFORM 1 FROM public.journal_entries e JOIN public.accounts a ON a.currency = e.currency
      WHERE e.id = NEW.entry_id AND a.id = NEW.account_id AND {usable};
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
USABLE = "(a.status = 'open' OR a.status = 'frozen' AND NEW.amount_minor > 0)"
USABLE_BEFORE = "a.status = 'open'"

# The only way to freeze or release for the application: never the bank's own accounts, never a closed one.
SET_FROZEN = """
CREATE FUNCTION public.set_account_frozen(account uuid, frozen boolean) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    -- Waits for movements under way, and those that come wait for this.
    PERFORM 1 FROM public.balances WHERE account_id = account FOR UPDATE;
    UPDATE public.accounts SET status = CASE WHEN frozen THEN 'frozen' ELSE 'open' END
     WHERE id = account AND kind <> 'internal' AND status = CASE WHEN frozen THEN 'open' ELSE 'frozen' END;
    RETURN FOUND;
END $$;
"""


def _timestamp(name: str, *, nullable: bool = False) -> sa.Column[object]:
    default = None if nullable else sa.func.now()
    return sa.Column(name, sa.DateTime(timezone=True), server_default=default, nullable=nullable)


def _account_status(rule: str) -> None:
    op.drop_constraint(op.f("ck_accounts_status_known"), "accounts", type_="check")
    op.create_check_constraint(op.f("ck_accounts_status_known"), "accounts", rule)


def upgrade() -> None:
    op.create_table(
        "beneficiaries",
        sa.Column("id", sa.Uuid(), server_default=sa.func.gen_random_uuid(), nullable=False),
        sa.Column("owner_id", sa.Uuid(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("number", sa.Text(), nullable=False),
        _timestamp("created_at"),
        sa.PrimaryKeyConstraint("id", name="pk_beneficiaries"),
        sa.ForeignKeyConstraint(["owner_id"], ["users.id"], name="fk_beneficiaries_owner_id"),
        sa.UniqueConstraint("owner_id", "number", name="uq_beneficiaries_owner_id_number"),
        sa.CheckConstraint("length(name) BETWEEN 1 AND 70", name=op.f("ck_beneficiaries_name_length")),
    )
    op.create_table(
        "notifications",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("user_id", sa.Uuid(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("details", JSONB(), server_default=sa.text("'{}'"), nullable=False),
        _timestamp("created_at"),
        _timestamp("read_at", nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_notifications"),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name="fk_notifications_user_id"),
    )
    op.create_index("ix_notifications_user_id_id", "notifications", ["user_id", "id"])
    op.create_index(
        "ix_notifications_unread", "notifications", ["user_id"], postgresql_where=sa.text("read_at IS NULL")
    )
    op.create_table(
        "seen_postings",
        sa.Column("account_id", sa.Uuid(), nullable=False),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("account_id", name="pk_seen_postings"),
        sa.ForeignKeyConstraint(["account_id"], ["accounts.id"], name="fk_seen_postings_account_id"),
    )
    op.create_table(
        "role_changes",
        sa.Column("id", sa.Uuid(), server_default=sa.func.gen_random_uuid(), nullable=False),
        sa.Column("user_id", sa.Uuid(), nullable=False),
        sa.Column("from_role", sa.Text(), nullable=False),
        sa.Column("to_role", sa.Text(), nullable=False),
        sa.Column("asked_by", sa.Uuid(), nullable=False),
        _timestamp("asked_at"),
        sa.Column("status", sa.Text(), server_default=sa.text("'pending'"), nullable=False),
        sa.Column("decided_by", sa.Uuid(), nullable=True),
        _timestamp("decided_at", nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_role_changes"),
        *[
            sa.ForeignKeyConstraint([column], ["users.id"], name=f"fk_role_changes_{column}")
            for column in ("user_id", "asked_by", "decided_by")
        ],
        sa.CheckConstraint("status IN ('pending', 'approved', 'rejected')", name=op.f("ck_role_changes_status_known")),
        sa.CheckConstraint("(status = 'pending') = (decided_by IS NULL)", name=op.f("ck_role_changes_decided")),
        sa.CheckConstraint(
            "asked_by <> user_id AND decided_by <> user_id AND decided_by <> asked_by",
            name=op.f("ck_role_changes_four_eyes"),
        ),
    )
    op.create_index(
        "uq_role_changes_pending",
        "role_changes",
        ["user_id"],
        unique=True,
        postgresql_where=sa.text("status = 'pending'"),
    )
    # What came in before there were notifications is no news.
    op.execute(
        "INSERT INTO seen_postings (account_id, version) SELECT b.account_id, b.version "
        "FROM balances b JOIN accounts a ON a.id = b.account_id WHERE a.owner_id IS NOT NULL"
    )
    _account_status("status IN ('open', 'closed', 'frozen')")
    op.execute(APPLY_POSTING.format(usable=USABLE))
    op.execute(SET_FROZEN)
    op.execute("REVOKE ALL ON FUNCTION public.set_account_frozen(uuid, boolean) FROM PUBLIC")

    role = '"' + context.config.attributes["application_role"] + '"'
    op.execute(f"GRANT SELECT, INSERT, DELETE ON beneficiaries TO {role}")
    op.execute(f"GRANT SELECT, INSERT (user_id, kind, details), UPDATE (read_at), DELETE ON notifications TO {role}")
    op.execute(f"GRANT SELECT, INSERT, UPDATE (version) ON seen_postings TO {role}")
    op.execute(f"GRANT SELECT, INSERT, UPDATE (status, decided_by, decided_at) ON role_changes TO {role}")
    op.execute(f"GRANT EXECUTE ON FUNCTION public.set_account_frozen(uuid, boolean) TO {role}")


def downgrade() -> None:
    op.execute("DROP FUNCTION public.set_account_frozen(uuid, boolean)")
    op.execute("UPDATE accounts SET status = 'open' WHERE status = 'frozen'")
    op.execute(APPLY_POSTING.format(usable=USABLE_BEFORE))
    _account_status("status IN ('open', 'closed')")
    for table in ("role_changes", "seen_postings", "notifications", "beneficiaries"):
        op.drop_table(table)
