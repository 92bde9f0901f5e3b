"""An account that cannot be used is refused under a name, so that the application can tell it from other refusals.

It finds out so that an account was frozen or closed after it was looked at. The release before this one sees the
same refusal as before, with a name that it does not ask for.

Revision ID: 0007
Revises: 0006
"""

from alembic import op

revision = "0007"
down_revision = "0006"

APPLY_POSTING = """
CREATE OR REPLACE FUNCTION public.apply_posting() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    PERFORM 1 FROM public.journal_entries e JOIN public.accounts a ON a.currency = e.currency
      WHERE e.id = NEW.entry_id AND a.id = NEW.account_id
        AND (a.status = 'open' OR a.status = 'frozen' AND NEW.amount_minor > 0);
    IF NOT FOUND THEN
        RAISE EXCEPTION 'posting needs an entry and an open account of the same currency'
            USING ERRCODE = 'check_violation'{name};
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

APPLY_HOLD = """
CREATE OR REPLACE FUNCTION public.apply_hold() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    change bigint;
BEGIN
    IF TG_OP = 'INSERT' THEN
        PERFORM 1 FROM public.accounts WHERE id = NEW.account_id AND status = 'open';
        IF NOT FOUND OR NEW.status <> 'held' THEN
            RAISE EXCEPTION 'a hold starts as held, on an open account' USING ERRCODE = 'check_violation'{name};
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
NAME = ", CONSTRAINT = 'account_usable'"


def upgrade() -> None:
    for function in (APPLY_POSTING, APPLY_HOLD):
        op.execute(function.format(name=NAME))


def downgrade() -> None:
    for function in (APPLY_POSTING, APPLY_HOLD):
        op.execute(function.format(name=""))
