"""Detection for one request: choose the model, ask the engine about every picture, gather the answers."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Coroutine, Sequence
from functools import partial
from typing import Any, TypeVar

import msgspec
from anyio import to_thread
from prometheus_client import CollectorRegistry

from app.api.problems import problem_body
from app.database.changes import Changes
from app.database.session import Sessions
from app.detect.bodies import DetectRequest, Room
from app.detect.digits import PIXEL_DIGITS, SCORE_DIGITS
from app.detect.engine_client import EngineClient
from app.detect.engine_watch import EngineWatch
from app.detect.measures import DetectMeasures
from app.detect.model_choice import ModelChoice, class_ids
from app.detect.stand_ins import StandIns
from app.detect.wire import Box, Classification, Detected
from app.errors import HarrierError, NotFoundError
from app.logs import get_logger
from app.settings import Settings
from detection.inference.passes import PLAIN

log = get_logger(__name__)

Value = TypeVar("Value")
PREPARE_S = 10.0
"""So long an alias waits for its model to be loaded; then it moves all the same."""
MS_DIGITS = 3


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


def answer_body(model_id: str, images: Sequence[Detected | HarrierError], request_id: str) -> bytes:
    """Return the JSON of an answer."""
    seen = [image for image in images if isinstance(image, Detected)]
    return msgspec.json.encode(
        {
            "model": model_id,
            "images": [
                _image(image) if isinstance(image, Detected) else {"error": problem_body(image, request_id)}
                for image in images
            ],
            "timing": _timing(seen),
        }
    )


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


def _image(found: Detected) -> dict[str, Any]:
    image: dict[str, Any] = {
        "width": found.width,
        "height": found.height,
        "detections": [_detection(box) for box in found.boxes],
    }
    if found.annotated is not None:
        image["annotated"] = base64.b64encode(found.annotated).decode()
    return image


def _detection(box: Box) -> dict[str, Any]:
    detection: dict[str, Any] = {
        "label": box.label,
        "class_id": box.class_id,
        "score": round(box.score or 0.0, SCORE_DIGITS),
        "box": {
            "x1": round(box.x1, PIXEL_DIGITS),
            "y1": round(box.y1, PIXEL_DIGITS),
            "x2": round(box.x2, PIXEL_DIGITS),
            "y2": round(box.y2, PIXEL_DIGITS),
        },
    }
    if box.classification is not None:
        detection["classification"] = _classification(box.classification)
    return detection


def _classification(second: Classification) -> dict[str, Any]:
    return {
        "label": second.label,
        "class_id": second.class_id,
        "score": round(second.score, SCORE_DIGITS),
    }


def _timing(seen: Sequence[Detected]) -> dict[str, float]:
    stages = ("decode_ms", "queue_ms", "preprocess_ms", "inference_ms", "postprocess_ms", "classify_ms")
    summed = {
        stage: round(sum(getattr(image.timing, stage) for image in seen), MS_DIGITS) for stage in stages
    }
    most = {
        name: max((getattr(image.timing, name) for image in seen), default=0)
        for name in ("batch_size", "passes")
    }
    return {**summed, **most}
