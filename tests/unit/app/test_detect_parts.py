"""The parts of `/detect` that need no engine: room for bytes, many pictures in one request."""

from __future__ import annotations

import asyncio
from functools import partial

import pytest

from app.detect.bodies import Room
from app.detect.together import Look, Seen, look_together
from app.detect.wire import Detected, Timing
from app.errors import EngineUnavailableError, OverloadedError


def test_room_is_given_back_also_after_a_refusal() -> None:
    room = Room(max_requests=2, max_bytes=10)
    with room.enter(is_here=True) as take, room.enter(is_here=True) as take_more:
        take(4)
        take_more(5)
        with pytest.raises(OverloadedError):
            take(2)
        take(1)
        assert room.held_bytes == 10
        with pytest.raises(OverloadedError), room.enter(is_here=True):
            pass
    assert room.held_bytes == 0
    with room.enter(is_here=True) as take:
        take(10)
    assert room.held_bytes == 0


def test_many_slow_bodies_keep_out_nobody_whose_picture_is_here() -> None:
    room = Room(max_requests=2, max_bytes=16)
    with room.enter(is_here=False) as alone:
        alone(16)
    with room.enter(is_here=False) as slow, room.enter(is_here=False) as as_slow:
        slow(6)
        as_slow(6)
        for take in (slow, as_slow):
            with pytest.raises(OverloadedError):
                take(1)
        with pytest.raises(OverloadedError), room.enter(is_here=False):
            pass
        with room.enter(is_here=True) as take, room.enter(is_here=True):
            take(4)
            assert room.held_bytes == 16
    assert room.held_bytes == 0


NO_TIME = Timing(0, 0, 0, 0, 0, batch_size=1)


class Engine:
    """Looks at so many pictures at a time, and refuses the others."""

    def __init__(self, room: int) -> None:
        self.room, self.busy, self.asked = room, 0, 0
        self.is_closed = False

    async def look(self, place: int) -> Detected:
        self.asked += 1
        await asyncio.sleep(0)
        if self.is_closed:
            raise EngineUnavailableError("gone")
        if self.busy >= self.room:
            raise OverloadedError(f"no room for {place}")
        self.busy += 1
        await asyncio.sleep(0.001)
        self.busy -= 1
        return found(place)

    def looks(self, number: int) -> list[Look]:
        return [partial(self.look, place) for place in range(number)]


def found(place: int) -> Detected:
    return Detected(id=place, model_id="m", width=1, height=1, boxes=(), timing=NO_TIME, queue_images=0)


async def patient(engine: Engine, number: int) -> list[Seen]:
    """Ask again at once, as impatient clients do."""
    for _ in range(1000):
        try:
            return await look_together(engine.looks(number), patience_s=20)
        except OverloadedError:
            await asyncio.sleep(0)
    raise AssertionError("never let in")


def test_many_pictures_are_seen_in_their_order_by_an_engine_that_takes_few_at_a_time() -> None:
    async def story() -> None:
        engine = Engine(room=3)
        everything = [found(place) for place in range(16)]
        assert await look_together(engine.looks(16), patience_s=20) == everything
        assert engine.asked < 100, "who is refused does not ask all the time"
        both = await asyncio.gather(patient(engine, 16), patient(engine, 16))
        assert all(seen == everything for seen in both)

    asyncio.run(story())


def test_a_request_is_refused_when_none_of_its_pictures_finds_room() -> None:
    async def story() -> None:
        engine = Engine(room=0)
        with pytest.raises(OverloadedError, match="no room"):
            await look_together(engine.looks(4), patience_s=20)
        assert engine.asked == 4
        engine.room = 1
        with pytest.raises(OverloadedError):
            await look_together(engine.looks(4), patience_s=0)

    asyncio.run(story())


def test_the_first_error_ends_the_rest_and_so_does_the_client() -> None:
    async def story() -> None:
        engine = Engine(room=4)
        engine.is_closed = True
        with pytest.raises(EngineUnavailableError):
            await look_together(engine.looks(4), patience_s=20)
        engine.is_closed = False
        left = asyncio.create_task(look_together(engine.looks(4), patience_s=20))
        await asyncio.sleep(0)
        left.cancel()
        with pytest.raises(asyncio.CancelledError):
            await left
        assert len(asyncio.all_tasks()) == 1

    asyncio.run(story())
