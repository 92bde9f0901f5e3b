"""What checking the audit trail found, kept so that every instance reports it and the next check knows its head.

The release before this one neither reads nor writes it.

Revision ID: 0008
Revises: 0007
"""

import sqlalchemy as sa
from alembic import context, op

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    op.create_table(
        "audit_checks",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("finished_at", sa.DateTime(timezone=True), server_default=sa.func.now(), nullable=False),
        sa.Column("rows", sa.BigInteger(), nullable=False),
        sa.Column("head", sa.Text(), nullable=False),
        sa.Column("problem", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_audit_checks"),
        sa.CheckConstraint("rows >= 0", name=op.f("ck_audit_checks_rows_sign")),
    )
    op.execute(
        "CREATE TRIGGER append_only BEFORE UPDATE OR DELETE ON audit_checks "
        "FOR EACH ROW EXECUTE FUNCTION refuse_change()"
    )
    op.execute(
        "CREATE TRIGGER append_only_truncate BEFORE TRUNCATE ON audit_checks "
        "FOR EACH STATEMENT EXECUTE FUNCTION refuse_change()"
    )
    role = '"' + context.config.attributes["application_role"] + '"'
    op.execute(f"GRANT SELECT, INSERT ON audit_checks TO {role}")


def downgrade() -> None:
    op.drop_table("audit_checks")
