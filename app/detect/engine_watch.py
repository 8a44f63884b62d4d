"""What an API process keeps telling the engine and asking it: which models are held, and how full it is."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress

from anyio import to_thread
from sqlalchemy.exc import SQLAlchemyError

from app.database.changes import Changes
from app.detect.engine_client import EngineClient
from app.detect.measures import DetectMeasures
from app.detect.model_choice import ModelChoice
from app.detect.wire import ServedModel
from app.errors import EngineUnavailableError, HarrierError
from app.logs import get_logger

log = get_logger(__name__)

_Held = tuple[Sequence[ServedModel], Sequence[ServedModel]]
"""The models that are asked for by name, and those that a plan was pinned to."""

PERIOD_S = 0.5
"""So long after a commit, of whomever, the engine begins to load what an alias has moved to."""
MOST_UNANSWERED = 2
"""Looks in a row, of some seconds each; then the engine is frozen, and nobody need wait for it."""


class EngineWatch:
    """Runs beside the requests: the engine loads what they will ask for, and keeps it.

    Asking how full it is also finds out that it is a new one, which the client then tells what is held, and
    that it has frozen: then nobody waits for it longer than some seconds.
    """

    def __init__(
        self, engine: EngineClient, models: ModelChoice, changes: Changes, measures: DetectMeasures
    ) -> None:
        self._engine, self._models = engine, models
        self._changes, self._measures = changes, measures
        self._mark: int | None = None
        self._held: _Held | None = None
        self._told: _Held | None = None
        self._unanswered = 0
        self._watching: asyncio.Task[None] | None = None
        self._closed = asyncio.Event()

    def start(self) -> None:
        self._watching = asyncio.create_task(self._watch())

    async def stop(self) -> None:
        self._closed.set()
        if self._watching is not None:
            await asyncio.wait({self._watching})  # not cancelled: a thread may just be reading
            self._watching = None

    async def _watch(self) -> None:
        while not self._closed.is_set():
            try:
                await self.look()
            except SQLAlchemyError as error:
                log.warning("held_models_not_read", error=type(error).__name__)
            with suppress(TimeoutError):
                async with asyncio.timeout(PERIOD_S):
                    await self._closed.wait()

    async def look(self) -> None:
        """Tell the engine what is held, if that has changed, and note how full it is."""
        mark = self._changes.mark()
        if self._held is None or mark is None or mark != self._mark:
            self._held, self._mark = await to_thread.run_sync(self._read), mark
        try:
            if self._held != self._told:
                await self._engine.hold(*self._held)
                self._told = self._held
            self._measures.note_status(await self._engine.status())
            self._unanswered = 0
        except EngineUnavailableError:
            self._told = None  # requests say so themselves
            await self._note_unanswered()
        except HarrierError:
            self._told = None  # it is too busy

    def _read(self) -> _Held:
        return self._models.held(), self._models.pinned()

    async def _note_unanswered(self) -> None:
        """Hang up on an engine that answers nothing any more; one that is only starting is waited for.

        One silent look may be our own fault: a process that was stopped itself finds all its time gone.
        """
        self._unanswered += 1
        if self._engine.has_answered and self._unanswered >= MOST_UNANSWERED:
            if self._unanswered == MOST_UNANSWERED:
                log.warning("engine_does_not_answer")
            await self._engine.hang_up()
