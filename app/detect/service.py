"""Detection for one request: choose the model, ask the engine about every picture, gather the answers."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Coroutine, Sequence
from typing import Any, TypeVar

import msgspec
from anyio import to_thread
from fastapi import Request
from prometheus_client import CollectorRegistry

from app.api.problems import problem_body
from app.database.session import Sessions
from app.detect.bodies import DetectRequest, Room
from app.detect.engine_client import EngineClient
from app.detect.measures import DetectMeasures
from app.detect.model_choice import ModelChoice, class_ids
from app.detect.wire import Box, Classification, Detected, ServedModel
from app.errors import HarrierError
from app.settings import Settings
from detection.inference.passes import PLAIN

Value = TypeVar("Value")
PIXEL_DIGITS, SCORE_DIGITS, MS_DIGITS = 2, 4, 3


class ClientGoneError(Exception):
    """Nobody waits for the answer any more."""


class Detection:
    """What `/detect` does, apart from HTTP."""

    def __init__(
        self, settings: Settings, engine: EngineClient, reading: Sessions, registry: CollectorRegistry
    ) -> None:
        self._engine = engine
        self._models = ModelChoice(reading)
        self._measures = DetectMeasures(registry)
        self.room = Room(
            max_requests=settings.engine_queue_images,
            max_bytes=settings.engine_queue_bytes,
            note=self._measures.note_held,
        )

    async def model(self, wanted: str) -> ServedModel:
        """Return the detector with this id or alias.

        Raises:
            HarrierError: there is none, or it is a classifier.
        """
        return await to_thread.run_sync(self._models.choose, wanted)

    async def detect(
        self, sent: DetectRequest, *, annotate: bool
    ) -> tuple[str, list[Detected | HarrierError]]:
        """Return the id of the model that looked, and per picture what it saw or why it could not.

        Raises:
            HarrierError: the whole request fails: no such model or class, or the engine is not available.
        """
        parameters = sent.parameters
        model = await to_thread.run_sync(self._models.choose, parameters.model)
        classifier = await to_thread.run_sync(self._models.choose_classifier, parameters.classifier)
        wanted = class_ids(model, parameters.classes, sent.classes_in)
        passes = (PLAIN,) if parameters.tta is None else parameters.tta.passes

        async def look(image: bytes | HarrierError) -> Detected | HarrierError:
            if isinstance(image, HarrierError):
                self._measures.note_refused(image.code)
                return image
            try:
                found = await self._engine.detect(
                    image,
                    model,
                    score_threshold=parameters.score_threshold,
                    nms_iou=parameters.nms_iou,
                    max_detections=parameters.max_detections,
                    class_ids=wanted,
                    annotate=annotate,
                    passes=passes,
                    classifier=classifier,
                )
            except HarrierError as error:
                self._measures.note_refused(error.code)
                if error.status >= 500:
                    raise
                return error
            self._measures.note_detected(found)
            return found

        return model.id, await _all_or_first_error([look(image) for image in sent.images])


async def while_connected(request: Request, work: Coroutine[Any, Any, Value]) -> Value:
    """Return what `work` returns, or end it as soon as the client leaves; its body must have been read.

    Raises:
        ClientGoneError: it left before the answer.
    """
    working, leaving = asyncio.create_task(work), asyncio.create_task(_client_leaves(request))
    try:
        await asyncio.wait({working, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise ClientGoneError
        return working.result()
    finally:
        working.cancel()
        leaving.cancel()
        await asyncio.wait({working, leaving})


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
    failed: list[BaseException] = []
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(each) for each in work]
    except* HarrierError as errors:
        failed.extend(errors.exceptions)  # Python before 3.11.4 would wrap an error that is raised in here
    if failed:
        raise failed[0]
    return [task.result() for task in tasks]


async def _client_leaves(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        continue


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
