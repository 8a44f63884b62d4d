"""How results come from the threads that compute to the event loop: several together while many wait.

Whoever is woken finds the caches of its core taken by the networks, and wakes the next: the loop the API, the
API the client, who sends its next picture the same way. Three results at a time cost hardly more than one.
Where pictures queue, nobody loses by it: what is not spent on waking serves the queue. The longer the queue,
the more results come together; twice as many pictures keep the threads busy meanwhile.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, TypeVar

LONGEST_S = 0.03
"""So long a result waits for others."""

Value = TypeVar("Value")


class Handover:
    """Hands over what the threads of one pool have computed."""

    def __init__(self, num_threads: int) -> None:
        self._num_threads = num_threads
        self._answers: dict[Future[Any], asyncio.Future[Any]] = {}
        self._through: deque[Future[Any]] = deque()
        self._timer: asyncio.TimerHandle | None = None

    async def result(
        self,
        running: Future[Value],
        *,
        when_left: Callable[[], object],
        tell: Callable[[Value], object] = lambda _: None,
    ) -> Value:
        """Return what a thread returns or raises.

        Who is cancelled leaves when the thread is through, and at once when cancelled a second time.

        Args:
            when_left: called when nobody waits any more, and the thread is at work.
            tell: called with the result in the thread, before the loop is woken for it, while few wait.
        """
        try:
            return await self._expect(running, tell)
        except asyncio.CancelledError:
            if not running.cancel():
                when_left()
                await asyncio.wait({self._expect_again(running)})
            raise

    def _expect(self, running: Future[Value], tell: Callable[[Value], object]) -> asyncio.Future[Value]:
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[Value] = loop.create_future()
        self._answers[running] = answer
        running.add_done_callback(lambda through: self._take(through, loop, tell))
        self._watch()
        return answer

    def _expect_again(self, running: Future[Any]) -> asyncio.Future[None]:
        through: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        through.add_done_callback(_hear)  # how it ended is of interest to nobody any more
        if running in self._answers:
            self._answers[running] = through
        else:
            through.set_result(None)
        return through

    @property
    def _many_wait(self) -> bool:
        """Whether every thread has work, and as much again waits."""
        return self._num_unfinished >= 2 * self._num_threads

    @property
    def _num_unfinished(self) -> int:
        return len(self._answers) - len(self._through)

    def _take(
        self, through: Future[Value], loop: asyncio.AbstractEventLoop, tell: Callable[[Value], object]
    ) -> None:
        """Keep a result, and wake the loop when it is time; called from the thread.

        It is told first: another thread may wake the loop meanwhile, and nobody may take for answered
        what is only about to be.
        """
        few_wait = self._num_unfinished - 1 < 2 * self._num_threads
        try:
            if few_wait and not (through.cancelled() or through.exception()):
                tell(through.result())
        finally:
            self._through.append(through)
            are_enough = few_wait or 2 * len(self._through) >= self._num_unfinished
            if are_enough and not loop.is_closed():  # who left at once, at the end, left a thread behind
                loop.call_soon_threadsafe(self._hand_over)

    def _hand_over(self) -> None:
        while self._through:
            running = self._through.popleft()
            answer = self._answers.pop(running)
            if not answer.done():
                _copy(running, answer)
        self._watch()

    def _watch(self) -> None:
        """See to it that no result waits for pictures that take long."""
        if self._timer is None and self._many_wait:
            self._timer = asyncio.get_running_loop().call_later(LONGEST_S, self._end_the_wait)

    def _end_the_wait(self) -> None:
        self._timer = None
        self._hand_over()


def _hear(through: asyncio.Future[None]) -> None:
    if not through.cancelled():
        through.exception()


def _copy(running: Future[Any], answer: asyncio.Future[Any]) -> None:
    error = None if running.cancelled() else running.exception()
    if running.cancelled():
        answer.cancel()
    elif error is not None:
        answer.set_exception(error)
    else:
        answer.set_result(running.result())
