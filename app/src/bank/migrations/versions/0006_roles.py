"""Changing a role takes two people, in the database itself: the application cannot write a role in any other way.

Revision ID: 0006
Revises: 0005
"""

from alembic import context, op

revision = "0006"
down_revision = "0005"

APPROVE_ROLE_CHANGE = """
CREATE FUNCTION public.approve_role_change(change uuid, decider uuid) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    person uuid;
    new_role text;
BEGIN
    PERFORM 1 FROM public.users WHERE id = decider AND is_enabled AND role IN ('admin', 'supervisor');
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    -- The table's own check refuses a decider who asked for it or whom it concerns.
    UPDATE public.role_changes SET status = 'approved', decided_by = decider, decided_at = now()
     WHERE id = change AND status = 'pending'
    RETURNING user_id, to_role INTO person, new_role;
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    -- A larger version ends every session that was begun with the old role.
    UPDATE public.users SET role = new_role, credentials_version = credentials_version + 1 WHERE id = person;
    RETURN true;
END $$;
"""


def upgrade() -> None:
    op.execute(APPROVE_ROLE_CHANGE)
    op.execute("REVOKE ALL ON FUNCTION public.approve_role_change(uuid, uuid) FROM PUBLIC")
    role = '"' + context.config.attributes["application_role"] + '"'
    op.execute(f"GRANT EXECUTE ON FUNCTION public.approve_role_change(uuid, uuid) TO {role}")


def downgrade() -> None:
    op.execute("DROP FUNCTION public.approve_role_change(uuid, uuid)")
