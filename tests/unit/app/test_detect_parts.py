"""The parts of `/detect` that need no engine: room for bytes, the first error of many."""

from __future__ import annotations

import asyncio

import pytest

from app.detect.bodies import Room
from app.detect.service import _all_or_first_error
from app.errors import OverloadedError


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


def test_the_first_error_of_many_pictures_is_raised_as_it_is() -> None:
    async def refuse(after_s: float, detail: str) -> None:
        await asyncio.sleep(after_s)
        raise OverloadedError(detail)

    with pytest.raises(OverloadedError, match="sooner"):
        asyncio.run(_all_or_first_error([refuse(5, "later"), refuse(0, "sooner")]))
