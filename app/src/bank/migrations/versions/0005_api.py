"""Alerts that monitoring sent.

Revision ID: 0005
Revises: 0004
"""

import sqlalchemy as sa
from alembic import context, op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    op.create_table(
        "alerts",
        sa.Column("fingerprint", sa.Text(), nullable=False),
        sa.Column("starts_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("severity", sa.Text(), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("labels", JSONB(), nullable=False),
        sa.Column("annotations", JSONB(), nullable=False),
        sa.Column("ends_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("received_at", sa.DateTime(timezone=True), server_default=sa.func.now(), nullable=False),
        sa.Column("closed_at", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("fingerprint", "starts_at", name="pk_alerts"),
        sa.CheckConstraint("length(fingerprint) BETWEEN 1 AND 64", name=op.f("ck_alerts_fingerprint_length")),
        sa.CheckConstraint("status IN ('firing', 'resolved')", name=op.f("ck_alerts_status_known")),
        sa.CheckConstraint("(status = 'resolved') = (closed_at IS NOT NULL)", name=op.f("ck_alerts_closed_once")),
    )
    op.create_index("ix_alerts_status_starts_at", "alerts", ["status", "starts_at"])
    role = '"' + context.config.attributes["application_role"] + '"'
    op.execute(f"GRANT SELECT, INSERT, UPDATE (status, annotations, ends_at, closed_at) ON alerts TO {role}")


def downgrade() -> None:
    op.drop_table("alerts")
