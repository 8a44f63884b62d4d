"""Whether anybody has committed since one last looked, for what should be read again only then."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

import pysqlite3
from sqlalchemy import make_url

from app.settings import Settings


class Changes(Protocol):
    """Says whether the database is still as it was."""

    def mark(self) -> int | None:
        """Return a number that is another one after every commit; None when that cannot be told."""

    def close(self) -> None: ...


class UnknownChanges:
    """Of a database that cannot be asked in passing: it may always have changed."""

    def mark(self) -> int | None:
        return None

    def close(self) -> None:
        """Nothing is open."""


class SqliteChanges:
    """Asks SQLite, which counts in memory that all processes share: microseconds, and no file is read.

    The number is about the commits of others than the connection that asks, so it has one that never writes.
    It is for one thread, and never waits: a database that is busy just then may have changed.
    """

    def __init__(self, file: Path) -> None:
        self._file = file
        self._connection: Any = None

    def mark(self) -> int | None:
        try:
            if self._connection is None:
                self._connection = self._connect()
            return int(self._connection.execute("PRAGMA data_version").fetchone()[0])
        except pysqlite3.Error:
            return None

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _connect(self) -> Any:
        address = f"{self._file.absolute().as_uri()}?mode=rw"  # a file that is not there must not be made
        connection = pysqlite3.connect(
            address, uri=True, timeout=0, isolation_level=None, check_same_thread=False
        )
        connection.execute("PRAGMA query_only=ON")
        return connection


def open_changes(settings: Settings) -> Changes:
    """Return what tells about the database in the settings; nothing is connected yet."""
    url = make_url(settings.database_address)
    if url.get_backend_name() == "sqlite" and url.database not in (None, "", ":memory:"):
        return SqliteChanges(Path(url.database))
    return UnknownChanges()
