"""Results come from the threads at once while few wait, several together while many do, and never late."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from typing import Any

import pytest

from app.engine import handover as module
from app.engine.handover import Handover

THREADS = 3
ALL_BUSY = 2 * THREADS
"""So many under way, beside those that are through, are many."""


class Bench:
    """Pictures under way, in threads that are through when the test says so."""

    def __init__(self) -> None:
        self.handover = Handover(THREADS)
        self.left: list[int] = []
        self.told: list[int] = []
        self.running: list[Future[int]] = []
        self.waiting: list[asyncio.Task[int]] = []

    async def begin(self, how_many: int) -> None:
        for _ in range(how_many):
            number, running = len(self.running), Future[int]()
            assert running.set_running_or_notify_cancel()
            waits = self.handover.result(
                running, when_left=lambda number=number: self.left.append(number), tell=self.told.append
            )
            self.running.append(running)
            self.waiting.append(asyncio.create_task(waits))
        await settled()

    async def end(self, *numbers: int) -> None:
        for number in numbers:
            self.running[number].set_result(10 * number)
        await settled()

    def end_all(self) -> None:
        for running in self.running:
            if not running.done():
                running.set_result(0)

    @property
    def answered(self) -> list[int]:
        return [waits.result() for waits in self.waiting if waits.done()]


async def settled() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


def told(story: Callable[[Bench], Awaitable[None]]) -> list[dict[str, Any]]:
    """Let a story happen; return what the loop complained about."""
    complaints: list[dict[str, Any]] = []

    async def in_time() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, complaint: complaints.append(complaint))
        async with asyncio.timeout(20):
            bench = Bench()
            try:
                await story(bench)
            finally:
                bench.end_all()  # who is cancelled waits for the threads

    asyncio.run(in_time())
    return complaints


def test_while_few_wait_each_comes_at_once() -> None:
    async def story(bench: Bench) -> None:
        await bench.begin(ALL_BUSY)
        for number in range(ALL_BUSY):
            await bench.end(number)
            assert bench.answered == bench.told == [10 * each for each in range(number + 1)]

    told(story)


def test_a_thread_tells_of_its_result_before_the_loop_is_woken() -> None:
    async def story(bench: Bench) -> None:
        await bench.begin(2)
        bench.running[0].set_result(1)
        assert bench.told == [1]
        assert not bench.waiting[0].done()
        bench.running[1].set_exception(ValueError("no result"))
        await settled()
        assert bench.told == [1]
        assert isinstance(bench.waiting[1].exception(), ValueError)

    told(story)


def test_nobody_takes_for_answered_what_is_only_being_told() -> None:
    async def story(bench: Bench) -> None:
        telling, go_on, running = threading.Event(), threading.Event(), Future[int]()

        def tell_slowly(_: int) -> None:
            telling.set()
            assert go_on.wait(10)

        slow = asyncio.create_task(bench.handover.result(running, when_left=lambda: None, tell=tell_slowly))
        await bench.begin(1)
        thread = asyncio.create_task(asyncio.to_thread(running.set_result, 7))
        await asyncio.to_thread(telling.wait, 10)
        await bench.end(0)
        assert bench.answered == [0], "the loop has been woken"
        assert not slow.done()
        go_on.set()
        await thread
        assert await slow == 7

    assert told(story) == []


def test_a_result_that_cannot_be_told_is_not_lost() -> None:
    async def story(bench: Bench) -> None:
        def fail(_: int) -> None:
            raise RuntimeError("nobody listens")

        running = Future[int]()
        waits = asyncio.create_task(bench.handover.result(running, when_left=lambda: None, tell=fail))
        await settled()
        running.set_result(3)
        assert await waits == 3

    told(story)


def test_while_many_wait_they_come_together() -> None:
    async def story(bench: Bench) -> None:
        await bench.begin(16)
        await bench.end(0, 1, 2, 3, 4)
        assert bench.answered == bench.told == []
        await bench.end(5)
        assert bench.answered == [0, 10, 20, 30, 40, 50], "ten are left, and half as many again came"

    told(story)


def test_those_that_were_kept_come_when_few_are_left() -> None:
    async def story(bench: Bench) -> None:
        await bench.begin(ALL_BUSY + 1)
        await bench.end(0)
        assert bench.answered == []
        await bench.end(1)
        assert bench.answered == [0, 10]

    told(story)


def test_none_waits_long_for_pictures_that_take_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LONGEST_S", 0.001)

    async def story(bench: Bench) -> None:
        await bench.begin(16)
        for number in (0, 1):  # the clock is set again after the first time
            await bench.end(number)
            assert await bench.waiting[number] == 10 * number

    told(story)


def test_an_error_reaches_who_waits_for_it() -> None:
    async def story(bench: Bench) -> None:
        await bench.begin(1)
        bench.running[0].set_exception(ValueError("bad picture"))
        with pytest.raises(ValueError, match="bad picture"):
            await bench.waiting[0]

    told(story)


def test_who_leaves_waits_for_the_thread_and_takes_no_note_of_its_end() -> None:
    async def story(bench: Bench) -> None:
        await bench.begin(1)
        bench.waiting[0].cancel()
        await settled()
        assert bench.left == [0]
        assert not bench.waiting[0].done(), "a thread is still at work for it"
        bench.running[0].set_exception(ValueError("nobody hears it"))
        with pytest.raises(asyncio.CancelledError):
            await bench.waiting[0]

    assert told(story) == []


def test_who_is_cancelled_twice_leaves_at_once() -> None:
    async def story(bench: Bench) -> None:
        await bench.begin(1)
        for _ in range(2):
            bench.waiting[0].cancel()
            await settled()
        assert bench.waiting[0].cancelled()
        await bench.end(0)

    assert told(story) == []


def test_a_thread_that_ends_after_the_loop_is_heard_by_nobody(caplog: pytest.LogCaptureFixture) -> None:
    running = Future[int]()
    assert running.set_running_or_notify_cancel()

    async def story() -> None:
        waits = asyncio.create_task(Handover(THREADS).result(running, when_left=lambda: None))
        for _ in range(2):
            await settled()
            waits.cancel()

    asyncio.run(story())
    running.set_result(0)
    assert caplog.records == []


def test_who_leaves_before_its_turn_costs_no_thread() -> None:
    async def story(bench: Bench) -> None:
        queued = Future[int]()
        waits = asyncio.create_task(bench.handover.result(queued, when_left=lambda: bench.left.append(0)))
        await settled()
        waits.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waits
        assert (queued.cancelled(), bench.left) == (True, [])

    assert told(story) == []


def test_who_leaves_in_the_moment_of_its_result_leaves() -> None:
    async def story(bench: Bench) -> None:
        await bench.begin(1)
        bench.running[0].set_result(1)
        await asyncio.sleep(0)  # handed over, and not yet taken
        bench.waiting[0].cancel()
        with pytest.raises(asyncio.CancelledError):
            await bench.waiting[0]

    assert told(story) == []
