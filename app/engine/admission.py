"""What the engine accepts: so many pictures, so many bytes, and under overload only what is served soon."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from app.detect.wire import Refusal
from app.engine.pressure import Pressure
from app.engine.refusal import RefusedError


class Place:
    """One picture's place in the engine, from its arrival to its answer."""

    def __init__(self, since: float, size_bytes: int, refuse: Callable[[], object]) -> None:
        self.since, self.size_bytes = since, size_bytes
        self.has_begun = False
        """A thread works on it."""
        self.is_refused = False
        self.is_left = False
        self.is_aside = False
        """It is long on its way, and those who are not pass it."""
        self.is_answered = False
        """Whoever sent it may send the next one already."""
        self._refuse = refuse

    def begin(self) -> None:
        """Note that it waits no more. Called from the thread that works on it."""
        self.has_begun = True

    def leave(self) -> None:
        """Note that nobody waits for it any more, though a thread works on it."""
        self.is_left = True

    def refuse(self) -> None:
        """End the wait of one that has not begun."""
        if self.is_waiting:
            self.is_refused = True
            self._refuse()

    @property
    def is_waiting(self) -> bool:
        return not self.has_begun and not self.is_refused


class Admission:
    """Counts pictures from their arrival to their answer."""

    def __init__(
        self,
        *,
        max_images: int,
        max_bytes: int,
        most_under_overload: int = 1,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Admit up to the bounds.

        Args:
            most_under_overload: pictures that are here then, computed or waiting: no more than keep every
                stream busy, for whoever is let in shares the cores with all others. As many more may be
                aside.
        """
        self._max_images, self._max_bytes = max_images, max_bytes
        self._most_under_overload, self._clock = most_under_overload, clock
        self._pressure = Pressure(clock)
        self._places: dict[Place, None] = {}
        self._unanswered: dict[Place, None] = {}
        """Of the places; threads take from it as well."""
        self._draining = False
        self._empty = asyncio.Event()
        self._empty.set()

    @property
    def images(self) -> int:
        """Pictures without an answer; may be asked from any thread."""
        return len(self._unanswered)

    @property
    def bytes(self) -> int:
        """Of pictures without an answer."""
        return sum(place.size_bytes for place in self._places if not place.is_answered)

    def note_answered(self, place: Place) -> None:
        """Count a picture no longer. Called from the thread that is about to write its answer.

        Who is answered may send the next picture before the event loop learns of it.
        """
        place.is_answered = True
        self._unanswered.pop(place, None)

    def step_aside(self, place: Place) -> None:
        """Count a picture no longer among those that wait for each other: it takes a slower way beside them.

        Raises:
            RefusedError: more comes than can be served, and that way is busy as well.
        """
        if place.is_aside:
            return
        if self._pressure.is_overload and self._num_aside >= self._most_under_overload:
            place.is_refused = True
            raise self._overloaded()
        place.is_aside = True

    @contextmanager
    def admit(
        self, size_bytes: int, refuse: Callable[[], object] = lambda: None, *, turned_away: int = 0
    ) -> Iterator[Place]:
        """Hold a place for one picture.

        Args:
            turned_away: how many more have come, and were sent away before they were here.
            refuse: called when it waits and must wait no longer; it ends the block by cancelling it.

        Raises:
            RefusedError: the queue is full, more comes than can be served, or the engine is about to end.
        """
        if self._draining:
            raise RefusedError(Refusal.DRAINING, "the engine is stopping")
        self._pressure.note_arrivals(1 + turned_away)
        self._check_room(size_bytes)
        place = self._take(size_bytes, refuse)
        served = False
        try:
            yield place
            served = True
        except asyncio.CancelledError:
            if place.is_refused:
                raise self._overloaded() from None
            raise
        finally:
            self._give_back(place, served=served or not place.is_refused)

    async def drain(self) -> None:
        """Accept nothing more and return when everything accepted has been answered."""
        self._draining = True
        await self._empty.wait()

    def _check_room(self, size_bytes: int) -> None:
        if self.images >= self._max_images:
            raise self._overloaded(Refusal.FULL)
        if self.bytes + size_bytes > self._max_bytes:
            raise self._overloaded()
        was_overload = self._pressure.is_overload
        if not self._pressure.judge(self.images, self._longest_wait_s()):
            return
        waiting = [place for place in self._places if place.is_waiting and not place.is_aside]
        if not was_overload:
            # Those who have waited longest are late already; the youngest can still be in time.
            for place in waiting[: max(self._num_together - self._most_under_overload, 0)]:
                place.refuse()
        if self._num_together >= self._most_under_overload:
            raise self._overloaded(Refusal.FULL)

    @property
    def _num_together(self) -> int:
        """Pictures that are here now, and not aside."""
        return sum(not (place.is_refused or place.is_aside or place.is_answered) for place in self._places)

    @property
    def _num_aside(self) -> int:
        return sum(place.is_aside for place in self._places)

    def _longest_wait_s(self) -> float:
        oldest = next((place for place in self._places if place.is_waiting), None)
        return 0.0 if oldest is None else self._clock() - oldest.since

    def _take(self, size_bytes: int, refuse: Callable[[], object]) -> Place:
        place = Place(self._clock(), size_bytes, refuse)
        self._places[place] = self._unanswered[place] = None
        self._empty.clear()
        return place

    def _give_back(self, place: Place, *, served: bool) -> None:
        del self._places[place]
        self._unanswered.pop(place, None)
        if served:
            self._pressure.note_departure()
        if not self._places:
            self._empty.set()

    def _overloaded(self, reason: Refusal = Refusal.OVERLOADED) -> RefusedError:
        return RefusedError(
            reason,
            "too many pictures are waiting already",
            retry_after_s=self._pressure.seconds_until_served(self.images),
        )
