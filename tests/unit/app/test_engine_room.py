"""What the engine would refuse is turned away before it is brought there, for as long as that is true."""

from __future__ import annotations

import pytest

from app.detect.engine_room import LONGEST_S, EngineRoom
from app.errors import OverloadedError

FULL = OverloadedError("too many pictures are waiting already", retry_after_s=7)


class Clock:
    now = 5.0

    def __call__(self) -> float:
        return self.now


def turned_away(room: EngineRoom) -> OverloadedError:
    with pytest.raises(OverloadedError) as raised:
        room.check()
    return raised.value


def test_a_full_engine_is_not_asked_until_something_leaves_it() -> None:
    room = EngineRoom(Clock())
    room.check()
    room.note_full(FULL)
    for _ in range(2):
        said = turned_away(room)
        assert (said.detail, said.retry_after_s) == (FULL.detail, 7)
        assert said is not FULL, "an error that is raised twice keeps what it was raised in"
    room.note_left()
    room.check()


def test_it_is_asked_again_after_a_moment() -> None:
    room = EngineRoom(clock := Clock())
    room.note_full(FULL)
    clock.now += 0.9 * LONGEST_S
    turned_away(room)
    clock.now += 0.2 * LONGEST_S
    room.check()


def test_each_that_was_turned_away_is_told_of_once() -> None:
    room = EngineRoom(Clock())
    room.note_full(FULL)
    for _ in range(3):
        turned_away(room)
    assert [room.take_turned_away(), room.take_turned_away()] == [3, 0]
