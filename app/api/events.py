"""What happens to jobs, datasets and models, as it happens: one poller, any number of listeners."""

from __future__ import annotations

import asyncio
import bisect
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from typing import Any

from anyio import to_thread
from sqlalchemy import func, select
from sqlalchemy.exc import SQLAlchemyError

from app.database.changes import Changes
from app.database.session import Sessions
from app.database.tables import JobEvent
from app.logs import get_logger

log = get_logger(__name__)

POLL_S = 0.25
HEARTBEAT_S = 15.0
PAGE = 500
REMEMBERED = 5000
"""Events kept in memory; a listener that is further behind reads from the database."""
LONGEST_GAP_S = 2.0
"""Numbers are given before commits: one that is missing for this long was rolled back or deleted."""


@dataclass(frozen=True, slots=True)
class Event:
    """One row of `job_events`."""

    id: int
    job_id: str | None
    subject: str
    kind: str
    data: dict[str, Any]
    at: str


class EventHub:
    """Knows the newest events and wakes those who listen; nothing is queued per listener."""

    def __init__(self, reading: Sessions, changes: Changes) -> None:
        self._reading, self._changes = reading, changes
        self._mark: int | None = None
        """Of the database when there was nothing new in it."""
        self._recent: deque[Event] = deque(maxlen=REMEMBERED)
        self._position = self._remembers_after = 0
        self._horizon: tuple[int, float] | None = None
        self._news = asyncio.Event()
        self._num_listeners = 0
        self._closed = asyncio.Event()
        self._poller: asyncio.Task[None] | None = None

    async def start(self) -> None:
        self._position = self._remembers_after = await to_thread.run_sync(self._newest_id)
        self._poller = asyncio.create_task(self._poll())

    async def stop(self) -> None:
        self.close()
        if self._poller is not None:
            await asyncio.wait({self._poller})  # not cancelled: a thread may just be reading
            self._poller = None

    def close(self) -> None:
        """End every stream: a server that stops must not wait for those who only watch."""
        self._closed.set()
        self._wake()

    @property
    def num_listeners(self) -> int:
        return self._num_listeners

    @property
    def position(self) -> int:
        """The number of the newest event that was handed out."""
        return self._position

    @property
    def is_closing(self) -> bool:
        return self._closed.is_set()

    async def follow(
        self, wanted: Callable[[Event], bool], *, after: int | None, job_id: str | None = None
    ) -> AsyncIterator[Event | None]:
        """Yield the wanted events after a number, past ones first, then as they come; None is a heartbeat.

        Args:
            after: the number of the last event that was seen; None is what comes from now on.
            job_id: only this job's past is looked through.
        """
        seen = self._position if after is None else after
        self._num_listeners += 1
        try:
            while True:
                news = self._news
                events, seen = await self._since(seen, job_id)
                for event in events:
                    if wanted(event):
                        yield event
                if self.is_closing:
                    return
                if seen >= self._position and not await _wait(news, HEARTBEAT_S):
                    yield None
        finally:
            self._num_listeners -= 1

    async def _since(self, seen: int, job_id: str | None) -> tuple[Sequence[Event], int]:
        """Return some of the events after `seen`, and up to where they have been looked through."""
        if seen >= self._remembers_after:
            start = bisect.bisect_right(self._recent, seen, key=lambda event: event.id)
            return [self._recent[index] for index in range(start, len(self._recent))], max(
                seen, self._position
            )
        until = self._position
        events = await to_thread.run_sync(self._read, seen, until, job_id)
        return events, events[-1].id if len(events) == PAGE else until

    async def _poll(self) -> None:
        while not self.is_closing:
            try:
                await self._look()
            except SQLAlchemyError as error:
                log.warning("events_not_read", error=type(error).__name__)
            await _wait(self._closed, POLL_S)

    async def _look(self) -> None:
        """Take what is new; who has committed nothing since nothing was found need not be asked."""
        mark = self._changes.mark()
        if mark is not None and mark == self._mark:
            return
        self._mark = None
        rows = await to_thread.run_sync(self._read, self._position, None, None)
        self._take(self._settled(rows, time.monotonic()))
        self._mark = None if rows else mark

    def _settled(self, rows: Sequence[Event], now: float) -> Sequence[Event]:
        """Return the rows before the first gap that may still be filled by a transaction under way."""
        expected = self._position + 1
        for index, row in enumerate(rows):
            if row.id > expected and not self._is_beyond_doubt(row.id, now):
                if self._horizon is None or now >= self._horizon[1]:
                    self._horizon = (rows[-1].id, now + LONGEST_GAP_S)
                return rows[:index]
            expected = row.id + 1
        return rows

    def _is_beyond_doubt(self, event_id: int, now: float) -> bool:
        return self._horizon is not None and event_id <= self._horizon[0] and now >= self._horizon[1]

    def _take(self, events: Sequence[Event]) -> None:
        if not events:
            return
        for event in events:
            if len(self._recent) == REMEMBERED:
                self._remembers_after = self._recent[0].id
            self._recent.append(event)
        self._position = events[-1].id
        self._wake()

    def _wake(self) -> None:
        news, self._news = self._news, asyncio.Event()
        news.set()

    def _newest_id(self) -> int:
        with self._reading() as session:
            return session.scalar(select(func.max(JobEvent.id))) or 0

    def _read(self, after: int, until: int | None, job_id: str | None) -> list[Event]:
        query = select(JobEvent).where(JobEvent.id > after).order_by(JobEvent.id).limit(PAGE)
        if until is not None:
            query = query.where(JobEvent.id <= until)
        if job_id is not None:
            query = query.where(JobEvent.job_id == job_id)
        with self._reading() as session:
            return [_event(row) for row in session.scalars(query)]


async def _wait(event: asyncio.Event, seconds: float) -> bool:
    """Return whether an event is set within so many seconds."""
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        return False
    return True


def _event(row: JobEvent) -> Event:
    at = row.at.isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return Event(row.id, row.job_id, row.subject, row.kind, row.data, at)
