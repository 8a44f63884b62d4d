"""Threads that compute, and what no picture survives: one of them that never comes back, or a lost device.

A thread that waits for ever inside a backend or a driver leaves the event loop answering, and so does an
accelerator that fails every call from now on: the engine looks well from outside while each picture waits or
fails in vain. It ends itself, and whoever has started it starts a new one.
"""

from __future__ import annotations

import asyncio
import faulthandler
import os
import time
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, NoReturn, TypeVar

from app.logs import get_logger
from detection.inference.lost_device import DEVICE_ERRORS, is_device_lost

log = get_logger(__name__)

LOOK_S = 5.0
MOST_LOOKS = 120
"""At the same piece of work, after which it is stuck whatever it does: ten minutes; pictures take less."""
IDLE_COUNTS = 12
"""Looks, for one before which nothing was computed: who only waits is stuck after fifty seconds."""
COMPUTING = 0.05
"""Of a core: who computes takes more, however busy the machine is."""

Value = TypeVar("Value")


class Threads(ThreadPoolExecutor):
    """A pool that tells what is under way in it."""

    def __init__(self, count: int, name: str, *, niceness: int = 0) -> None:
        super().__init__(count, name, initializer=lower_priority, initargs=(niceness,))
        self.under_way: set[object] = set()
        """A mark for each piece of work that a thread has begun and not ended."""

    def submit(self, work: Callable[..., Value], /, *args: Any, **kwargs: Any) -> Future[Value]:
        return super().submit(self._take_through, work, args, kwargs)

    def _take_through(
        self, work: Callable[..., Value], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Value:
        mark = object()
        self.under_way.add(mark)
        try:
            return work(*args, **kwargs)
        except DEVICE_ERRORS as error:
            if is_device_lost(error):
                _end_engine("the accelerator computes nothing more for this process", error)
            raise
        finally:
            self.under_way.discard(mark)


def lower_priority(niceness: int) -> None:
    """On Linux every thread has a priority of its own."""
    os.nice(niceness)


class StuckWork:
    """Counts how often each piece of work was seen; looks, not seconds: an engine that slept is not stuck."""

    def __init__(self, pools: Iterable[Threads], computed_s: Callable[[], float]) -> None:
        """Begin to look.

        Args:
            computed_s: the processor time that all threads but the event loop's have taken.
        """
        self._pools, self._computed_s = tuple(pools), computed_s
        self._before_s = computed_s()
        self._looks: dict[object, int] = {}

    def look(self) -> bool:
        """Return whether a piece of work is stuck."""
        now_s = self._computed_s()
        counts = 1 if now_s - self._before_s > COMPUTING * LOOK_S else IDLE_COUNTS
        self._before_s = now_s
        marks = [mark for pool in self._pools for mark in tuple(pool.under_way)]
        self._looks = {mark: self._looks.get(mark, 0) + counts for mark in marks}
        return max(self._looks.values(), default=0) >= MOST_LOOKS


async def end_when_stuck(pools: Iterable[Threads]) -> None:
    """End this process, with the stacks of its threads in the log, when one of them never comes back."""
    stuck = StuckWork(pools, lambda: time.process_time() - time.thread_time())
    while not stuck.look():
        await asyncio.sleep(LOOK_S)
    faulthandler.dump_traceback()
    _end_engine("a thread never came back from a picture")


def _end_engine(reason: str, error: Exception | None = None) -> NoReturn:
    log.error(f"engine ends: {reason}", exc_info=error)
    os._exit(os.EX_SOFTWARE)  # whatever waited for the threads would wait for ever
