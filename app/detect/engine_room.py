"""What the engine said last about room in it: while nothing leaves, to ask again would get the same answer.

Under overload most pictures are refused. To bring each to the engine first, with all its bytes, would take
the time of those that it works on.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from app.errors import OverloadedError

LONGEST_S = 0.02
"""So long the engine is believed: what leaves it may have come from another process than this one."""


class EngineRoom:
    """Whether the engine has room, as far as its answers tell."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._refused: OverloadedError | None = None
        self._until = 0.0
        self._num_turned_away = 0

    def check(self) -> None:
        """Turn away what the engine would refuse.

        Raises:
            OverloadedError: as the engine has put it.
        """
        refused = self._refused
        if refused is not None and self._clock() < self._until:
            self._num_turned_away += 1
            raise OverloadedError(refused.detail, retry_after_s=refused.retry_after_s)

    def note_full(self, refused: OverloadedError) -> None:
        """Note that the engine takes nothing until something leaves it."""
        self._refused, self._until = refused, self._clock() + LONGEST_S

    def note_left(self) -> None:
        """Note that something has left the engine."""
        self._refused = None

    def take_turned_away(self) -> int:
        """Return how many were turned away since the last time: the engine counts them among what comes."""
        turned_away, self._num_turned_away = self._num_turned_away, 0
        return turned_away
