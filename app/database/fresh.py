"""Small things that are read with every request: never older than the request, and rarely read at all."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

from anyio import to_thread

from app.database.changes import Changes

MOST_REMEMBERED = 1000

Key = TypeVar("Key", bound=Hashable)
Value = TypeVar("Value")


class Fresh(Generic[Key, Value]):
    """Remembers what was read until somebody commits; where that cannot be told, readers share a reading.

    Either way the answer is the state of the database at some moment after it was asked for. Errors are not
    remembered. For the event loop alone; reading happens in a thread.
    """

    def __init__(self, read: Callable[[Key], Value], changes: Changes) -> None:
        self._read, self._changes = read, changes
        self._mark: int | None = None
        self._known: dict[Key, Value] = {}
        self._readings: dict[Key, asyncio.Task[Value]] = {}
        self._begun: dict[Key, asyncio.Task[Value]] = {}
        self._waiting: dict[Key, asyncio.Task[Value]] = {}

    async def get(self, key: Key) -> Value:
        """Return what there is under a key; raise what reading it raises."""
        mark = self._changes.mark()
        if mark is None:
            return await asyncio.shield(self._next_reading(key))
        if mark != self._mark:
            self._mark, self._known, self._readings = mark, {}, {}
        if key in self._known:
            return self._known[key]
        return await asyncio.shield(self._reading_at_this_mark(key))

    def _reading_at_this_mark(self, key: Key) -> asyncio.Task[Value]:
        """Return the reading that began when the database was already as it is now."""
        reading = self._readings.get(key)
        if reading is None:
            reading = asyncio.create_task(self._read_and_remember(key, self._known, self._readings))
            self._readings[key] = reading
        return reading

    async def _read_and_remember(
        self, key: Key, known: dict[Key, Value], readings: dict[Key, asyncio.Task[Value]]
    ) -> Value:
        try:
            value = await to_thread.run_sync(self._read, key)
            if len(known) < MOST_REMEMBERED:
                known[key] = value
            return value
        finally:
            del readings[key]

    def _next_reading(self, key: Key) -> asyncio.Task[Value]:
        """Return the reading that will begin after the one under way, for all who ask until then."""
        waiting = self._waiting.get(key)
        if waiting is None:
            waiting = asyncio.create_task(self._read_after(self._begun.get(key), key))
            self._waiting[key] = waiting
        return waiting

    async def _read_after(self, before: asyncio.Task[Value] | None, key: Key) -> Value:
        if before is not None:
            await asyncio.wait({before})
        mine = self._begun[key] = self._waiting.pop(key)
        try:
            return await to_thread.run_sync(self._read, key)
        finally:
            if self._begun[key] is mine:
                del self._begun[key]
