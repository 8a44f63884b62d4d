"""Who is sent away when it becomes too much: no more than there is no room for, and not for others' sake."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass

import pytest

from app.detect.wire import Refusal
from app.engine.admission import Admission
from app.engine.refusal import RefusedError


@dataclass
class Told:
    """A pressure that is what it is told to be."""

    is_overload: bool = False
    begins: bool = False
    arrivals: int = 0
    departures: int = 0

    def note_arrivals(self, number: int) -> None:
        self.arrivals += number

    def note_departure(self) -> None:
        self.departures += 1

    def judge(self, backlog: int, longest_wait_s: float) -> bool:
        self.is_overload |= self.begins
        return self.is_overload

    def seconds_until_served(self, waiting: int) -> int:
        return 1


@pytest.fixture
def held() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def admission_of(monkeypatch: pytest.MonkeyPatch, most: int) -> tuple[Admission, Told]:
    admission, told = Admission(max_images=256, max_bytes=10**9, most_under_overload=most), Told()
    monkeypatch.setattr(admission, "_pressure", told)
    return admission, told


@pytest.mark.parametrize(("most", "kept"), [(4, 4), (40, 40), (70, 64), (1000, 64)])
def test_when_it_becomes_too_much_as_many_stay_as_are_served_soon(
    monkeypatch: pytest.MonkeyPatch, held: ExitStack, most: int, kept: int
) -> None:
    admission, told = admission_of(monkeypatch, most)
    places = [held.enter_context(admission.admit(1)) for _ in range(64)]
    told.begins = True
    if most > len(places):
        held.enter_context(admission.admit(1))
    else:
        with pytest.raises(RefusedError):
            held.enter_context(admission.admit(1))
    assert [place.is_refused for place in places] == [True] * (64 - kept) + [False] * kept


def test_large_pictures_do_not_keep_others_out(monkeypatch: pytest.MonkeyPatch, held: ExitStack) -> None:
    admission, told = admission_of(monkeypatch, most=3)
    told.is_overload = True
    for _ in range(3):
        place = held.enter_context(admission.admit(1))
        place.begin()
        admission.step_aside(place)
    for _ in range(3):
        held.enter_context(admission.admit(1))
    with pytest.raises(RefusedError):
        held.enter_context(admission.admit(1))
    held.close()
    assert told.departures == 6


def test_of_large_pictures_no_more_are_let_in_than_of_others(
    monkeypatch: pytest.MonkeyPatch, held: ExitStack
) -> None:
    admission, told = admission_of(monkeypatch, most=1)
    told.is_overload = True
    admission.step_aside(held.enter_context(admission.admit(1)))
    with pytest.raises(RefusedError), admission.admit(1) as place:
        admission.step_aside(place)
    assert told.departures == 0  # who is refused was not served


def test_who_steps_aside_is_not_refused_when_it_is_no_overload(
    monkeypatch: pytest.MonkeyPatch, held: ExitStack
) -> None:
    admission, _ = admission_of(monkeypatch, most=1)
    for _ in range(20):
        place = held.enter_context(admission.admit(1))
        admission.step_aside(place)
        admission.step_aside(place)  # for drawing


def test_those_who_were_sent_away_before_they_came_have_come(
    monkeypatch: pytest.MonkeyPatch, held: ExitStack
) -> None:
    admission, told = admission_of(monkeypatch, 2)
    held.enter_context(admission.admit(1))
    held.enter_context(admission.admit(1, turned_away=5))
    assert told.arrivals == 7


def test_one_that_finds_no_place_under_overload_says_that_nobody_would(
    monkeypatch: pytest.MonkeyPatch, held: ExitStack
) -> None:
    admission, told = admission_of(monkeypatch, 1)
    told.is_overload = True
    held.enter_context(admission.admit(1))
    with pytest.raises(RefusedError) as refused:
        held.enter_context(admission.admit(1))
    assert refused.value.reason is Refusal.FULL


def test_who_is_answered_may_send_the_next_at_once(held: ExitStack) -> None:
    admission = Admission(max_images=1, max_bytes=10)
    with admission.admit(10) as place:
        with pytest.raises(RefusedError):
            held.enter_context(admission.admit(1))
        admission.note_answered(place)
        with admission.admit(10):
            assert (admission.images, admission.bytes) == (1, 10)
    assert (admission.images, admission.bytes) == (0, 0)


def test_under_overload_too(monkeypatch: pytest.MonkeyPatch, held: ExitStack) -> None:
    admission, told = admission_of(monkeypatch, most=1)
    told.is_overload = True
    admission.note_answered(held.enter_context(admission.admit(1)))
    held.enter_context(admission.admit(1))


def test_who_ends_waits_for_the_place_of_one_that_is_answered() -> None:
    async def story() -> None:
        admission = Admission(max_images=1, max_bytes=10)
        with admission.admit(1) as place:
            admission.note_answered(place)
            draining = asyncio.create_task(admission.drain())
            await asyncio.sleep(0)
            assert not draining.done()
        await asyncio.wait_for(draining, 5)

    asyncio.run(story())
