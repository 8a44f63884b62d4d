"""What must be over in time, under one timer of the event loop: nearly all of it is over long before."""

from __future__ import annotations

import asyncio
from collections.abc import Callable


class Deadlines:
    """Tells which numbers are late. To begin and to end one costs next to nothing."""

    def __init__(self, expire: Callable[[int], None]) -> None:
        """Begin with none.

        Args:
            expire: called once with each number that has not ended in time.
        """
        self._expire = expire
        self._due: dict[int, float] = {}
        self._timer: asyncio.TimerHandle | None = None

    def begin(self, number: int, seconds: float) -> None:
        """Give a number so long."""
        due = self._due[number] = asyncio.get_running_loop().time() + seconds
        if self._timer is None or due < self._timer.when():
            self._look_at(due)

    def end(self, number: int) -> None:
        """Forget a number: it ended, in time or not."""
        self._due.pop(number, None)

    def close(self) -> None:
        """Forget all of them."""
        self._due.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look_at(self, when: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_at(when, self._look, when)

    def _look(self, when: float) -> None:
        """Tell the late ones, and look again when the next one may be late."""
        self._timer = None
        late = [number for number, due in self._due.items() if due <= when]
        for number in late:
            if self._due.pop(number, None) is not None:  # another late one may have ended it
                self._expire(number)
        if self._due and self._timer is None:
            self._look_at(min(self._due.values()))
