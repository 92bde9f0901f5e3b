"""How every order of a customer was judged before its money moved: score, indicators, what they saw, decision.

The release before this one neither reads nor writes it; orders that it carries out have no row here.

Revision ID: 0009
Revises: 0008
"""

import sqlalchemy as sa
from alembic import context, op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0009"
down_revision = "0008"

# Everything but the number and the moment, which are the database's own.
WRITTEN = (
    "user_id", "kind", "amount_minor", "currency", "payee", "score", "decision", "rules", "indicators", "inputs",
    "entry_id", "approval_id",
)  # fmt: skip


def upgrade() -> None:
    op.create_table(
        "fraud_decisions",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("decided_at", sa.DateTime(timezone=True), server_default=sa.func.now(), nullable=False),
        sa.Column("user_id", sa.Uuid(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("amount_minor", sa.BigInteger(), nullable=False),
        sa.Column("currency", sa.Text(), nullable=False),
        sa.Column("payee", sa.Text(), nullable=False),
        sa.Column("score", sa.SmallInteger(), nullable=False),
        sa.Column("decision", sa.Text(), nullable=False),
        sa.Column("rules", sa.Text(), nullable=False),
        sa.Column("indicators", JSONB(), nullable=False),
        sa.Column("inputs", JSONB(), nullable=False),
        sa.Column("entry_id", sa.Uuid(), nullable=True),
        sa.Column("approval_id", sa.Uuid(), nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_fraud_decisions"),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name="fk_fraud_decisions_user_id"),
        sa.ForeignKeyConstraint(["entry_id"], ["journal_entries.id"], name="fk_fraud_decisions_entry_id"),
        sa.ForeignKeyConstraint(["approval_id"], ["approvals.id"], name="fk_fraud_decisions_approval_id"),
        sa.CheckConstraint("score BETWEEN 0 AND 100", name=op.f("ck_fraud_decisions_score_range")),
        sa.CheckConstraint("amount_minor > 0", name=op.f("ck_fraud_decisions_amount_positive")),
        sa.CheckConstraint(
            "decision IN ('allowed', 'flagged', 'held')", name=op.f("ck_fraud_decisions_decision_known")
        ),
        sa.CheckConstraint("num_nonnulls(entry_id, approval_id) = 1", name=op.f("ck_fraud_decisions_one_result")),
        sa.CheckConstraint("decision <> 'held' OR approval_id IS NOT NULL", name=op.f("ck_fraud_decisions_held_waits")),
    )
    op.create_index("ix_fraud_decisions_user_id_decided_at", "fraud_decisions", ["user_id", "decided_at"])
    op.create_index("ix_fraud_decisions_user_id_payee", "fraud_decisions", ["user_id", "payee"])
    op.create_index(
        "ix_fraud_decisions_suspicious",
        "fraud_decisions",
        ["id"],
        postgresql_where=sa.text("decision <> 'allowed'"),
    )
    op.create_index(
        "uq_fraud_decisions_approval_id",
        "fraud_decisions",
        ["approval_id"],
        unique=True,
        postgresql_where=sa.text("approval_id IS NOT NULL"),
    )
    # So that a score need not read all that a person ever did.
    op.create_index(
        "ix_audit_events_credentials",
        "audit_events",
        ["object_id", "occurred_at"],
        postgresql_where=sa.text(
            "object_type = 'user' AND action IN ('log-in-refused', 'password-change', 'recovery-codes-renew', "
            "'second-factor-enrol', 'second-factor-remove')"
        ),
    )
    op.execute(
        "CREATE TRIGGER append_only BEFORE UPDATE OR DELETE ON fraud_decisions "
        "FOR EACH ROW EXECUTE FUNCTION refuse_change()"
    )
    op.execute(
        "CREATE TRIGGER append_only_truncate BEFORE TRUNCATE ON fraud_decisions "
        "FOR EACH STATEMENT EXECUTE FUNCTION refuse_change()"
    )
    role = '"' + context.config.attributes["application_role"] + '"'
    op.execute(f"GRANT SELECT, INSERT ({', '.join(WRITTEN)}) ON fraud_decisions TO {role}")


def downgrade() -> None:
    op.drop_index("ix_audit_events_credentials", "audit_events")
    op.drop_table("fraud_decisions")
