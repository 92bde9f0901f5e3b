"""Holds, reversals, approvals, standing orders, interest, and the record of reconciliations.

The release before this one goes on working: what is added has defaults, and checks are widened only. Where an
amount is on hold, that release sees the refusal of the database instead of its own.

Revision ID: 0002
Revises: 0001
"""

from typing import Any

import sqlalchemy as sa
from alembic import context, op

revision = "0002"
down_revision = "0001"

OLD_KINDS = "kind IN ('opening', 'transfer', 'payment', 'salary', 'interest')"
NEW_KINDS = (
    "kind IN ('opening', 'transfer', 'payment', 'salary', 'interest', 'deposit', 'withdrawal', 'fee', 'reversal')"
)
OLD_LIMIT = "overdraft_limit_minor IS NULL OR balance_minor >= -overdraft_limit_minor"
NEW_LIMIT = "overdraft_limit_minor IS NULL OR balance_minor - held_minor >= -overdraft_limit_minor"

# As with postings: the owner's rights, so that only a row in "holds" can reserve money or let it go.
APPLY_HOLD = """
CREATE FUNCTION public.apply_hold() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    change bigint;
BEGIN
    IF TG_OP = 'INSERT' THEN
        PERFORM 1 FROM public.accounts WHERE id = NEW.account_id AND status = 'open';
        IF NOT FOUND OR NEW.status <> 'held' THEN
            RAISE EXCEPTION 'a hold starts as held, on an open account' USING ERRCODE = 'check_violation';
        END IF;
        NEW.created_at := now();
        change := NEW.amount_minor;
    ELSE
        IF OLD.status <> 'held' OR NEW.status = 'held'
           OR (NEW.id, NEW.account_id, NEW.amount_minor, NEW.reference, NEW.created_by, NEW.created_at, NEW.expires_at)
              IS DISTINCT FROM
              (OLD.id, OLD.account_id, OLD.amount_minor, OLD.reference, OLD.created_by, OLD.created_at, OLD.expires_at)
        THEN
            RAISE EXCEPTION 'a hold can end once and is not changed otherwise' USING ERRCODE = 'restrict_violation';
        END IF;
        NEW.ended_at := now();
        change := -OLD.amount_minor;
    END IF;
    UPDATE public.balances SET held_minor = held_minor + change, updated_at = now() WHERE account_id = NEW.account_id;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'account has no balance row' USING ERRCODE = 'foreign_key_violation';
    END IF;
    RETURN NEW;
END $$;
"""

CHECK_REVERSAL = """
CREATE FUNCTION public.check_reversal() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    PERFORM 1 FROM public.journal_entries
      WHERE id = NEW.reverses_id AND kind <> 'reversal' AND currency = NEW.currency;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'journal entry % reverses a reversal or another currency', NEW.id
            USING ERRCODE = 'check_violation', CONSTRAINT = 'reversal_allowed';
    END IF;
    PERFORM 1 FROM public.postings WHERE entry_id IN (NEW.id, NEW.reverses_id)
      GROUP BY account_id HAVING sum(amount_minor) <> 0;
    IF FOUND THEN
        RAISE EXCEPTION 'journal entry % is not the opposite of what it reverses', NEW.id
            USING ERRCODE = 'check_violation', CONSTRAINT = 'reversal_exact';
    END IF;
    RETURN NULL;
END $$;
"""

DECIDE_ONCE = """
CREATE FUNCTION public.decide_approval_once() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF OLD.status <> 'pending' OR NEW.status = 'pending'
       OR to_jsonb(NEW) - '{status,decided_by,decided_at,reason,entry_id}'::text[]
          <> to_jsonb(OLD) - '{status,decided_by,decided_at,reason,entry_id}'::text[] THEN
        RAISE EXCEPTION 'an approval is decided once and is not changed otherwise'
            USING ERRCODE = 'restrict_violation';
    END IF;
    NEW.decided_at := now();
    RETURN NEW;
END $$;
"""

# The only way to another overdraft limit for the application: never for the bank's own accounts, never "no limit".
SET_OVERDRAFT_LIMIT = """
CREATE FUNCTION public.set_overdraft_limit(account uuid, limit_minor bigint) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF limit_minor IS NULL THEN
        RAISE EXCEPTION 'an account of a customer has a limit' USING ERRCODE = 'not_null_violation';
    END IF;
    UPDATE public.balances b SET overdraft_limit_minor = limit_minor, updated_at = now()
      FROM public.accounts a
     WHERE b.account_id = account AND a.id = b.account_id AND a.kind <> 'internal' AND a.status = 'open';
    RETURN FOUND;
END $$;
"""

APPEND_ONLY = ("standing_order_runs", "interest_periods", "reconciliations")
NO_DELETE = ("holds", "approvals", "standing_orders")


def _timestamp(name: str = "created_at") -> sa.Column[Any]:
    return sa.Column(name, sa.DateTime(timezone=True), server_default=sa.func.now(), nullable=False)


def _uuid_key() -> sa.Column[Any]:
    return sa.Column("id", sa.Uuid(), server_default=sa.func.gen_random_uuid(), primary_key=True)


def _reference_to(table: str, column: str, other: str, *, late: bool = False) -> sa.ForeignKeyConstraint:
    timing: dict[str, Any] = {"deferrable": True, "initially": "DEFERRED"} if late else {}
    return sa.ForeignKeyConstraint([column], [f"{other}.id"], name=f"fk_{table}_{column}", **timing)


def _check(table: str, name: str, rule: str) -> sa.CheckConstraint:
    return sa.CheckConstraint(rule, name=op.f(f"ck_{table}_{name}"))


def _text(name: str) -> sa.Column[Any]:
    return sa.Column(name, sa.Text(), server_default=sa.text("''"), nullable=False)


def _replace_check(table: str, name: str, rule: str) -> None:
    op.drop_constraint(op.f(f"ck_{table}_{name}"), table, type_="check")
    op.create_check_constraint(op.f(f"ck_{table}_{name}"), table, rule)


def _holds() -> None:
    op.create_table(
        "holds",
        _uuid_key(),
        sa.Column("account_id", sa.Uuid(), nullable=False),
        sa.Column("amount_minor", sa.BigInteger(), nullable=False),
        sa.Column("status", sa.Text(), server_default=sa.text("'held'"), nullable=False),
        _text("reference"),
        sa.Column("created_by", sa.Uuid(), nullable=True),
        _timestamp(),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("ended_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("posted_minor", sa.BigInteger(), nullable=True),
        sa.Column("entry_id", sa.Uuid(), nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_holds"),
        _reference_to("holds", "account_id", "accounts"),
        _reference_to("holds", "created_by", "users"),
        _reference_to("holds", "entry_id", "journal_entries", late=True),
        _check("holds", "amount_positive", "amount_minor > 0"),
        _check("holds", "status_known", "status IN ('held', 'posted', 'voided', 'expired')"),
        _check("holds", "reference_length", "length(reference) <= 140"),
        _check("holds", "ended", "(status = 'held') = (ended_at IS NULL)"),
        _check("holds", "posted", "(status = 'posted') = (entry_id IS NOT NULL AND posted_minor IS NOT NULL)"),
        _check("holds", "posted_part", "posted_minor BETWEEN 1 AND amount_minor"),
    )
    op.create_index("ix_holds_account_id", "holds", ["account_id"], postgresql_where=sa.text("status = 'held'"))
    op.create_index("ix_holds_expires_at", "holds", ["expires_at"], postgresql_where=sa.text("status = 'held'"))


def _approvals() -> None:
    op.create_table(
        "approvals",
        _uuid_key(),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("status", sa.Text(), server_default=sa.text("'pending'"), nullable=False),
        sa.Column("debit_account_id", sa.Uuid(), nullable=False),
        sa.Column("credit_account_id", sa.Uuid(), nullable=False),
        sa.Column("amount_minor", sa.BigInteger(), nullable=False),
        sa.Column("currency", sa.Text(), nullable=False),
        _text("reference"),
        _text("counterparty"),
        _text("counterparty_number"),
        sa.Column("reverses_id", sa.Uuid(), nullable=True),
        sa.Column("hold_id", sa.Uuid(), nullable=True),
        sa.Column("created_by", sa.Uuid(), nullable=False),
        _timestamp(),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("decided_by", sa.Uuid(), nullable=True),
        sa.Column("decided_at", sa.DateTime(timezone=True), nullable=True),
        _text("reason"),
        sa.Column("entry_id", sa.Uuid(), nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_approvals"),
        _reference_to("approvals", "debit_account_id", "accounts"),
        _reference_to("approvals", "credit_account_id", "accounts"),
        _reference_to("approvals", "reverses_id", "journal_entries"),
        _reference_to("approvals", "hold_id", "holds"),
        _reference_to("approvals", "created_by", "users"),
        _reference_to("approvals", "decided_by", "users"),
        _reference_to("approvals", "entry_id", "journal_entries", late=True),
        _check("approvals", "kind_known", "kind IN ('transfer', 'payment', 'withdrawal', 'reversal')"),
        _check("approvals", "status_known", "status IN ('pending', 'approved', 'rejected', 'expired')"),
        _check("approvals", "amount_positive", "amount_minor > 0"),
        _check("approvals", "currency_code", "currency ~ '^[A-Z]{3}$'"),
        _check("approvals", "reversal", "(kind = 'reversal') = (reverses_id IS NOT NULL)"),
        _check("approvals", "four_eyes", "decided_by <> created_by"),
        _check("approvals", "decided", "(status = 'pending') = (decided_at IS NULL)"),
        _check("approvals", "decided_by_somebody", "(status IN ('approved', 'rejected')) = (decided_by IS NOT NULL)"),
        _check("approvals", "carried_out", "(status = 'approved') = (entry_id IS NOT NULL)"),
        _check("approvals", "reason_length", "length(reason) <= 500"),
    )
    pending = sa.text("status = 'pending'")
    op.create_index("ix_approvals_expires_at", "approvals", ["expires_at"], postgresql_where=pending)
    op.create_index("ix_approvals_debit_account_id", "approvals", ["debit_account_id"], postgresql_where=pending)
    op.create_index(
        "uq_approvals_reverses_id",
        "approvals",
        ["reverses_id"],
        unique=True,
        postgresql_where=sa.text("status = 'pending' AND reverses_id IS NOT NULL"),
    )


def _standing_orders() -> None:
    op.create_table(
        "standing_orders",
        _uuid_key(),
        sa.Column("owner_id", sa.Uuid(), nullable=False),
        sa.Column("from_account_id", sa.Uuid(), nullable=False),
        sa.Column("to_account_id", sa.Uuid(), nullable=False),
        sa.Column("amount_minor", sa.BigInteger(), nullable=False),
        sa.Column("currency", sa.Text(), nullable=False),
        _text("reference"),
        sa.Column("frequency", sa.Text(), nullable=False),
        sa.Column("first_date", sa.Date(), nullable=False),
        sa.Column("last_date", sa.Date(), nullable=True),
        sa.Column("next_date", sa.Date(), nullable=True),
        sa.Column("status", sa.Text(), server_default=sa.text("'active'"), nullable=False),
        _timestamp(),
        sa.PrimaryKeyConstraint("id", name="pk_standing_orders"),
        _reference_to("standing_orders", "owner_id", "users"),
        _reference_to("standing_orders", "from_account_id", "accounts"),
        _reference_to("standing_orders", "to_account_id", "accounts"),
        _check("standing_orders", "amount_positive", "amount_minor > 0"),
        _check("standing_orders", "currency_code", "currency ~ '^[A-Z]{3}$'"),
        _check("standing_orders", "reference_length", "length(reference) <= 140"),
        _check("standing_orders", "frequency_known", "frequency IN ('weekly', 'monthly')"),
        _check("standing_orders", "status_known", "status IN ('active', 'cancelled', 'finished')"),
        _check("standing_orders", "next_known", "(status = 'active') = (next_date IS NOT NULL)"),
        _check("standing_orders", "dates_ordered", "last_date >= first_date"),
        _check("standing_orders", "two_accounts", "from_account_id <> to_account_id"),
    )
    op.create_index("ix_standing_orders_owner_id", "standing_orders", ["owner_id"])
    op.create_index(
        "ix_standing_orders_next_date", "standing_orders", ["next_date"], postgresql_where=sa.text("status = 'active'")
    )
    op.create_table(
        "standing_order_runs",
        sa.Column("order_id", sa.Uuid(), nullable=False),
        sa.Column("due_date", sa.Date(), nullable=False),
        sa.Column("outcome", sa.Text(), nullable=False),
        _text("reason"),
        sa.Column("entry_id", sa.Uuid(), nullable=True),
        sa.Column("approval_id", sa.Uuid(), nullable=True),
        _timestamp("recorded_at"),
        sa.PrimaryKeyConstraint("order_id", "due_date", name="pk_standing_order_runs"),
        _reference_to("standing_order_runs", "order_id", "standing_orders"),
        _reference_to("standing_order_runs", "entry_id", "journal_entries"),
        _reference_to("standing_order_runs", "approval_id", "approvals"),
        _check("standing_order_runs", "outcome_known", "outcome IN ('paid', 'waiting', 'failed')"),
        _check("standing_order_runs", "paid", "(outcome = 'paid') = (entry_id IS NOT NULL)"),
        _check("standing_order_runs", "waiting", "(outcome = 'waiting') = (approval_id IS NOT NULL)"),
    )


def _interest_and_reconciliations() -> None:
    op.create_table(
        "interest_periods",
        sa.Column("account_id", sa.Uuid(), nullable=False),
        sa.Column("month", sa.Date(), nullable=False),
        sa.Column("rate_ppm", sa.Integer(), nullable=False),
        sa.Column("day_sum_minor", sa.Numeric(), nullable=False),
        sa.Column("amount_minor", sa.BigInteger(), nullable=False),
        sa.Column("entry_id", sa.Uuid(), nullable=True),
        _timestamp("recorded_at"),
        sa.PrimaryKeyConstraint("account_id", "month", name="pk_interest_periods"),
        _reference_to("interest_periods", "account_id", "accounts"),
        _reference_to("interest_periods", "entry_id", "journal_entries", late=True),
        _check("interest_periods", "month_first", "extract(day FROM month) = 1"),
        _check("interest_periods", "amount_sign", "amount_minor >= 0"),
        _check("interest_periods", "booked", "(amount_minor > 0) = (entry_id IS NOT NULL)"),
    )
    op.create_table(
        "reconciliations",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        _timestamp("finished_at"),
        sa.Column("findings", sa.BigInteger(), nullable=False),
        sa.Column("imbalance_minor", sa.Numeric(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_reconciliations"),
        _check("reconciliations", "figures_sign", "findings >= 0 AND imbalance_minor >= 0"),
    )


def upgrade() -> None:
    op.add_column("balances", sa.Column("held_minor", sa.BigInteger(), server_default=sa.text("0"), nullable=False))
    _replace_check("balances", "within_overdraft", NEW_LIMIT)
    op.create_check_constraint(op.f("ck_balances_held_sign"), "balances", "held_minor >= 0")

    op.add_column("journal_entries", sa.Column("reverses_id", sa.Uuid(), nullable=True))
    op.add_column("journal_entries", _text("counterparty_number"))
    op.create_foreign_key(
        "fk_journal_entries_reverses_id", "journal_entries", "journal_entries", ["reverses_id"], ["id"]
    )
    op.create_index(
        "uq_journal_entries_reverses_id",
        "journal_entries",
        ["reverses_id"],
        unique=True,
        postgresql_where=sa.text("reverses_id IS NOT NULL"),
    )
    _replace_check("journal_entries", "kind_known", NEW_KINDS)
    op.create_check_constraint(
        op.f("ck_journal_entries_reversal"), "journal_entries", "(kind = 'reversal') = (reverses_id IS NOT NULL)"
    )
    op.create_check_constraint(
        op.f("ck_journal_entries_counterparty_number_length"), "journal_entries", "length(counterparty_number) <= 34"
    )

    _holds()
    _approvals()
    _standing_orders()
    _interest_and_reconciliations()

    op.alter_column("idempotency_keys", "entry_id", nullable=True)
    for column, table in (
        ("approval_id", "approvals"), ("hold_id", "holds"), ("standing_order_id", "standing_orders"),
    ):  # fmt: skip
        op.add_column("idempotency_keys", sa.Column(column, sa.Uuid(), nullable=True))
        op.create_foreign_key(
            f"fk_idempotency_keys_{column}",
            "idempotency_keys",
            table,
            [column],
            ["id"],
            deferrable=True,
            initially="DEFERRED",
        )
    op.create_check_constraint(
        op.f("ck_idempotency_keys_one_result"),
        "idempotency_keys",
        "num_nonnulls(entry_id, approval_id, hold_id, standing_order_id) = 1",
    )

    for function in (APPLY_HOLD, CHECK_REVERSAL, DECIDE_ONCE, SET_OVERDRAFT_LIMIT):
        op.execute(function)
    for name in ("apply_hold()", "check_reversal()", "decide_approval_once()", "set_overdraft_limit(uuid, bigint)"):
        op.execute(f"REVOKE ALL ON FUNCTION public.{name} FROM PUBLIC")
    op.execute("CREATE TRIGGER apply BEFORE INSERT OR UPDATE ON holds FOR EACH ROW EXECUTE FUNCTION apply_hold()")
    op.execute(
        "CREATE CONSTRAINT TRIGGER reversal AFTER INSERT ON journal_entries DEFERRABLE INITIALLY DEFERRED "
        "FOR EACH ROW WHEN (NEW.reverses_id IS NOT NULL) EXECUTE FUNCTION check_reversal()"
    )
    op.execute(
        "CREATE TRIGGER decide_once BEFORE UPDATE ON approvals FOR EACH ROW EXECUTE FUNCTION decide_approval_once()"
    )
    for table in (*APPEND_ONLY, *NO_DELETE):
        changes = "UPDATE OR DELETE" if table in APPEND_ONLY else "DELETE"
        op.execute(
            f"CREATE TRIGGER append_only BEFORE {changes} ON {table} FOR EACH ROW EXECUTE FUNCTION refuse_change()"
        )
        op.execute(
            f"CREATE TRIGGER append_only_truncate BEFORE TRUNCATE ON {table} "
            "FOR EACH STATEMENT EXECUTE FUNCTION refuse_change()"
        )

    role = '"' + context.config.attributes["application_role"] + '"'
    op.execute(f"GRANT SELECT, INSERT ON {', '.join((*APPEND_ONLY, *NO_DELETE))} TO {role}")
    op.execute(f"GRANT UPDATE (status, posted_minor, entry_id) ON holds TO {role}")
    op.execute(f"GRANT UPDATE (status, decided_by, reason, entry_id) ON approvals TO {role}")
    op.execute(f"GRANT UPDATE (status, next_date) ON standing_orders TO {role}")
    op.execute(f"GRANT EXECUTE ON FUNCTION set_overdraft_limit(uuid, bigint) TO {role}")


def downgrade() -> None:
    op.drop_constraint(op.f("ck_idempotency_keys_one_result"), "idempotency_keys", type_="check")
    for column in ("approval_id", "hold_id", "standing_order_id"):
        op.drop_column("idempotency_keys", column)
    op.alter_column("idempotency_keys", "entry_id", nullable=False)
    for table in (
        "reconciliations",
        "interest_periods",
        "standing_order_runs",
        "standing_orders",
        "approvals",
        "holds",
    ):
        op.drop_table(table)
    op.execute("DROP TRIGGER reversal ON journal_entries")
    for name in ("apply_hold()", "check_reversal()", "decide_approval_once()", "set_overdraft_limit(uuid, bigint)"):
        op.execute(f"DROP FUNCTION public.{name}")
    op.drop_constraint(op.f("ck_journal_entries_reversal"), "journal_entries", type_="check")
    op.drop_constraint(op.f("ck_journal_entries_counterparty_number_length"), "journal_entries", type_="check")
    _replace_check("journal_entries", "kind_known", OLD_KINDS)
    op.drop_column("journal_entries", "counterparty_number")
    op.drop_column("journal_entries", "reverses_id")
    op.drop_constraint(op.f("ck_balances_held_sign"), "balances", type_="check")
    _replace_check("balances", "within_overdraft", OLD_LIMIT)
    op.drop_column("balances", "held_minor")
