"""Threads that compute or load, and what no picture survives: one that never comes back, or a lost device.

A thread that waits for ever inside a backend or a driver leaves the event loop answering, and so does an
accelerator that fails every call from now on: the engine looks well from outside while pictures, or models,
are waited for in vain. It ends itself, and whoever has started it starts a new one.
"""

from __future__ import annotations

import asyncio
import faulthandler
import os
import time
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, NoReturn, TypeVar

from app.logs import get_logger
from detection.inference.lost_device import DEVICE_ERRORS, is_device_lost

log = get_logger(__name__)

LOOK_S = 5.0
COMPUTING = 0.05
"""Of a core: who computes takes more, however busy the machine is."""

Value = TypeVar("Value")


@dataclass(frozen=True, slots=True)
class Patience:
    """How long a piece of work may take before it counts as stuck."""

    most_looks: int
    """At the same piece of work, whatever it does."""
    idle_counts: int
    """Looks, for one before which nothing was computed."""


WITH_PICTURES = Patience(most_looks=120, idle_counts=12)
"""They take less than ten minutes; who only waits is stuck after fifty seconds."""
WITH_MODELS = Patience(most_looks=720, idle_counts=1)
"""Building for an accelerator takes many minutes, and who waits for a file from far away computes nothing:
only what has taken an hour is stuck. What TensorRT has built by then is in its cache."""


class Threads(ThreadPoolExecutor):
    """A pool that tells what is under way in it."""

    def __init__(
        self, count: int, name: str, *, niceness: int = 0, patience: Patience = WITH_PICTURES
    ) -> None:
        super().__init__(count, name, initializer=lower_priority, initargs=(niceness,))
        self.name, self.patience = name, patience
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
                _end_engine("the accelerator computes nothing more for this process", exc_info=error)
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

    def look(self) -> str | None:
        """Return the name of a pool in which a piece of work is stuck."""
        now_s = self._computed_s()
        is_idle = now_s - self._before_s <= COMPUTING * LOOK_S
        self._before_s = now_s
        before, self._looks = self._looks, {}
        stuck: str | None = None
        for pool in self._pools:
            for mark in tuple(pool.under_way):
                looks = before.get(mark, 0) + (pool.patience.idle_counts if is_idle else 1)
                self._looks[mark] = looks
                if looks >= pool.patience.most_looks:
                    stuck = pool.name
        return stuck


async def end_when_stuck(pools: Iterable[Threads]) -> None:
    """End this process, with the stacks of its threads in the log, when one of them never comes back."""
    stuck = StuckWork(pools, lambda: time.process_time() - time.thread_time())
    while (pool := stuck.look()) is None:
        await asyncio.sleep(LOOK_S)
    faulthandler.dump_traceback()
    _end_engine("a thread never came back", pool=pool)


def _end_engine(reason: str, **more: object) -> NoReturn:
    log.error(f"engine ends: {reason}", **more)
    os._exit(os.EX_SOFTWARE)  # whatever waited for the threads would wait for ever
