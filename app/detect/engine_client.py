"""The API's line to the engine: connects when asked, and says at once when nobody is there."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from msgspec.structs import replace

from app.deadlines import Deadlines
from app.detect.engine_room import EngineRoom
from app.detect.errors import ERRORS, EngineFullError
from app.detect.frames import Frame, FrameProtocol
from app.detect.wire import (
    Answer,
    AskStatus,
    Box,
    Cancel,
    Detect,
    Detected,
    EngineStatus,
    Held,
    Hold,
    Prepare,
    Prepared,
    ProtocolError,
    Refused,
    Render,
    Rendered,
    Request,
    ServedModel,
    decode_answer,
    encode,
)
from app.errors import EngineUnavailableError, HarrierError, UnavailableError
from app.settings import Settings
from detection.inference.passes import PLAIN, TtaPass

GRACE_S = 2.0
"""How long beyond its deadline the engine may be silent before it counts as gone."""
STATUS_TIMEOUT_S = 2.0
MAX_ANSWER_BYTES = 1024 * 1024 * 1024
RETRY_AFTER_S = 5
"""A dead engine is back by then."""

Wanted = TypeVar("Wanted", Detected, Rendered, Held, Prepared, EngineStatus)


class EngineClient:
    """One connection for all requests of this process; made anew after the engine died.

    Requests that were under way when the engine died fail at once; they are not sent again, because one of
    them may be what killed it.
    """

    def __init__(self, settings: Settings) -> None:
        self._socket = settings.engine_socket
        self._timeout_s = settings.engine_deadline_s
        self._line: _Line | None = None
        self.has_answered = False
        """The engine that is there, or was last; one that has just started may take its time."""
        self._held: Hold | None = None
        self._connecting = asyncio.Lock()
        self._room = EngineRoom()
        self._numbers = itertools.count(1)

    async def detect(
        self,
        image: bytes,
        model: ServedModel,
        *,
        score_threshold: float = 0.3,
        nms_iou: float | None = None,
        max_detections: int = 100,
        class_ids: tuple[int, ...] | None = None,
        annotate: bool = False,
        passes: tuple[TtaPass, ...] = (PLAIN,),
        classifier: ServedModel | None = None,
        instead: ServedModel | None = None,
    ) -> Detected:
        """Return what the model sees in one picture, and what a classifier says of each box.

        Args:
            instead: looks when `model` must be loaded first and this one need not; the answer names it.

        Raises:
            HarrierError: 413, 415 or 422 for the picture, 503 for the engine.
        """

        def request(number: int) -> Detect:
            return Detect(
                id=number,
                timeout_s=self._timeout_s,
                model=model,
                image=image,
                score_threshold=score_threshold,
                nms_iou=nms_iou,
                max_detections=max_detections,
                class_ids=class_ids,
                annotate=annotate,
                passes=passes,
                classifier=classifier,
                instead=instead,
                turned_away=self._room.take_turned_away(),
            )

        self._room.check()
        try:
            detected = await self._ask(request, Detected, self._timeout_s)
        except EngineFullError as full:
            self._room.note_full(full)
            raise
        except HarrierError:
            self._room.note_left()
            raise
        self._room.note_left()
        return detected

    async def render(
        self, image: bytes, *, boxes: tuple[Box, ...] = (), max_side: int | None = None
    ) -> bytes:
        """Return the picture as JPEG, upright, with boxes drawn, no side longer than `max_side`."""

        def request(number: int) -> Render:
            return Render(id=number, timeout_s=self._timeout_s, image=image, boxes=boxes, max_side=max_side)

        return (await self._ask(request, Rendered, self._timeout_s)).jpeg

    async def hold(self, models: Sequence[ServedModel], expected: Sequence[ServedModel] = ()) -> None:
        """Name all models that the engine is to load now: never to evict, or only while there is room.

        The lists are remembered, and told to the next engine should this one die.
        """
        held = self._held = Hold(0, tuple(models), tuple(expected))
        await self._ask(lambda number: replace(held, id=number), Held, STATUS_TIMEOUT_S)

    async def prepare(self, model: ServedModel, timeout_s: float) -> None:
        """Return when a model is in memory and as quick as it will ever be.

        Raises:
            HarrierError: it cannot be loaded, or not in this time.
        """
        await self._ask(lambda number: Prepare(number, timeout_s, model), Prepared, timeout_s)

    async def status(self, *, timeout_s: float = STATUS_TIMEOUT_S) -> EngineStatus:
        """Return what the engine is doing; 503 when it does not answer in time."""
        return await self._ask(lambda number: AskStatus(number, timeout_s), EngineStatus, timeout_s)

    async def close(self) -> None:
        if self._line is not None:
            await self._line.close()

    async def hang_up(self) -> None:
        """Give up on what waits for an answer; the next request connects anew."""
        line, self._line = self._line, None
        if line is not None:
            await line.close()

    async def _ask(self, request: Callable[[int], Request], wanted: type[Wanted], timeout_s: float) -> Wanted:
        line = await self._connected()
        number = next(self._numbers)
        answer = await line.ask(request(number), timeout_s + GRACE_S)
        self.has_answered = True
        if isinstance(answer, Refused):
            raise _error(answer)
        if not isinstance(answer, wanted):
            raise EngineUnavailableError("the engine answered something else", retry_after_s=RETRY_AFTER_S)
        return answer

    async def _connected(self) -> _Line:
        if self._line is not None and not self._line.is_closed:
            return self._line
        async with self._connecting:
            if self._line is not None and self._line.is_closed:
                self._line, self.has_answered = None, False
            if self._line is None:
                self._line = await _Line.open(self._socket)
                if self._held is not None:
                    self._line.tell(replace(self._held, id=next(self._numbers)))
            return self._line


class _Line:
    """One connection, and the requests that wait for their answers on it."""

    def __init__(self) -> None:
        self._answers: dict[int, asyncio.Future[Answer]] = {}
        self._deadlines = Deadlines(self._give_up)
        self._protocol = FrameProtocol(
            max_bytes=MAX_ANSWER_BYTES,
            on_frame=self._take,
            on_end=self._end,
        )

    @classmethod
    async def open(cls, socket: Path) -> _Line:
        line = cls()
        try:
            async with asyncio.timeout(STATUS_TIMEOUT_S):
                await asyncio.get_running_loop().create_unix_connection(lambda: line._protocol, str(socket))
        except (OSError, TimeoutError):
            raise _gone("the engine is not running") from None
        return line

    @property
    def is_closed(self) -> bool:
        return self._protocol.ended.is_set()

    async def ask(self, request: Request, timeout_s: float) -> Answer:
        if self.is_closed:
            raise _gone("the engine ended")
        answer: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._answers[request.id] = answer
        self._deadlines.begin(request.id, timeout_s)
        try:
            self.tell(request)  # what waits to be written is bounded by what the API may hold
            return await answer
        finally:
            self._deadlines.end(request.id)
            del self._answers[request.id]
            if answer.cancelled():
                self.tell(Cancel(request.id))

    def _give_up(self, number: int) -> None:
        waiting = self._answers[number]
        if not waiting.done():  # its answer may have come just now
            waiting.set_exception(_gone("the engine does not answer"))
            self.tell(Cancel(number))

    def tell(self, request: Request) -> None:
        """Send a request without waiting for its answer."""
        self._protocol.send(*encode(request))

    async def close(self) -> None:
        self._fail_the_waiting("the engine does not answer")
        self._protocol.abort()
        await self._protocol.ended.wait()

    def _take(self, frame: Frame) -> None:
        try:
            answer = decode_answer(frame)
        except ProtocolError:
            self._protocol.abort()  # nothing on this connection can be trusted now
            return
        waiting = self._answers.get(answer.id)
        if waiting is not None and not waiting.done():
            waiting.set_result(answer)

    def _end(self) -> None:
        self._deadlines.close()
        self._fail_the_waiting("the engine ended while it worked on this")

    def _fail_the_waiting(self, detail: str) -> None:
        for waiting in self._answers.values():
            if not waiting.done():
                waiting.set_exception(_gone(detail))


def _error(refused: Refused) -> HarrierError:
    kind = ERRORS[refused.reason]
    if refused.retry_after_s is not None and issubclass(kind, UnavailableError):
        return kind(refused.message, retry_after_s=refused.retry_after_s)
    return kind(refused.message)


def _gone(detail: str) -> EngineUnavailableError:
    return EngineUnavailableError(detail, retry_after_s=RETRY_AFTER_S)
