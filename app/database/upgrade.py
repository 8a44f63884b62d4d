"""Bring the database to the newest schema; several processes may do it at once."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

from alembic import command
from alembic.config import Config
from sqlalchemy import Connection, make_url, text

from app.database.session import create_database_engine
from app.settings import Settings

LOCK = 7_471_001
"""PostgreSQL's advisory lock that lets one upgrade run at a time; SQLite's writers wait in line anyway."""


def upgrade_database(settings: Settings) -> None:
    """Migrate the database of the settings to the newest schema, in one transaction."""
    if make_url(settings.database_address).get_backend_name() == "sqlite":
        _make_folder(settings.database_address)
    engine = create_database_engine(settings)
    try:
        with engine.begin() as connection:
            if connection.dialect.name == "postgresql":
                connection.execute(text("select pg_advisory_xact_lock(:lock)"), {"lock": LOCK})
            command.upgrade(_config(connection), "head")
    finally:
        engine.dispose()


def _config(connection: Connection) -> Config:
    config = Config()
    config.set_main_option("script_location", str(files("app.database") / "migrations"))
    config.attributes["connection"] = connection
    return config


def _make_folder(address: str) -> None:
    file = make_url(address).database
    if file and file != ":memory:":
        Path(file).absolute().parent.mkdir(parents=True, exist_ok=True)
