"""Two lanes for pictures, so that those which take long and much memory never hold up the others."""

from __future__ import annotations

import asyncio
import os
from collections import deque
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import ParamSpec, TypeVar

Params = ParamSpec("Params")
Value = TypeVar("Value")


@dataclass(frozen=True, slots=True)
class _Waiting:
    turn: asyncio.Future[None]
    size_bytes: int


class Lane:
    """Threads for pictures, and a bound on the pictures that are with them; first come, first served.

    A picture alone in its lane may be larger than the bound on bytes: it has to be taken at some time.
    """

    def __init__(
        self, name: str, *, threads: int, max_pictures: int, max_bytes: int, niceness: int = 0
    ) -> None:
        self.pool = ThreadPoolExecutor(threads, name, initializer=_lower_priority, initargs=(niceness,))
        self._max_pictures, self._max_bytes = max_pictures, max_bytes
        self._waiting: deque[_Waiting] = deque()
        self.pictures = 0
        self.bytes = 0

    @asynccontextmanager
    async def turn(self, size_bytes: int) -> AsyncIterator[None]:
        """Wait for room for one picture that takes so much memory, and hold it."""
        waiting = _Waiting(asyncio.get_running_loop().create_future(), size_bytes)
        self._waiting.append(waiting)
        self._let_in()
        try:
            await waiting.turn
            yield
        finally:
            if not waiting.turn.cancelled():
                self.pictures -= 1
                self.bytes -= size_bytes
            self._let_in()

    async def run(self, work: Callable[Params, Value], *args: Params.args, **kwargs: Params.kwargs) -> Value:
        """Return what `work` returns in a thread. Who is cancelled leaves when the thread is through with it:
        until then it takes the memory that its turn stands for."""
        running = self.pool.submit(work, *args, **kwargs)
        answer = asyncio.wrap_future(running)
        try:
            return await asyncio.shield(answer)
        except asyncio.CancelledError:
            if not running.cancel():
                await asyncio.wait({answer})
            raise

    def _let_in(self) -> None:
        while self._waiting and self._has_room_for(self._waiting[0]):
            waiting = self._waiting.popleft()
            if not waiting.turn.done():
                self.pictures += 1
                self.bytes += waiting.size_bytes
                waiting.turn.set_result(None)

    def _has_room_for(self, waiting: _Waiting) -> bool:
        if waiting.turn.done() or not self.pictures:
            return True
        return self.pictures < self._max_pictures and self.bytes + waiting.size_bytes <= self._max_bytes


def _lower_priority(niceness: int) -> None:
    """On Linux every thread has a priority of its own."""
    os.nice(niceness)
