"""Groups single items into batches without making a lone one wait, and keeps a bad one to itself."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from detection.inference.out_of_memory import MemoryLimit, is_out_of_memory

WORTH_OF_A_BATCH = 0.25
"""Waiting for more never takes longer than this share of the time that a batch takes: that is about what a
fuller one saves."""

Item = TypeVar("Item")
Result = TypeVar("Result")

RunBatch = Callable[[Sequence[Item]], Awaitable[Sequence[Result]]]


@dataclass(frozen=True, slots=True)
class _Waiting(Generic[Item, Result]):
    item: Item
    answer: asyncio.Future[Result]
    since: float


class Batcher(Generic[Item, Result]):
    """Runs `run_batch` on up to `streams` batches at a time, each of up to `max_batch_size` items.

    A batch starts as soon as a stream is free. Only when several items came together before may a batch that
    is not full wait for more, and never longer than `max_delay_s` after its first item arrived.
    An item whose submitter was cancelled is dropped before it costs anything. A batch for which the memory
    does not suffice is cut in halves, and none is as large again.
    """

    def __init__(
        self,
        run_batch: RunBatch[Item, Result],
        *,
        max_batch_size: int = 1,
        streams: int = 1,
        max_delay_s: float = 0.0,
        clock: Callable[[], float] | None = None,
    ) -> None:
        self._run_batch = run_batch
        self._limit = MemoryLimit(max_batch_size)
        self._free_streams = streams
        self._max_delay_s = max_delay_s
        self._waiting: deque[_Waiting[Item, Result]] = deque()
        self._last_batch_size = 1
        self._batch_s: float | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._running: set[asyncio.Task[None]] = set()
        self._clock = clock or asyncio.get_running_loop().time

    async def submit(self, item: Item) -> Result:
        """Return the item's own result.

        Raises:
            Exception: whatever `run_batch` raises for this item alone.
        """
        answer: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        self._waiting.append(_Waiting(item, answer, self._clock()))
        self._start_batches()
        return await answer

    def _start_batches(self) -> None:
        self._forget_timer()
        while self._free_streams and self._drop_abandoned():
            delay = self._remaining_delay_s()
            if delay > 0:
                self._timer = asyncio.get_running_loop().call_later(delay, self._start_batches)
                return
            self._start_batch()

    def _remaining_delay_s(self) -> float:
        alone = self._last_batch_size == 1 and len(self._waiting) == 1
        if alone or len(self._waiting) >= self._limit.most:
            return 0.0
        worth_s = self._max_delay_s if self._batch_s is None else WORTH_OF_A_BATCH * self._batch_s
        return self._waiting[0].since + min(self._max_delay_s, worth_s) - self._clock()

    def _start_batch(self) -> None:
        batch: list[_Waiting[Item, Result]] = []
        while self._waiting and len(batch) < self._limit.most:
            waiting = self._waiting.popleft()
            if not waiting.answer.done():
                batch.append(waiting)
        self._last_batch_size = len(batch)
        self._free_streams -= 1
        task = asyncio.create_task(self._serve(batch))
        self._running.add(task)
        task.add_done_callback(self._running.discard)

    async def _serve(self, batch: list[_Waiting[Item, Result]]) -> None:
        try:
            await self._serve_together(batch)
        finally:
            self._free_streams += 1
            self._start_batches()

    async def _serve_together(self, batch: list[_Waiting[Item, Result]]) -> None:
        begun = self._clock()
        attempt = asyncio.ensure_future(self._run_batch([waiting.item for waiting in batch]))
        await asyncio.wait({attempt})
        error = attempt.exception()
        if error is None:
            self._batch_s = self._clock() - begun
            for waiting, result in zip(batch, attempt.result(), strict=True):
                if not waiting.answer.done():
                    waiting.answer.set_result(result)
        elif len(batch) == 1:
            if not batch[0].answer.done():
                batch[0].answer.set_exception(error)
        else:
            await self._serve_parts(batch, error)

    async def _serve_parts(self, batch: list[_Waiting[Item, Result]], error: BaseException) -> None:
        """Serve a batch that failed as a whole: in halves that fit, or each alone to see which one is bad."""
        part_size = self._limit.halve(len(batch), error) if is_out_of_memory(error) else 1
        for start in range(0, len(batch), part_size):
            part = [waiting for waiting in batch[start : start + part_size] if not waiting.answer.done()]
            if part:
                await self._serve_together(part)

    def _drop_abandoned(self) -> bool:
        """Forget items at the front that nobody waits for; return whether any item is left."""
        while self._waiting and self._waiting[0].answer.done():
            self._waiting.popleft()
        return bool(self._waiting)

    def _forget_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
