"""Batches: none waits without reason, none grows too large, none suffers from one bad item."""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import Awaitable, Callable, Sequence

import pytest
import torch

from app.engine.batcher import Batcher


class Machine:
    """A batch runner that stops at a gate and notes what it was given."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.gate = asyncio.Event()
        self.running = self.most_running = 0
        self.fits = 1000
        self.now, self.takes_s = 0.0, 0.0

    async def run(self, items: Sequence[int]) -> list[int]:
        self.batches.append(list(items))
        self.running += 1
        self.most_running = max(self.most_running, self.running)
        await self.gate.wait()
        self.running -= 1
        self.now += self.takes_s
        if len(items) > self.fits:
            raise torch.OutOfMemoryError("CUDA out of memory")
        if any(item < 0 for item in items):
            raise ValueError(f"cannot double {min(items)}")
        return [2 * item for item in items]


def batched(story: Callable[[Machine], Awaitable[None]]) -> None:
    async def tell() -> None:
        async with asyncio.timeout(10):
            await story(Machine())

    asyncio.run(tell())


async def settle() -> None:
    """Let every task go on until it waits."""
    for _ in range(10):
        await asyncio.sleep(0)


def submit(batcher: Batcher[int, int], *items: int) -> list[asyncio.Task[int]]:
    return [asyncio.create_task(batcher.submit(item)) for item in items]


def test_a_lone_item_starts_at_once_in_spite_of_a_long_delay() -> None:
    async def story(machine: Machine) -> None:
        batcher = Batcher(machine.run, max_batch_size=8, max_delay_s=1000)
        machine.gate.set()
        for item in (1, 2, 3):
            assert await batcher.submit(item) == 2 * item
        assert machine.batches == [[1], [2], [3]]

    batched(story)


def test_what_came_while_a_stream_was_busy_goes_together() -> None:
    async def story(machine: Machine) -> None:
        batcher = Batcher(machine.run, max_batch_size=3)
        answers = submit(batcher, 1, 2, 3, 4, 5)
        await settle()
        machine.gate.set()
        assert await asyncio.gather(*answers) == [2, 4, 6, 8, 10]
        assert machine.batches == [[1], [2, 3, 4], [5]]

    batched(story)


def test_after_a_batch_of_several_the_next_waits_for_its_mates_until_it_is_full() -> None:
    async def story(machine: Machine) -> None:
        batcher = Batcher(machine.run, max_batch_size=2, max_delay_s=1000, clock=lambda: machine.now)
        machine.gate.set()
        machine.takes_s = 4000
        await asyncio.gather(*submit(batcher, 0, 1, 2))
        (early,) = submit(batcher, 3)
        await settle()
        assert not early.done()
        (late,) = submit(batcher, 4)
        assert await asyncio.gather(early, late) == [6, 8]
        assert machine.batches[-1] == [3, 4]

    batched(story)


def test_the_wait_for_mates_ends() -> None:
    async def story(machine: Machine) -> None:
        batcher = Batcher(machine.run, max_batch_size=2, max_delay_s=0.01)
        machine.gate.set()
        await asyncio.gather(*submit(batcher, 0, 1, 2))
        assert await batcher.submit(3) == 6
        assert machine.batches[-1] == [3]

    batched(story)


def test_as_many_batches_run_as_there_are_streams() -> None:
    async def story(machine: Machine) -> None:
        batcher = Batcher(machine.run, max_batch_size=1, streams=2)
        answers = submit(batcher, *range(6))
        await settle()
        assert machine.batches == [[0], [1]]
        machine.gate.set()
        assert await asyncio.gather(*answers) == [0, 2, 4, 6, 8, 10]
        assert machine.most_running == 2

    batched(story)


def test_a_bad_item_costs_only_its_own_answer() -> None:
    async def story(machine: Machine) -> None:
        batcher = Batcher(machine.run, max_batch_size=8)
        answers = submit(batcher, 0, 1, -7, 3)
        await settle()
        machine.gate.set()
        first, second, bad, fourth = await asyncio.gather(*answers, return_exceptions=True)
        assert (first, second, fourth) == (0, 2, 6)
        assert isinstance(bad, ValueError)
        assert await batcher.submit(5) == 10

    batched(story)


def test_an_abandoned_item_is_dropped_before_it_costs_anything() -> None:
    async def story(machine: Machine) -> None:
        batcher = Batcher(machine.run, max_batch_size=4)
        running, gone, alive = submit(batcher, 1, 2, 3)
        await settle()
        gone.cancel()
        await settle()
        machine.gate.set()
        assert await asyncio.gather(running, alive) == [2, 6]
        assert machine.batches == [[1], [3]]

    batched(story)


def test_abandoning_what_already_runs_disturbs_nobody() -> None:
    async def story(machine: Machine) -> None:
        batcher = Batcher(machine.run, max_batch_size=4)
        (gone,) = submit(batcher, 1)
        await settle()
        gone.cancel()
        (next_one,) = submit(batcher, 2)
        await settle()
        machine.gate.set()
        with pytest.raises(asyncio.CancelledError):
            await gone
        assert await next_one == 4

    batched(story)


def test_a_batch_that_does_not_fit_is_cut_in_halves_and_none_is_as_large_again() -> None:
    async def story(machine: Machine) -> None:
        machine.fits = 2
        machine.gate.set()
        batcher = Batcher(machine.run, max_batch_size=8)
        await batcher.submit(100)
        first = await asyncio.gather(*submit(batcher, *range(9)))
        assert first == [2 * item for item in range(9)]
        assert [len(batch) for batch in machine.batches] == [1, 1, 8, 4, 2, 2, 4, 2, 2]
        machine.batches.clear()
        await asyncio.gather(*submit(batcher, *range(5)))
        assert max(len(batch) for batch in machine.batches) == 2

    batched(story)


class Memory:
    """What a batch computes on its way."""


def test_what_did_not_fit_is_gone_before_its_halves_are_tried() -> None:
    held: list[weakref.ref[Memory]] = []

    async def run(items: Sequence[int]) -> list[int]:
        assert all(each() is None for each in held)
        own = Memory()
        held.append(weakref.ref(own))
        await asyncio.sleep(0)
        if len(items) > 1:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return list(items)

    async def story(_: Machine) -> None:
        batcher = Batcher(run, max_batch_size=8)
        assert await asyncio.gather(*submit(batcher, *range(5))) == list(range(5))
        assert len(held) > 5

    batched(story)


def test_one_that_does_not_fit_even_alone_is_an_error_of_its_own() -> None:
    async def story(machine: Machine) -> None:
        machine.fits = 0
        machine.gate.set()
        batcher = Batcher(machine.run, max_batch_size=4)
        with pytest.raises(torch.OutOfMemoryError):
            await batcher.submit(1)
        machine.fits = 1
        assert await batcher.submit(2) == 4

    batched(story)


def test_nobody_waits_longer_for_mates_than_they_save() -> None:
    async def story(machine: Machine) -> None:
        batcher = Batcher(machine.run, max_batch_size=4, max_delay_s=1000)
        machine.gate.set()
        await asyncio.gather(*submit(batcher, 0, 1, 2))  # a batch takes next to nothing here
        assert await batcher.submit(3) == 6
        assert machine.batches[-1] == [3]

    batched(story)
