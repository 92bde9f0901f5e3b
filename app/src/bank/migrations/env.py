"""Alembic's entry: runs on the connection that ``bank.services.schema`` hands over."""

from alembic import context

from bank.models import Base

connection = context.config.attributes["connection"]
context.configure(connection=connection, target_metadata=Base.metadata, compare_type=True, compare_server_default=True)
with context.begin_transaction():
    context.run_migrations()
