"""Lanes: who gets a turn, and when room is given back."""

from __future__ import annotations

import asyncio
import gc
import os
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager

import pytest

from app.engine.lanes import Lane


@contextmanager
def lane(**bounds: int) -> Iterator[Lane]:
    made = Lane("test", **{"threads": 2, "max_pictures": 2, "max_bytes": 100, **bounds})
    try:
        yield made
    finally:
        made.pool.shutdown()


def told(story: Callable[[], Awaitable[None]]) -> None:
    async def in_time() -> None:
        async with asyncio.timeout(20):
            await story()

    asyncio.run(in_time())


class Visitor:
    """Holds a turn until it is told to go."""

    def __init__(self, lane: Lane, size_bytes: int) -> None:
        self.go = asyncio.Event()
        self.inside = False
        self.task = asyncio.create_task(self._visit(lane, size_bytes))

    async def _visit(self, lane: Lane, size_bytes: int) -> None:
        async with lane.turn(size_bytes):
            self.inside = True
            await self.go.wait()
        self.inside = False

    async def leave(self) -> None:
        self.go.set()
        await self.task
        await settled()


async def settled() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def visitors(lane: Lane, *sizes: int) -> list[Visitor]:
    came = [Visitor(lane, size) for size in sizes]
    await settled()
    return came


@pytest.mark.parametrize(
    ("sizes", "inside"),
    [
        ((1, 1, 1), [True, True, False]),
        ((60, 40), [True, True]),
        ((60, 41), [True, False]),
        ((500, 1), [True, False]),
        ((50, 60, 1), [True, False, False]),  # nobody overtakes: large ones would wait for ever
    ],
)
def test_as_many_as_fit_in_the_order_of_their_coming(sizes: tuple[int, ...], inside: list[bool]) -> None:
    async def story() -> None:
        with lane() as bounded:
            came = await visitors(bounded, *sizes)
            assert [each.inside for each in came] == inside
            for each in came:
                assert each.inside
                await each.leave()
            assert (bounded.pictures, bounded.bytes) == (0, 0)

    told(story)


def test_one_that_left_while_it_waited_holds_up_nobody() -> None:
    async def story() -> None:
        with lane() as bounded:
            first, gone, last = await visitors(bounded, 90, 90, 10)
            gone.task.cancel()
            await settled()
            await first.leave()
            assert last.inside
            assert (bounded.pictures, bounded.bytes) == (1, 10)
            await last.leave()

    told(story)


def test_one_that_leaves_in_the_moment_of_its_turn_gives_it_back() -> None:
    async def story() -> None:
        with lane(max_pictures=1) as bounded:
            async with bounded.turn(1):
                (second,) = await visitors(bounded, 1)
            second.task.cancel()  # our end gave it the turn, and it has not run since
            await settled()
            assert not second.inside
            assert (bounded.pictures, bounded.bytes) == (0, 0)

    told(story)


def test_work_that_nobody_waits_for_keeps_its_room_until_its_thread_is_through() -> None:
    async def story() -> None:
        begun, finish = threading.Event(), threading.Event()

        def work() -> None:
            begun.set()
            assert finish.wait(10)

        async def visit(bounded: Lane) -> None:
            async with bounded.turn(70) as turn:
                await turn.run(work)

        with lane() as bounded:
            visitor = asyncio.create_task(visit(bounded))
            await asyncio.to_thread(begun.wait, 10)
            visitor.cancel()
            await settled()
            assert bounded.bytes == 70
            finish.set()
            with pytest.raises(asyncio.CancelledError):
                await visitor
            assert bounded.bytes == 0

    told(story)


def test_room_is_kept_also_for_one_who_leaves_while_the_thread_works() -> None:
    """Cancelled twice, as by a peer that is gone and then by the engine's end."""

    async def story() -> None:
        begun, finish, complaints = threading.Event(), threading.Event(), list[object]()
        asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))

        def work() -> None:
            begun.set()
            assert finish.wait(10)
            raise ZeroDivisionError

        async def visit(bounded: Lane) -> None:
            async with bounded.turn(70) as turn:
                await turn.run(work)

        with lane() as bounded:
            visitor = asyncio.create_task(visit(bounded))
            await asyncio.to_thread(begun.wait, 10)
            for _ in range(2):
                visitor.cancel()
                await settled()
            assert visitor.cancelled()
            (next_one,) = await visitors(bounded, 60)
            assert (bounded.pictures, bounded.bytes) == (1, 70)
            assert not next_one.inside
            finish.set()
            while not next_one.inside:
                await asyncio.sleep(0.01)
            assert (bounded.pictures, bounded.bytes) == (1, 60)
            await next_one.leave()
        del visitor
        gc.collect()
        assert complaints == []

    told(story)


def test_work_that_has_not_begun_is_never_done_for_one_who_left() -> None:
    async def story() -> None:
        done: list[str] = []
        finish = threading.Event()
        with lane(threads=1) as bounded:
            first = asyncio.create_task(bounded.run(finish.wait, 10))
            gone = asyncio.create_task(bounded.run(done.append, "gone"))
            await settled()
            gone.cancel()
            await settled()
            finish.set()
            assert await first
            await bounded.run(done.append, "last")
            assert done == ["last"]

    told(story)


def test_what_goes_wrong_in_a_thread_reaches_the_caller() -> None:
    async def story() -> None:
        with lane() as bounded, pytest.raises(ZeroDivisionError):
            await bounded.run(divmod, 1, 0)

    told(story)


def test_threads_of_a_nice_lane_come_after_all_others() -> None:
    async def story() -> None:
        def niceness() -> int:
            return os.getpriority(os.PRIO_PROCESS, threading.get_native_id())

        with lane() as ordinary, lane(niceness=3) as nice:
            assert await nice.run(niceness) == min(await ordinary.run(niceness) + 3, 19)

    told(story)
