"""The database schema: bringing it up to date, and telling whether it is."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import text

if TYPE_CHECKING:
    from sqlalchemy import Connection, Engine

ADVISORY_LOCK = 0x62616E6B  # "bank"; one migration at a time, from whichever host


def alembic_config(connection: Connection | None = None, application_role: str = "bank_app") -> Config:
    """Return Alembic's configuration; the connection is handed over, so no password is ever in a URL."""
    config = Config()
    config.set_main_option("script_location", "bank:migrations")
    config.attributes["connection"] = connection
    config.attributes["application_role"] = application_role
    return config


@lru_cache(maxsize=1)
def known_revisions() -> tuple[str, frozenset[str]]:
    """Return the newest revision that this release knows, and all of them."""
    script = ScriptDirectory.from_config(alembic_config())
    head = script.get_current_head()
    if head is None:
        raise RuntimeError("the package holds no migrations")
    return head, frozenset(revision.revision for revision in script.walk_revisions())


def migrate(engine: Engine, application_role: str) -> tuple[str | None, str]:
    """Bring the schema to this release's head, in one transaction; a second caller waits for the first.

    Args:
        engine: Connects as the owner of the database.
        application_role: Role that gets the application's rights.

    Returns:
        The revision before and after.

    Raises:
        sqlalchemy.exc.DBAPIError: The database refused; nothing was changed.
    """
    with engine.begin() as connection:
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": ADVISORY_LOCK})
        before = MigrationContext.configure(connection).get_current_revision()
        head, known = known_revisions()
        # A release that was rolled back finds a newer schema, which serves it as well: leave it.
        if before is None or before in known:
            command.upgrade(alembic_config(connection, application_role), "head")
            return before, head
        return before, before


def is_current(connection: Connection) -> bool:
    """Tell whether this release can work with the schema: at its head, or newer than it knows."""
    revision = connection.execute(text("SELECT version_num FROM alembic_version")).scalar()
    head, known = known_revisions()
    return revision == head or (revision is not None and revision not in known)
