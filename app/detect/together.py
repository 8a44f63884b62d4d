"""The pictures of one request: all are asked about at once, and those that find no room come again.

Under overload the engine lets in a few pictures at a time, fewer than one request may hold. If the first
refusal ended the request, it would never be answered, and what was computed of it would be lost: two clients
that sent sixteen pictures each kept each other out for as long as they tried.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from app.detect.wire import Detected
from app.errors import HarrierError, OverloadedError

PAUSE_S = 0.02
"""Between two questions whether there is room, while the engine has none for any picture of the request."""

Seen = Detected | HarrierError
Look = Callable[[], Coroutine[Any, Any, Seen]]


async def look_together(looks: Sequence[Look], *, patience_s: float) -> list[Seen]:
    """Return all results in order.

    The request is refused when the engine has room for none of its pictures. Once it has looked at one, the
    others wait for their turn, ever fewer at a time while they are refused.

    Args:
        patience_s: so long refused pictures come again.

    Raises:
        HarrierError: the first error; it ends the rest.
    """
    if len(looks) == 1:
        return [await looks[0]()]
    together = _Together(looks, patience_s)
    try:
        return await together.results()
    finally:
        await together.end()


class _Together:
    def __init__(self, looks: Sequence[Look], patience_s: float) -> None:
        self._looks = looks
        self._clock = asyncio.get_running_loop().time
        self._give_up_at = self._clock() + patience_s
        self._waiting = deque(range(len(looks)))
        self._running: dict[asyncio.Task[Seen], int] = {}
        self._seen: dict[int, Seen] = {}
        self._at_once = len(looks)
        self._is_let_in = False

    async def results(self) -> list[Seen]:
        while self._waiting or self._running:
            self._start()
            done, _ = await asyncio.wait(self._running, return_when=asyncio.FIRST_COMPLETED)
            refused = [error for task in done if (error := self._take(task)) is not None]
            if refused:
                await self._bear(refused[0])
        return [self._seen[place] for place in range(len(self._looks))]

    async def end(self) -> None:
        """Stop what is under way, after an error or because nobody waits any more."""
        for task in self._running:
            task.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)

    def _start(self) -> None:
        while self._waiting and len(self._running) < self._at_once:
            place = self._waiting.popleft()
            self._running[asyncio.create_task(self._looks[place]())] = place

    def _take(self, task: asyncio.Task[Seen]) -> OverloadedError | None:
        """Keep a result; return the refusal of a picture that will come again."""
        place = self._running.pop(task)
        try:
            seen = self._seen[place] = task.result()
        except OverloadedError as refused:
            self._waiting.append(place)
            self._at_once = max(len(self._running), 1)
            return refused
        self._is_let_in = self._is_let_in or isinstance(seen, Detected)
        self._at_once += 1
        return None

    async def _bear(self, refused: OverloadedError) -> None:
        """Go on after a refusal, or raise it."""
        if self._clock() >= self._give_up_at:
            raise refused
        if not self._running:
            if not self._is_let_in:
                raise refused
            await asyncio.sleep(PAUSE_S)
