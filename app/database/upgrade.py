"""Bring the database to the newest schema; several processes may do it at once."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.util import CommandError
from sqlalchemy import Connection, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError

from app.database.session import create_database_engine
from app.database.turns import Turn, take_turn
from app.settings import Settings


class UnusableDatabaseError(Exception):
    """The database cannot be reached, is none, or belongs to a newer version; the message is for people."""


class DatabaseSettingError(UnusableDatabaseError):
    """The setting is no address of a database."""


def upgrade_database(settings: Settings) -> None:
    """Migrate the database of the settings to the newest schema, in one transaction.

    Raises:
        UnusableDatabaseError: it is not there, or nothing that this version can migrate.
    """
    try:
        _upgrade(settings)
    except ArgumentError:
        raise DatabaseSettingError("HARRIER_DATABASE_URL is no address of a database") from None
    except CommandError as error:
        raise UnusableDatabaseError(
            f"the database {_name(settings)} was made by another version of Harrier ({error}): "
            "run that version, or restore a backup"
        ) from None
    except DBAPIError as error:
        raise UnusableDatabaseError(f"the database {_name(settings)} cannot be used: {error.orig}") from error


def _upgrade(settings: Settings) -> None:
    if make_url(settings.database_address).get_backend_name() == "sqlite":
        _make_folder(settings.database_address)
    engine = create_database_engine(settings)
    try:
        with engine.begin() as connection:
            take_turn(connection, Turn.UPGRADE)
            command.upgrade(_config(connection), "head")
    finally:
        engine.dispose()


def _name(settings: Settings) -> str:
    return make_url(settings.database_address).render_as_string(hide_password=True)


def _config(connection: Connection) -> Config:
    config = Config()
    config.set_main_option("script_location", str(files("app.database") / "migrations"))
    config.attributes["connection"] = connection
    return config


def _make_folder(address: str) -> None:
    file = make_url(address).database
    if file and file != ":memory:":
        Path(file).absolute().parent.mkdir(parents=True, exist_ok=True)
