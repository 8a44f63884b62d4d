"""The engine's end of the socket: many requests at once, each answered, refused or abandoned on its own."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any

import structlog

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
    encode_frame,
    read_request,
)
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
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        *,
        max_image_bytes: int,
    ) -> None:
        self._pipeline = pipeline
        self._reader, self._writer = reader, writer
        self._max_bytes = max_image_bytes + ENVELOPE_BYTES
        self._tasks: dict[int, asyncio.Task[None]] = {}

    async def serve(self) -> None:
        """Read requests until the client goes."""
        try:
            while (request := await read_request(self._reader, max_bytes=self._max_bytes)) is not None:
                match request:
                    case Cancel():
                        self._cancel(request.id)
                    case Hold():
                        self._pipeline.hold(request.models)
                        self._writer.write(encode_frame(Held(request.id)))
                    case _:
                        self._start(request)
        except ProtocolError as error:
            log.error("a client that cannot be understood", reason=str(error))
        finally:
            for number in tuple(self._tasks):
                self._cancel(number)
            self._writer.close()

    async def finish(self) -> None:
        """Hang up when every request that was read has its answer."""
        if self._tasks:
            await asyncio.wait(tuple(self._tasks.values()))
        self._writer.close()

    def _start(self, request: Work) -> None:
        task = asyncio.create_task(self._answer(request))
        self._tasks[request.id] = task
        task.add_done_callback(lambda _: self._tasks.pop(request.id, None))

    def _cancel(self, number: int) -> None:
        task = self._tasks.get(number)
        if task is not None:
            task.cancel()

    async def _answer(self, request: Work) -> None:
        work = asyncio.create_task(self._work(request))
        try:
            await asyncio.wait({work}, timeout=request.timeout_s)
        finally:
            in_time = work.done() or not work.cancel()
        answer = _answer_of(request.id, work) if in_time else _expired(request.id)
        self._writer.write(encode_frame(answer))
        with suppress(ConnectionError):  # the client left in this very moment
            await self._writer.drain()

    def _work(self, request: Work) -> Coroutine[Any, Any, Answer]:
        match request:
            case Detect():
                return self._pipeline.detect(request)
            case Render():
                return self._pipeline.render(request)
            case Prepare():
                return self._pipeline.prepare(request)
            case AskStatus():
                return self._pipeline.status(request)


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
