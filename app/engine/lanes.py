"""Two lanes for pictures, so that those which take long and much memory never hold up the others."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Future
from contextlib import asynccontextmanager
from typing import ParamSpec, TypeVar

from app.engine.handover import Handover
from app.engine.threads import Threads

Params = ParamSpec("Params")
Value = TypeVar("Value")

COMPUTING_NICENESS = 3
"""A core goes first to who receives and answers, which takes a moment, then to who computes."""


class Turn:
    """Room in a lane for one picture, from when it is let in until it has left and no thread works on it."""

    def __init__(self, pool: Threads, size_bytes: int, when_over: Callable[[Turn], None]) -> None:
        self.let_in: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.size_bytes = size_bytes
        self._pool, self._when_over = pool, when_over
        self._threads = 0
        self._left = False

    async def run(self, work: Callable[Params, Value], *args: Params.args, **kwargs: Params.kwargs) -> Value:
        """Return what `work` returns in a thread, as `Lane.run`; the room is held while the thread works."""
        running = self._pool.submit(work, *args, **kwargs)
        self._threads += 1
        return await _outcome(running, self._end_thread)

    def leave(self) -> None:
        self._left = True
        self._end_when_through()

    def _end_thread(self) -> None:
        self._threads -= 1
        self._end_when_through()

    def _end_when_through(self) -> None:
        if self._left and not self._threads:
            self._when_over(self)


class Lane:
    """Threads for pictures, and a bound on the pictures that are with them; first come, first served.

    A picture alone in its lane may be larger than the bound on bytes: it has to be taken at some time.
    """

    def __init__(
        self, name: str, *, threads: int, max_pictures: int, max_bytes: int, niceness: int = 0
    ) -> None:
        self.pool = Threads(threads, name, niceness=niceness)
        self._handover = Handover(threads)
        self._max_pictures, self._max_bytes = max_pictures, max_bytes
        self._waiting: deque[Turn] = deque()
        self.pictures = 0
        self.bytes = 0

    @asynccontextmanager
    async def turn(self, size_bytes: int) -> AsyncIterator[Turn]:
        """Wait for room for one picture that takes so much memory, and hold it."""
        turn = Turn(self.pool, size_bytes, self._take_back)
        self._waiting.append(turn)
        self._let_in()
        try:
            await turn.let_in
            yield turn
        finally:
            turn.leave()

    async def run(self, work: Callable[Params, Value], *args: Params.args, **kwargs: Params.kwargs) -> Value:
        """Return what `work` returns in a thread; for what takes no memory worth a turn.

        Who is cancelled leaves when the thread is through, and at once when cancelled a second time.
        """
        return await _outcome(self.pool.submit(work, *args, **kwargs), lambda: None)

    async def take(
        self, work: Callable[[], Value], *, when_left: Callable[[], object], tell: Callable[[Value], object]
    ) -> Value:
        """Return what `work` returns in a thread; `when_left` is called while it works when nobody waits.

        `tell` is called with it from the thread, unless many wait.
        """
        return await self._handover.result(self.pool.submit(work), when_left=when_left, tell=tell)

    def _take_back(self, turn: Turn) -> None:
        if not turn.let_in.cancelled():
            self.pictures -= 1
            self.bytes -= turn.size_bytes
        self._let_in()

    def _let_in(self) -> None:
        while self._waiting and self._has_room_for(self._waiting[0]):
            turn = self._waiting.popleft()
            if not turn.let_in.done():
                self.pictures += 1
                self.bytes += turn.size_bytes
                turn.let_in.set_result(None)

    def _has_room_for(self, turn: Turn) -> bool:
        if turn.let_in.done() or not self.pictures:
            return True
        return self.pictures < self._max_pictures and self.bytes + turn.size_bytes <= self._max_bytes


async def _outcome(running: Future[Value], when_through: Callable[[], None]) -> Value:
    """Wait for a thread; `when_through` is called when it has ended, whether anybody waits or not."""
    answer = asyncio.wrap_future(running)

    def end(_: asyncio.Future[Value]) -> None:
        if not answer.cancelled():
            answer.exception()  # may be of interest to nobody any more
        when_through()

    answer.add_done_callback(end)
    try:
        return await asyncio.shield(answer)
    except asyncio.CancelledError:
        if not running.cancel():
            await asyncio.wait({answer})
        raise
