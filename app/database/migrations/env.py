"""Alembic's entry: run the migrations on a connection that was given, or on the settings' database."""

from __future__ import annotations

from alembic import context
from sqlalchemy import Connection

from app.database.session import create_database_engine
from app.database.tables import Table
from app.settings import get_settings


def run(connection: Connection) -> None:
    context.configure(
        connection=connection,
        target_metadata=Table.metadata,
        compare_type=True,
        render_as_batch=connection.dialect.name == "sqlite",
    )
    with context.begin_transaction():
        context.run_migrations()


given: Connection | None = context.config.attributes.get("connection")
if given is not None:
    run(given)
else:
    with create_database_engine(get_settings()).begin() as connection:
        run(connection)
