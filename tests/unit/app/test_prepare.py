"""What `harrier serve` cannot work with is said in one sentence, before anything starts."""

from __future__ import annotations

from pathlib import Path

import pysqlite3
import pytest

from app.cli.client import CommandError
from app.cli.server import prepare
from app.database.upgrade import UnusableDatabaseError, upgrade_database
from app.settings import Settings


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path


def test_a_database_of_a_newer_version_is_left_alone(home: Path) -> None:
    settings = Settings(home=home)
    upgrade_database(settings)
    with pysqlite3.connect(home / "harrier.sqlite3") as connection:
        connection.execute("update alembic_version set version_num = '9999'")
    with pytest.raises(UnusableDatabaseError, match=r"made by another version of Harrier .*9999"):
        prepare(settings)


def test_a_file_that_is_no_database_is_named(home: Path) -> None:
    (home / "harrier.sqlite3").write_text("my diary, which begins on a Monday" * 10)
    with pytest.raises(UnusableDatabaseError, match=rf"{home}/harrier.sqlite3 cannot be used: file is not a"):
        prepare(Settings(home=home))


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("nonsense", "HARRIER_DATABASE_URL is no address"),
        ("postgresql+psycopg://me:hunter2@127.0.0.1:1/db", "cannot be used: connection failed"),
    ],
)
def test_a_database_elsewhere_that_is_not_there(home: Path, address: str, message: str) -> None:
    with pytest.raises(UnusableDatabaseError, match=message) as refused:
        prepare(Settings(home=home, database_url=address))
    assert "hunter2" not in str(refused.value)


def test_a_storage_that_is_none(home: Path) -> None:
    with pytest.raises(CommandError, match="must begin with file:// or s3://"):
        prepare(Settings(home=home, storage_url="ftp://host/files"))


def test_what_is_fine_is_prepared(home: Path) -> None:
    prepare(Settings(home=home))
    assert (home / "harrier.sqlite3").is_file()
