"""The migrations make exactly the tables that the code knows, and can be run again and at the same time."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from fastapi.testclient import TestClient
from sqlalchemy import JSON, MetaData, insert, inspect, null, select
from sqlalchemy import Table as SqlTable

from app.database.revision import is_current, newest_revision
from app.database.session import create_database_engine, create_sessions
from app.database.tables import Dataset, Table, utc_now
from app.database.upgrade import upgrade_database
from app.main import SchemaError, create_app
from app.settings import Settings


@pytest.fixture
def settings(database: str, folder: Path) -> Settings:
    return Settings(home=folder, database_url=database, _env_file=None)


def test_the_migrations_make_the_tables_of_the_code(settings: Settings) -> None:
    engine = create_database_engine(settings)
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, Table.metadata) == []
    engine.dispose()


def test_upgrading_again_changes_nothing(settings: Settings) -> None:
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(upgrade_database, [settings] * 4))
    engine = create_database_engine(settings)
    assert is_current(engine)
    engine.dispose()


def test_the_way_back_leaves_nothing(settings: Settings) -> None:
    engine = create_database_engine(settings)
    config = Config()
    config.set_main_option("script_location", "app/database/migrations")
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.downgrade(config, "base")
    assert inspect(engine).get_table_names() == ["alembic_version"]
    assert not is_current(engine)
    engine.dispose()
    upgrade_database(settings)


def _row(table: SqlTable, **values: Any) -> dict[str, Any]:
    """Return a row of an older schema: what is not given is zero, empty or now."""
    zeros = {str: "", int: 0, bool: False, dict: {}, object: {}, datetime: utc_now()}
    needed = (column for column in table.columns if not column.nullable)
    return {column.name: zeros[column.type.python_type] for column in needed} | values


def test_rejected_datasets_of_older_versions_say_why(settings: Settings) -> None:
    failure = {"code": "archive_empty", "message": "there is nothing in it", "retryable": False}
    imports = {"failed": failure, "cancelled": null(), "cancelled-too": JSON.NULL, "ready": null()}
    engine = create_database_engine(settings)
    config = Config()
    config.set_main_option("script_location", "app/database/migrations")
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.downgrade(config, "0004")
        datasets, jobs = (
            SqlTable(name, MetaData(), autoload_with=connection) for name in ("datasets", "jobs")
        )
        for name, why in imports.items():
            status = "ready" if name == "ready" else "rejected"
            connection.execute(insert(datasets), _row(datasets, id=name, status=status, classes=[]))
            job = _row(jobs, id=name, kind="dataset-import", dataset_id=name)
            connection.execute(insert(jobs).values(**job, failure=why))
        connection.execute(insert(datasets), _row(datasets, id="job-is-gone", status="rejected", classes=[]))
    upgrade_database(settings)
    cancelled = {"code": "cancelled", "message": "the import was cancelled"}
    with create_sessions(engine)() as session:
        said = {row.id: row.failure for row in session.scalars(select(Dataset))}
    engine.dispose()
    assert said == {
        "failed": failure,
        "cancelled": cancelled,
        "cancelled-too": cancelled,
        "ready": None,
        "job-is-gone": None,
    }


def test_the_newest_revision_is_the_head_of_alembic() -> None:
    config = Config()
    config.set_main_option("script_location", "app/database/migrations")
    assert ScriptDirectory.from_config(config).get_heads() == [newest_revision()]


def test_the_application_does_not_start_without_its_schema(folder: Path) -> None:
    settings = Settings(home=folder, _env_file=None)
    with pytest.raises(SchemaError, match="harrier migrate"), TestClient(create_app(settings)):
        pass


def test_a_new_home_is_made(folder: Path) -> None:
    settings = Settings(home=folder / "not" / "there" / "yet", _env_file=None)
    upgrade_database(settings)
    assert (settings.home_path / "harrier.sqlite3").is_file()


def test_many_can_begin_at_once(folder: Path) -> None:
    settings = Settings(home=folder / "fresh", _env_file=None)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(upgrade_database, [settings] * 4))
