"""Detection for one request: choose the model, ask the engine about every picture, gather the answers."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Sequence
from functools import partial
from typing import Any, TypeVar

from anyio import to_thread
from prometheus_client import CollectorRegistry

from app.database.changes import Changes
from app.database.session import Sessions
from app.detect.bodies import DetectRequest, Room
from app.detect.engine_client import EngineClient
from app.detect.engine_watch import EngineWatch
from app.detect.measures import DetectMeasures
from app.detect.model_choice import ModelChoice, class_ids
from app.detect.stand_ins import StandIns
from app.detect.wire import Detected
from app.errors import HarrierError, NotFoundError
from app.logs import get_logger
from app.settings import Settings
from detection.inference.passes import PLAIN

log = get_logger(__name__)

Value = TypeVar("Value")
PREPARE_S = 10.0
"""So long an alias waits for its model to be loaded; then it moves all the same."""


class Detection:
    """What `/detect` does, apart from HTTP."""

    def __init__(
        self,
        settings: Settings,
        engine: EngineClient,
        reading: Sessions,
        changes: Changes,
        registry: CollectorRegistry,
    ) -> None:
        self._engine = engine
        self.models = ModelChoice(reading, changes)
        self.measures = DetectMeasures(registry)
        self._stand_ins = StandIns()
        self.watch = EngineWatch(engine, self.models, changes, self.measures)
        self.room = Room(
            max_requests=settings.engine_queue_images,
            max_bytes=settings.engine_queue_bytes,
        )
        self.measures.watch_held(lambda: self.room.held_bytes)

    async def detect(
        self, sent: DetectRequest, *, annotate: bool
    ) -> tuple[str, list[Detected | HarrierError]]:
        """Return the id of the model that looked, and per picture what it saw or why it could not.

        Raises:
            HarrierError: the whole request fails: no such model or class, or the engine is not available.
        """
        parameters = sent.parameters
        model = await self.models.choose(parameters.model)
        classifier = await self.models.choose_classifier(parameters.classifier)
        instead = self._stand_ins.find(parameters.model, model, names_classes=bool(parameters.classes))
        ask = partial(
            self._look,
            model=model,
            score_threshold=parameters.score_threshold,
            nms_iou=parameters.nms_iou,
            max_detections=parameters.max_detections,
            class_ids=class_ids(model, parameters.classes, sent.classes_in),
            annotate=annotate,
            passes=(PLAIN,) if parameters.tta is None else parameters.tta.passes,
            classifier=classifier,
        )
        images = await _all_or_first_error([ask(image, instead=instead) for image in sent.images])
        looked = {image.model_id for image in images if isinstance(image, Detected)}
        if len(looked) > 1:  # the model came into memory while the pictures were under way
            images = await _all_or_first_error([ask(image) for image in sent.images])
            looked = {model.id}
        if model.id in looked:
            self._stand_ins.note(parameters.model, model)
        self.measures.note_answered(images)
        return next(iter(looked), model.id), images

    async def prepare(self, model_id: str) -> None:
        """Have the engine load a model before requests ask for it; one that it cannot load is in the log."""
        try:
            model = await to_thread.run_sync(self.models.describe, model_id)
            await self._engine.prepare(model, PREPARE_S)
        except NotFoundError:
            return
        except HarrierError as error:
            log.warning("model_not_prepared", model_id=model_id, code=error.code, detail=error.detail)

    async def _look(self, image: bytes | HarrierError, **asked: Any) -> Detected | HarrierError:
        """Return what is seen in a picture, or why it cannot be used; raise what is no fault of it."""
        if isinstance(image, HarrierError):
            return image
        try:
            return await self._engine.detect(image, **asked)
        except HarrierError as error:
            if error.status >= 500:
                self.measures.note_refused(error.code)
                raise
            return error


async def _all_or_first_error(work: Sequence[Coroutine[Any, Any, Value]]) -> list[Value]:
    """Return all results in order; the first error ends the rest."""
    if len(work) == 1:
        return [await work[0]]
    failed: list[BaseException] = []
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(each) for each in work]
    except* HarrierError as errors:
        failed.extend(errors.exceptions)  # Python before 3.11.4 would wrap an error that is raised in here
    if failed:
        raise failed[0]
    return [task.result() for task in tasks]
