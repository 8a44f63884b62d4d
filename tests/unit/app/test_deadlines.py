"""Whoever is late is told once; whoever ends in time never, though all share one timer."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest
import uvloop

from app.deadlines import Deadlines

SOON, LATER, NEVER = 0.01, 0.05, 3600.0


def told(story: Callable[[Deadlines], Awaitable[None]]) -> list[int]:
    late: list[int] = []

    async def tell() -> None:
        deadlines = Deadlines(late.append)
        try:
            await story(deadlines)
        finally:
            deadlines.close()

    for runner in (asyncio.Runner(), asyncio.Runner(loop_factory=uvloop.new_event_loop)):
        late.clear()
        with runner:
            runner.run(tell())
        yielded = list(late)
    return yielded


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.002)


@pytest.mark.parametrize("order", [(SOON, LATER), (LATER, SOON), (SOON, SOON)])
def test_each_is_told_once_in_its_turn(order: tuple[float, float]) -> None:
    async def story(deadlines: Deadlines) -> None:
        for number, seconds in enumerate((*order, NEVER)):
            deadlines.begin(number, seconds)
        await until(lambda: len(deadlines._due) == 1)

    assert told(story) == sorted(range(2), key=order.__getitem__)


def test_who_ends_in_time_is_not_told_nor_hides_who_does_not() -> None:
    async def story(deadlines: Deadlines) -> None:
        deadlines.begin(1, SOON)
        deadlines.end(1)
        deadlines.begin(2, LATER)
        await until(lambda: not deadlines._due)

    assert told(story) == [2]


def test_a_late_one_may_begin_another() -> None:
    async def begin_again(late: list[int]) -> None:
        def tell(number: int) -> None:
            late.append(number)
            if number == 1:
                deadlines.begin(2, SOON)

        deadlines = Deadlines(tell)
        deadlines.begin(1, SOON)
        deadlines.begin(3, LATER)
        await until(lambda: len(late) == 3)
        deadlines.close()

    late: list[int] = []
    asyncio.run(begin_again(late))
    assert sorted(late) == [1, 2, 3]


def test_after_the_end_nobody_is_told() -> None:
    async def story(deadlines: Deadlines) -> None:
        deadlines.begin(1, SOON)
        deadlines.close()
        await asyncio.sleep(2 * SOON)

    assert told(story) == []
