"""Seats for those who watch: an open stream costs little, but for as long as its client likes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from app.errors import OverloadedError, TooManyStreamsError

MOST_SEATS = 512
MOST_PER_CALLER = 64
RETRY_AFTER_S = 5


class Seats:
    """Counts open streams, in all and by who opened them."""

    def __init__(self, *, in_all: int = MOST_SEATS, per_caller: int = MOST_PER_CALLER) -> None:
        self._in_all, self._per_caller = in_all, per_caller
        self._taken: Counter[str] = Counter()

    def take(self, caller: str) -> Callable[[], None]:
        """Take a seat; return what gives it back.

        Raises:
            TooManyStreamsError: this caller has enough of them.
            OverloadedError: there is none left.
        """
        if self._taken[caller] >= self._per_caller:
            raise TooManyStreamsError(
                f"{self._per_caller} event streams are open already; close one, `/events` follows all jobs",
                retry_after_s=RETRY_AFTER_S,
            )
        if self._taken.total() >= self._in_all:
            raise OverloadedError("too many event streams are open already", retry_after_s=RETRY_AFTER_S)
        self._taken[caller] += 1

        def leave() -> None:
            self._taken[caller] -= 1
            if not self._taken[caller]:
                del self._taken[caller]

        return leave
