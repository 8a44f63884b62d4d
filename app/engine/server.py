"""The engine's end of the socket: many requests at once, each answered, refused or abandoned on its own."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import structlog

from app.deadlines import Deadlines
from app.detect.frames import Frame, FrameProtocol
from app.detect.wire import (
    Answer,
    AskStatus,
    Cancel,
    Detect,
    Held,
    Hold,
    Prepare,
    ProtocolError,
    Refusal,
    Refused,
    Render,
    decode_request,
    encode,
)
from app.engine.holds import Holds
from app.engine.pipeline import Pipeline
from app.engine.refusal import RefusedError
from detection.errors import DamagedImageError, ImageError, ImageTooLargeError, UnsupportedImageError

IMAGE_REFUSALS: dict[type[ImageError], Refusal] = {
    UnsupportedImageError: Refusal.UNSUPPORTED_IMAGE,
    DamagedImageError: Refusal.DAMAGED_IMAGE,
    ImageTooLargeError: Refusal.IMAGE_TOO_LARGE,
}
ENVELOPE_BYTES = 4 * 1024 * 1024
"""What a request may hold beside the picture: thousands of class names, thousands of boxes."""

Work = Detect | Render | Prepare | AskStatus
"""A request that takes time."""

log = structlog.get_logger(__name__)


class Connection:
    """One client, and the tasks that work for it; they end when it goes."""

    def __init__(
        self,
        pipeline: Pipeline,
        holds: Holds,
        *,
        max_image_bytes: int,
        when_over: Callable[[Connection], None],
    ) -> None:
        self._pipeline, self._holds, self._when_over = pipeline, holds, when_over
        self._tasks: dict[int, asyncio.Task[Answer]] = {}
        self._deadlines = Deadlines(self._expire)
        self.protocol = FrameProtocol(
            max_bytes=max_image_bytes + ENVELOPE_BYTES, on_frame=self._take, on_end=self._forget
        )

    async def finish(self) -> None:
        """Hang up when every request that was read has its answer."""
        if self._tasks:
            await asyncio.wait(tuple(self._tasks.values()))
            await asyncio.sleep(0)  # their answers are written when they are told that they ended
        self.protocol.close()
        await self.protocol.ended.wait()

    def _take(self, frame: Frame) -> None:
        try:
            request = decode_request(frame)
        except ProtocolError as error:
            log.error("a client that cannot be understood", reason=str(error))
            self.protocol.abort()
            return
        match request:
            case Cancel():
                self._cancel(request.id)
            case Hold():
                self._holds.name(self, request)
                self._send(Held(request.id))
            case _:
                self._start(request)

    def _start(self, request: Work) -> None:
        task = self._tasks[request.id] = asyncio.get_running_loop().create_task(self._work(request))
        self._deadlines.begin(request.id, request.timeout_s)

        def end(ended: asyncio.Task[Answer]) -> None:
            self._deadlines.end(request.id)
            if ended.cancelled():
                self._tasks.pop(request.id, None)
            else:
                self._answer(_answer_of(request.id, ended))

        task.add_done_callback(end)

    def _answer(self, answer: Answer) -> None:
        """Send what became of a request, unless it has its answer already; from any thread."""
        if self._tasks.pop(answer.id, None) is not None:
            self._send(answer)

    def _cancel(self, number: int) -> None:
        task = self._tasks.get(number)
        if task is not None:
            task.cancel()

    def _expire(self, number: int) -> None:
        """Answer now; a thread that works on the picture may take a while to notice."""
        task = self._tasks.get(number)
        if task is not None:
            task.cancel()
            self._answer(_expired(number))

    def _forget(self) -> None:
        for number in tuple(self._tasks):
            self._cancel(number)
        self._deadlines.close()
        self._holds.forget(self)
        self._when_over(self)

    def _send(self, answer: Answer) -> None:
        self.protocol.send(*encode(answer))

    async def _work(self, request: Work) -> Answer:
        # A client that takes no answers gets no more work done: they would pile up here.
        await self.protocol.sent()
        match request:
            case Detect():
                return await self._pipeline.detect(request, tell=self._answer)
            case Render():
                return await self._pipeline.render(request)
            case Prepare():
                return await self._pipeline.prepare(request)
            case AskStatus():
                return await self._pipeline.status(request)


def _answer_of(number: int, work: asyncio.Task[Answer]) -> Answer:
    error = work.exception()
    if error is None:
        return work.result()
    if isinstance(error, RefusedError):
        return Refused(number, error.reason, error.message, error.retry_after_s)
    if isinstance(error, ImageError):
        return Refused(number, IMAGE_REFUSALS[type(error)], str(error))
    log.error("a request failed", exc_info=error)
    return Refused(number, Refusal.INTERNAL, "the engine failed on this picture")


def _expired(number: int) -> Refused:
    return Refused(
        number, Refusal.EXPIRED, "waiting for its turn and computing took longer than a picture may take"
    )
