"""Which schema the database has, told without Alembic, which only those need who migrate."""

from __future__ import annotations

from functools import lru_cache
from importlib.resources import files

from sqlalchemy import Engine, inspect, text


def is_current(engine: Engine) -> bool:
    """Return whether the schema is the one that this code was written for."""
    with engine.connect().execution_options(read_only=True) as connection:
        if not inspect(connection).has_table("alembic_version"):
            return False
        found = connection.execute(text("select version_num from alembic_version")).scalars().all()
    return list(found) == [newest_revision()]


@lru_cache(maxsize=1)
def newest_revision() -> str:
    """Return the last of the migrations, whose file names begin with their numbers."""
    versions = files("app.database.migrations") / "versions"
    return max(path.name.partition("_")[0] for path in versions.iterdir() if path.name[0].isdigit())
