"""Reading only after somebody committed: never older than the question, and errors every time."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pysqlite3
import pytest

from app.database.changes import SqliteChanges, UnknownChanges, open_changes
from app.database.fresh import Fresh
from app.settings import Settings


class Marks:
    """Changes that a test makes."""

    def __init__(self) -> None:
        self.now = 1

    def mark(self) -> int | None:
        return self.now

    def close(self) -> None:
        """Nothing is open."""


class Source:
    """Something that is read, and how often it was; it may be told to wait."""

    def __init__(self) -> None:
        self.value = 0
        self.readings = 0
        self.gate = threading.Event()
        self.gate.set()

    def read(self, key: str) -> tuple[str, int]:
        self.readings += 1
        value = self.value
        assert self.gate.wait(10)
        if key == "bad":
            raise KeyError(key)
        return key, value


@pytest.fixture
def database(tmp_path: Path) -> Iterator[pysqlite3.Connection]:
    with closing(pysqlite3.connect(tmp_path / "harrier.sqlite3", isolation_level=None)) as writer:
        writer.execute("PRAGMA journal_mode=WAL")
        writer.execute("CREATE TABLE t (x)")
        yield writer


def test_a_commit_of_somebody_else_is_noticed(database: pysqlite3.Connection, tmp_path: Path) -> None:
    changes = open_changes(Settings(home=tmp_path))
    before = changes.mark()
    assert before is not None
    assert changes.mark() == before
    database.execute("BEGIN IMMEDIATE")
    database.execute("INSERT INTO t VALUES (1)")
    assert changes.mark() == before
    database.execute("COMMIT")
    assert changes.mark() != before
    changes.close()


def test_a_database_that_is_not_there_is_not_made(tmp_path: Path) -> None:
    changes = SqliteChanges(tmp_path / "nothing.sqlite3")
    assert changes.mark() is None
    assert list(tmp_path.iterdir()) == []
    changes.close()


def test_of_other_databases_nothing_is_known_in_passing() -> None:
    changes = open_changes(Settings(database_url="postgresql+psycopg://host/name"))
    assert isinstance(changes, UnknownChanges)
    assert changes.mark() is None
    changes.close()


def test_it_is_read_again_only_after_a_change() -> None:
    async def story() -> None:
        marks, source = Marks(), Source()
        fresh = Fresh(source.read, marks)
        assert [await fresh.get("a") for _ in range(3)] == [("a", 0)] * 3
        assert source.readings == 1
        source.value, marks.now = 1, 2
        assert await fresh.get("a") == ("a", 1)
        assert await fresh.get("b") == ("b", 1)
        assert source.readings == 3

    asyncio.run(story())


def test_an_error_is_not_remembered() -> None:
    async def story() -> None:
        source = Source()
        fresh = Fresh(source.read, Marks())
        for _ in range(2):
            with pytest.raises(KeyError):
                await fresh.get("bad")
        assert source.readings == 2

    asyncio.run(story())


def test_a_reading_that_began_before_a_change_is_for_nobody_after_it() -> None:
    async def story() -> None:
        marks, source = Marks(), Source()
        fresh = Fresh(source.read, marks)
        source.gate.clear()
        early = [asyncio.create_task(fresh.get("a")) for _ in range(3)]
        await _until(lambda: source.readings == 1)
        source.value, marks.now = 1, 2
        late = asyncio.create_task(fresh.get("a"))
        await _until(lambda: source.readings == 2)
        source.gate.set()
        assert [await each for each in early] == [("a", 0)] * 3
        assert await late == ("a", 1)
        assert await fresh.get("a") == ("a", 1)
        assert source.readings == 2

    asyncio.run(story())


def test_where_changes_are_unknown_all_who_wait_share_one_reading_that_begins_after_them() -> None:
    async def story() -> None:
        source = Source()
        fresh = Fresh(source.read, UnknownChanges())
        source.gate.clear()
        first = asyncio.create_task(fresh.get("a"))
        await _until(lambda: source.readings == 1)
        source.value = 1
        later = [asyncio.create_task(fresh.get("a")) for _ in range(5)]
        await asyncio.sleep(0)
        later[0].cancel()  # one who leaves takes the reading away from nobody
        source.gate.set()
        assert await first == ("a", 0)
        assert [await each for each in later[1:]] == [("a", 1)] * 4
        assert source.readings == 2
        source.value = 2
        assert await fresh.get("a") == ("a", 2)

    asyncio.run(story())


async def _until(condition: object) -> None:
    assert callable(condition)
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.001)
