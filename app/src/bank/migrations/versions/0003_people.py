"""Staff roles, sign-ups, second factors and the audit trail.

Revision ID: 0003
Revises: 0002
"""

import sqlalchemy as sa
from alembic import context, op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    op.drop_constraint(op.f("ck_users_role_known"), "users")
    op.create_check_constraint(
        op.f("ck_users_role_known"), "users", "role IN ('customer', 'teller', 'supervisor', 'auditor', 'admin')"
    )
    op.add_column("users", sa.Column("credentials_version", sa.Integer(), server_default=sa.text("0"), nullable=False))

    op.create_table(
        "sign_ups",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("email", sa.Text(), nullable=False),
        sa.Column("display_name", sa.Text(), nullable=False),
        sa.Column("password_hash", sa.Text(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.func.now(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_sign_ups"),
        sa.CheckConstraint(
            "email = lower(email) AND length(email) BETWEEN 3 AND 254", name=op.f("ck_sign_ups_email_normal")
        ),
        sa.CheckConstraint("length(display_name) BETWEEN 1 AND 100", name=op.f("ck_sign_ups_display_name_length")),
    )
    op.create_index("ix_sign_ups_email", "sign_ups", ["email"])
    op.create_table(
        "second_factors",
        sa.Column("user_id", sa.Uuid(), nullable=False),
        sa.Column("seed", sa.LargeBinary(), nullable=False),
        sa.Column("last_step", sa.BigInteger(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.func.now(), nullable=False),
        sa.PrimaryKeyConstraint("user_id", name="pk_second_factors"),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name="fk_second_factors_user_id"),
    )
    op.create_table(
        "recovery_codes",
        sa.Column("user_id", sa.Uuid(), nullable=False),
        sa.Column("code_hash", sa.LargeBinary(), nullable=False),
        sa.Column("used_at", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("user_id", "code_hash", name="pk_recovery_codes"),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name="fk_recovery_codes_user_id"),
    )
    op.create_table(
        "audit_events",
        sa.Column("number", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("occurred_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("actor_id", sa.Uuid(), nullable=True),
        sa.Column("action", sa.Text(), nullable=False),
        sa.Column("object_type", sa.Text(), nullable=False),
        sa.Column("object_id", sa.Text(), nullable=False),
        sa.Column("before", JSONB(), nullable=True),
        sa.Column("after", JSONB(), nullable=True),
        sa.Column("source_ip", sa.Text(), server_default=sa.text("''"), nullable=False),
        sa.Column("request_id", sa.Text(), server_default=sa.text("''"), nullable=False),
        sa.Column("previous_hash", sa.LargeBinary(), nullable=False),
        sa.Column("hash", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("number", name="pk_audit_events"),
        sa.UniqueConstraint("previous_hash", name="uq_audit_events_previous_hash"),
        sa.CheckConstraint("number > 0", name=op.f("ck_audit_events_number_sign")),
        sa.CheckConstraint(
            "length(hash) = 32 AND length(previous_hash) = 32", name=op.f("ck_audit_events_hash_length")
        ),
    )
    op.create_index("ix_audit_events_actor_id", "audit_events", ["actor_id", "number"])
    op.create_index("ix_audit_events_object", "audit_events", ["object_type", "object_id", "number"])
    op.execute(
        "CREATE TRIGGER append_only BEFORE UPDATE OR DELETE ON audit_events "
        "FOR EACH ROW EXECUTE FUNCTION refuse_change()"
    )
    op.execute(
        "CREATE TRIGGER append_only_truncate BEFORE TRUNCATE ON audit_events "
        "FOR EACH STATEMENT EXECUTE FUNCTION refuse_change()"
    )

    role = '"' + context.config.attributes["application_role"] + '"'
    op.execute(f"GRANT UPDATE (is_enabled, credentials_version) ON users TO {role}")
    op.execute(f"GRANT SELECT, INSERT, DELETE ON sign_ups TO {role}")
    op.execute(f"GRANT SELECT, INSERT, DELETE, UPDATE (seed, last_step) ON second_factors TO {role}")
    op.execute(f"GRANT SELECT, INSERT, DELETE, UPDATE (used_at) ON recovery_codes TO {role}")
    op.execute(f"GRANT SELECT, INSERT ON audit_events TO {role}")


def downgrade() -> None:
    role = '"' + context.config.attributes["application_role"] + '"'
    op.execute(f"REVOKE UPDATE (is_enabled, credentials_version) ON users FROM {role}")
    for table in ("audit_events", "recovery_codes", "second_factors", "sign_ups"):
        op.drop_table(table)
    op.drop_column("users", "credentials_version")
    op.drop_constraint(op.f("ck_users_role_known"), "users")
    op.create_check_constraint(op.f("ck_users_role_known"), "users", "role IN ('customer', 'admin')")
