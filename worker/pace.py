"""How long the rest of a job will take if it goes on as it did so far."""

from __future__ import annotations

import time
from collections.abc import Callable

SURE_AFTER_S = 1.0
"""Earlier than this a pace says little."""


class Pace:
    """Times one kind of work from the moment in which it is made."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock, self._began = clock, clock()

    def eta_s(self, done: float, left: float) -> float | None:
        """Return the seconds that what is `left` will take; None when it cannot be told or nothing is."""
        took_s = self._clock() - self._began
        return took_s / done * left if done and left and took_s >= SURE_AFTER_S else None
