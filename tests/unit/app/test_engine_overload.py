"""Admission under load, simulated: bursts and patient clients are served, a lasting excess is cut short."""

from __future__ import annotations

import asyncio
import heapq
import random
from collections import deque
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import partial

import pytest

from app.engine.admission import Admission, Place
from app.engine.refusal import RefusedError

STREAMS = 2
COMPUTE_S = 0.02
CAPACITY = STREAMS / COMPUTE_S


@dataclass(eq=False)
class Picture:
    came_s: float
    then: Callable[[], None]
    held: AbstractContextManager[Place] | None = None
    place: Place | None = None


@dataclass
class Simulation:
    """An engine of two streams behind an admission, on a clock that jumps from event to event."""

    most_under_overload: int = STREAMS + 1
    now: float = 100.0
    served_s: list[float] = field(default_factory=list)
    refused_s: list[float] = field(default_factory=list)
    hints: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.admission = Admission(
            max_images=256,
            max_bytes=10**9,
            most_under_overload=self.most_under_overload,
            clock=lambda: self.now,
        )
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._queue: deque[Picture] = deque()
        self._free = STREAMS
        self._are_leaving = False
        self._random = random.Random(0)
        self._numbers = iter(range(10**9))

    def at(self, time_s: float, event: Callable[[], None]) -> None:
        heapq.heappush(self._events, (time_s, next(self._numbers), event))

    def run(self, seconds: float) -> None:
        end = self.now + seconds
        while self._events and self._events[0][0] <= end:
            self.now, _, event = heapq.heappop(self._events)
            event()
        self.now = end

    def offer(self, rate: float, seconds: float) -> None:
        """Send at random times, whatever the answers are."""
        time_s = self.now
        while (time_s := time_s + self._random.expovariate(rate)) < self.now + seconds:
            self.at(time_s, self.send)

    def closed_loop(self, clients: int, within_s: float = 0.0) -> None:
        """Let clients send again as soon as they have an answer; they begin one after the other."""
        for client in range(clients):
            self.at(self.now + within_s * client / clients, self._again)

    def stop(self) -> None:
        """Let clients that wait for their answers send no more."""
        self._are_leaving = True

    def _again(self) -> None:
        if self._are_leaving:
            return
        self.at(self.now + 0.003, lambda: self.send(self._again))

    def send(self, then: Callable[[], None] = lambda: None) -> None:
        picture = Picture(self.now, then)
        picture.held = self.admission.admit(1000, lambda: self._drop(picture))
        try:
            picture.place = picture.held.__enter__()
        except RefusedError as error:
            self._refuse(picture, error)
            return
        self._queue.append(picture)
        self._start()

    def _drop(self, picture: Picture) -> None:
        self._queue.remove(picture)
        self.at(self.now, lambda: self._leave(picture))

    def _leave(self, picture: Picture) -> None:
        assert picture.held is not None
        with pytest.raises(RefusedError) as refused:
            picture.held.__exit__(asyncio.CancelledError, asyncio.CancelledError(), None)
        self._refuse(picture, refused.value)

    def _refuse(self, picture: Picture, error: RefusedError) -> None:
        assert error.retry_after_s is not None
        self.hints.append(error.retry_after_s)
        self.refused_s.append(self.now - picture.came_s)
        picture.then()

    def _start(self) -> None:
        while self._free and self._queue:
            picture = self._queue.popleft()
            assert picture.place is not None
            picture.place.begin()
            self._free -= 1
            computed_s = COMPUTE_S * self._random.uniform(0.8, 1.2)
            self.at(self.now + computed_s, partial(self._end, picture))

    def _end(self, picture: Picture) -> None:
        assert picture.held is not None
        picture.held.__exit__(None, None, None)
        self._free += 1
        self.served_s.append(self.now - picture.came_s)
        self._start()
        picture.then()


def percentile(values: list[float], share: float) -> float:
    return sorted(values)[min(int(len(values) * share), len(values) - 1)]


@pytest.mark.parametrize("times", [2, 4, 8])
def test_who_is_accepted_under_lasting_overload_is_served_soon(times: float) -> None:
    run = Simulation()
    run.offer(times * CAPACITY, seconds=10)
    run.run(11)
    noticed = int(2 * CAPACITY / times)  # within so many answers; the more is too much, the sooner
    assert percentile(run.served_s[noticed:], 0.99) <= 3 * COMPUTE_S
    # The few who were in the queue when it was noticed had waited longer, the more so the less was too much.
    assert percentile(run.refused_s, 0.99 if times >= 4 else 0.95) <= 0.1
    assert len(run.served_s) >= 0.9 * 10 * CAPACITY
    assert max(run.hints) <= 10


def test_who_was_let_in_is_not_refused_while_fewer_are_here_than_may_be() -> None:
    """An accelerator computes many at a time: as long as all who are here fit, only the next are too many."""
    run = Simulation(most_under_overload=36)
    run.offer(4 * CAPACITY, seconds=2)
    run.run(3)
    assert run.refused_s
    assert max(run.refused_s) == 0.0


@pytest.mark.parametrize("clients", [1, 2, 16, 48])
def test_clients_that_wait_for_their_answers_are_never_refused(clients: int) -> None:
    run = Simulation()
    run.closed_loop(clients)
    run.run(20)
    assert run.refused_s == []
    assert len(run.served_s) >= 0.8 * min(clients / (COMPUTE_S + 0.003), CAPACITY) * 20


def test_many_patient_clients_that_come_one_after_the_other_are_served() -> None:
    run = Simulation()
    run.closed_loop(120, within_s=15.0)
    run.run(20)
    assert run.refused_s == []


def test_a_burst_is_served_to_the_last() -> None:
    run = Simulation()
    for _ in range(200):
        run.send()
    run.run(10)
    assert (len(run.served_s), run.refused_s) == (200, [])


def test_repeated_bursts_that_can_be_served_are_served() -> None:
    run = Simulation()
    for second in range(10):
        for _ in range(80):
            run.at(run.now + second, run.send)
    run.run(15)
    assert (len(run.served_s), run.refused_s) == (800, [])


def test_after_overload_everything_is_as_before() -> None:
    run = Simulation()
    run.offer(4 * CAPACITY, seconds=5)
    run.run(6)
    assert run.refused_s
    run.refused_s.clear()
    run.run(2)
    run.closed_loop(16)
    run.run(10)
    assert run.refused_s == []


def test_a_little_too_much_is_noticed_before_the_queue_is_full() -> None:
    run = Simulation()
    run.offer(1.5 * CAPACITY, seconds=30)
    run.run(31)
    assert percentile(run.served_s, 0.95) <= 3 * COMPUTE_S
    assert max(run.served_s) < 256 / CAPACITY


@pytest.mark.parametrize("pause_s", [0.0, 0.3, 60.0])
def test_a_burst_too_large_is_told_when_to_come_again_by_what_was_served_before(pause_s: float) -> None:
    run = Simulation()
    run.closed_loop(16)
    run.run(2)
    run = resting(run, pause_s)
    for _ in range(400):
        run.send()
    assert len(run.hints) == 400 - 256
    assert min(run.hints) >= 256 / CAPACITY
    assert max(run.hints) <= 400 / CAPACITY + 1


def resting(run: Simulation, pause_s: float) -> Simulation:
    """Let the clients stop, and one come now and then, which says nothing about what can be served."""
    run.stop()
    run.run(1)
    for number in range(int(pause_s * 10)):
        run.at(run.now + number / 10, run.send)
    run.run(pause_s)
    return run
