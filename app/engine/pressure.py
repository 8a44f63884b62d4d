"""Whether more pictures are offered than can be served, for longer than a queue can make up for.

Sixteen clients that each wait for their answer fill a queue too, and so does a burst; neither is overload: no
more comes than goes, or nothing more comes. In both cases all that wait can be served. It is overload when
far more have come than gone *and* more keep coming than going. Then a long queue helps nobody: all would wait
long, and each would be answered late. A short one serves as many, and each of them soon.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

SLOT_S = 0.02
"""What came and went is counted in slots of time."""
MEMORY_SLOTS = 200
"""Growth of the queue counts within these: an offer of a fifth too much is noticed after seconds."""
SHORT_SLOTS, LONG_SLOTS = 1, 25
"""In two such stretches, one after the other, more must have come than gone: short ones tell an offer of
several times too much at once, long ones tell a little too much from chance."""
MARGIN = 1.15
BURST = 20
"""Pictures by which the queue may grow unasked. So many clients that wait are never refused."""
LONGEST_WAIT_S = 0.04
"""While the oldest has waited no longer, nothing is wrong."""
ENOUGH_GONE = 5
"""So many tell how many go in a stretch."""
LONGEST_HINT_S = 30
"""What becomes of an overload nobody knows for longer."""
CALM_SLOTS = 25
"""Overload is over when for so long no more was offered than served."""


@dataclass(slots=True)
class _Slot:
    number: int
    came: int = 0
    went: int = 0


class Pressure:
    """Counts what came and what went, and says whether it is too much."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._slots: deque[_Slot] = deque()
        self._since: float | None = None
        self._busy_from = self._number()
        """The slot since which there has always been somebody."""
        self._known_rate = 1 / LONG_SLOTS
        """Of departures in a slot, when last enough of them came one upon the other to tell."""

    @property
    def is_overload(self) -> bool:
        return self._since is not None

    def note_arrivals(self, number: int) -> None:
        self._slot().came += number

    def note_departure(self) -> None:
        """Count one that was served; what was refused came and never went."""
        self._slot().went += 1

    def judge(self, backlog: int, longest_wait_s: float) -> bool:
        """Decide anew whether this is overload, and return it.

        Args:
            backlog: what came and has not gone.
            longest_wait_s: how long the one has waited that waits longest.
        """
        if not backlog:
            self._busy_from = self._number()
        if self._since is None:
            if backlog > BURST and longest_wait_s >= LONGEST_WAIT_S and self._keeps_growing():
                self._since = self._clock()
        elif self._is_calm(self._since):
            self._since = None
            self._slots.clear()
        return self._since is not None

    def seconds_until_served(self, waiting: int) -> int:
        """Return after how many whole seconds so many are served at the rate of late: 1 to 30."""
        came, went = self._counts(0, LONG_SLOTS)
        seconds = max(waiting, came - went) * SLOT_S / self._rate()
        return min(max(math.ceil(seconds), 1), LONGEST_HINT_S)

    def _rate(self) -> float:
        """Return how many go in a slot while there is somebody to go: of late, or else what is known."""
        slots = min(self._number() - self._busy_from + 1, LONG_SLOTS)
        _, went = self._counts(0, slots)
        if went >= ENOUGH_GONE:
            self._known_rate = went / slots
        return max(self._known_rate, went / slots)

    def _keeps_growing(self) -> bool:
        came, went = self._counts(0, MEMORY_SLOTS)
        return came - went > BURST and any(
            all(self._outruns(skipped, length) for skipped in (0, length))
            for length in (SHORT_SLOTS, LONG_SLOTS)
        )

    def _outruns(self, skipped: int, length: int) -> bool:
        came, went = self._counts(skipped, length)
        return came > MARGIN * went + 1

    def _is_calm(self, since: float) -> bool:
        if self._clock() - since < CALM_SLOTS * SLOT_S:
            return False
        came, went = self._counts(0, CALM_SLOTS)
        return came <= MARGIN * went + 1

    def _counts(self, skipped: int, length: int) -> tuple[int, int]:
        """Return how many came and went in slots: `skipped` back from now, `length` of them."""
        last = self._number() - skipped
        counted = [slot for slot in self._slots if last - length < slot.number <= last]
        return sum(slot.came for slot in counted), sum(slot.went for slot in counted)

    def _slot(self) -> _Slot:
        number = self._number()
        if not self._slots or self._slots[-1].number != number:
            self._rate()  # remembered, should it be asked for after a pause
            self._slots.append(_Slot(number))
            while self._slots[0].number <= number - MEMORY_SLOTS:
                self._slots.popleft()
        return self._slots[-1]

    def _number(self) -> int:
        return int(self._clock() / SLOT_S)
