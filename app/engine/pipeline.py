"""Everything that the engine does with pictures: admits them, looks at them, draws on them."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Sequence
from functools import partial

import cv2
import torch
from msgspec.structs import replace

from app.detect.wire import (
    AskStatus,
    Box,
    Detect,
    Detected,
    EngineStatus,
    Prepare,
    Prepared,
    Render,
    Rendered,
    ServedModel,
)
from app.engine.acceptances import Acceptances
from app.engine.admission import Admission, Place
from app.engine.answers import boxes_of, timing_of
from app.engine.device import choose_device, num_callers, num_cores
from app.engine.drawing import draw_picture, drawing_bytes
from app.engine.lanes import Lane
from app.engine.loader import Loader
from app.engine.second_stage import ReadyClassifier, classify_boxes, crop_bytes
from app.engine.staged import Staged
from app.engine.stock import ReadyModel, open_stock
from app.engine.straight import Straight
from app.engine.threads import Threads
from app.engine.two_lanes import TwoLanes
from app.settings import Settings
from app.storage import Storage
from detection.clock import Stopwatch
from detection.images import ImageHeader, check_header, decoding_bytes
from detection.inference.predictor import DetectOptions, Prediction
from detection.inference.tta import view_bytes
from detection.model_record import ModelRecord


class Pipeline:
    """The way of each picture.

    On a CPU one pool of hardly more threads than cores does all the work, so that busy streams do not push
    each other off the cores; an accelerator has a thread of its own that feeds it. Large pictures are decoded
    in a lane beside it, on fewer threads, and only as many at a time as fit into their share of the memory.
    """

    def __init__(self, settings: Settings, storage: Storage) -> None:
        self._max_pixels = settings.max_image_pixels
        self._device = device = choose_device(settings)
        at_once = device.shape.streams * device.shape.batch_size
        self.admission = Admission(
            max_images=settings.engine_queue_images,
            max_bytes=settings.engine_queue_bytes,
            most_under_overload=num_callers() if device.on_cpu else at_once + max(at_once // 2, 1),
        )
        # A prepared picture is megabytes of floats: only as many exist as keep every stream busy.
        self._lanes = TwoLanes(
            slots=max(2 * num_cores(), 2 * at_once), large_bytes=settings.engine_decode_bytes
        )
        self._straight = Straight(self._lanes.ordinary, max_pixels=self._max_pixels)
        self._staged = Staged()
        device_pool = self._lanes.ordinary.pool if device.on_cpu else Threads(1, "device")
        self._stock = open_stock(
            Loader(
                storage,
                device,
                scratch=settings.scratch / "engine",
                max_pixels=self._max_pixels,
                cache=settings.cache / "engines",
            ),
            device,
            device_pool,
            alone=lambda: self.admission.images + self._staged.extra_looks <= 1,
            is_idle=lambda: not self.admission.images,
            known=Acceptances(settings.cache / "accepted.json", hardware=device.hardware),
            max_delay_s=settings.engine_batch_delay_ms / 1000,
        )
        self.pools = {self._lanes.ordinary.pool, self._lanes.large.pool, device_pool, self._stock.loading}
        """Where pictures are computed, and models loaded."""
        cv2.setNumThreads(1)
        if device.on_cpu:  # of what is done around the models; those have threads of their own
            torch.set_num_threads(1)

    @property
    def facts(self) -> dict[str, str | int]:
        """What the log says about the engine."""
        shape = self._device.shape
        return {
            "device": self._device.name,
            "backend": shape.executor,
            "streams": shape.streams,
            "batch_size": shape.batch_size,
        }

    async def detect(
        self, request: Detect, *, tell: Callable[[Detected], object] = lambda _: None
    ) -> Detected:
        """Find objects in one picture.

        Args:
            tell: may be called with the answer from the thread that has it, before it is returned.

        Raises:
            RefusedError: no room, or no model.
            ImageError: the picture cannot be used.
        """
        watch = Stopwatch()
        admitted = self.admission.admit(
            len(request.image), _end_of_this_task(), turned_away=request.turned_away
        )
        with admitted as place:
            looking = self._stock.stand_in(request)
            models = await self._stock.for_passes(request, looking)
            classifier = await self._stock.classifier(request.classifier)
            answer = partial(self._answer, request.id, looking, watch)
            if classifier is None and not request.annotate:

                def answered(detected: Detected) -> None:
                    self.admission.note_answered(place)
                    tell(detected)

                detected = await self._predict(request, models, place, answer=answer, tell=answered)
            else:
                detected = await self._predict(request, models, place, answer=answer, tell=_nobody)
                detected = await self._add(request, looking.record, detected, classifier)
        self._stock.probation.saw(looking, request.image)
        return detected

    async def render(self, request: Render) -> Rendered:
        """Draw boxes into a picture and shrink it.

        Raises:
            RefusedError: no room.
            ImageError: the picture cannot be used.
        """
        with self.admission.admit(len(request.image), _end_of_this_task()) as place:
            jpeg = await self._draw(request.image, request.boxes, max_side=request.max_side, place=place)
        return Rendered(request.id, jpeg)

    def hold(self, models: Sequence[ServedModel], expected: Sequence[ServedModel] = ()) -> None:
        """Keep these models in memory whatever happens, and no others; load those that are not there yet.

        What is only expected is loaded as well while there is room.
        """
        self._stock.hold(models, expected)

    async def prepare(self, request: Prepare) -> Prepared:
        """Load a model.

        Raises:
            RefusedError: it cannot be loaded.
        """
        await self._stock.prepare(request.model)
        return Prepared(request.id)

    async def status(self, request: AskStatus) -> EngineStatus:
        return EngineStatus(
            id=request.id,
            pid=os.getpid(),
            device=self._device.name,
            backend=self._device.shape.executor,
            models=self._stock.models.ids,
            model_bytes=self._stock.models.size_bytes,
            queue_images=self.admission.images,
            queue_bytes=self.admission.bytes,
            served=self._stock.served(),
        )

    def _answer(self, number: int, model: ServedModel, watch: Stopwatch, prediction: Prediction) -> Detected:
        return Detected(
            id=number,
            width=prediction.width,
            height=prediction.height,
            boxes=boxes_of(prediction, model.record.classes),
            timing=timing_of(prediction, watch.lap_ms()),
            queue_images=self.admission.images - 1,
            model_id=model.id,
        )

    async def _add(
        self, request: Detect, detector: ModelRecord, detected: Detected, classifier: ReadyClassifier | None
    ) -> Detected:
        """Return an answer with what a classifier says, or with the picture, as the request wants it."""
        if classifier is not None:
            boxes, classify_ms = await self._classify(request, detector, detected.boxes, classifier)
            timing = replace(detected.timing, classify_ms=classify_ms)
            detected = replace(detected, boxes=boxes, timing=timing)
        if request.annotate:
            detected = replace(detected, annotated=await self._draw(request.image, detected.boxes))
        return detected

    async def _predict(
        self,
        request: Detect,
        models: Sequence[ReadyModel],
        place: Place,
        *,
        answer: Callable[[Prediction], Detected],
        tell: Callable[[Detected], object],
    ) -> Detected:
        options, model = _options(request), models[0]
        if self._straight.fits(model, options):
            seen = await self._straight.look(request.image, model, options, place, answer=answer, tell=tell)
            if isinstance(seen, Detected):
                return seen
            header = seen
        else:
            header = await self._header(request.image)
        size_bytes = decoding_bytes(header, input_size_hw=model.record.input_size_hw)
        if len(request.passes) > 1:
            size_bytes += view_bytes(request.passes, model.record)
        async with self._lane(header, size_bytes, place).turn(size_bytes) as turn:
            return answer(await self._staged.look(request.image, header, models, options, turn, place))

    def _lane(self, header: ImageHeader, size_bytes: int, place: Place | None) -> Lane:
        """Return the lane of a picture; a large one lets the others pass.

        Raises:
            RefusedError: more comes than can be served, and there are enough large ones already.
        """
        lane = self._lanes.of(header, size_bytes)
        if place is not None and lane is self._lanes.large:
            self.admission.step_aside(place)
        return lane

    async def _header(self, image: bytes) -> ImageHeader:
        return await self._lanes.ordinary.run(check_header, image, max_pixels=self._max_pixels)

    async def _classify(
        self, request: Detect, detector: ModelRecord, boxes: Sequence[Box], classifier: ReadyClassifier
    ) -> tuple[tuple[Box, ...], float]:
        header = await self._header(request.image)
        size_bytes = decoding_bytes(header) + crop_bytes(classifier.record, request.max_detections)
        async with self._lanes.of(header, size_bytes).turn(size_bytes) as turn:
            return await classify_boxes(
                request.image, boxes, detector, classifier, turn, max_pixels=self._max_pixels
            )

    async def _draw(
        self,
        image: bytes,
        boxes: Sequence[Box],
        *,
        max_side: int | None = None,
        place: Place | None = None,
    ) -> bytes:
        header = await self._header(image)
        size_bytes = drawing_bytes(header, max_side=max_side)
        async with self._lane(header, size_bytes, place).turn(size_bytes) as turn:
            if place is not None:
                place.begin()
            return await turn.run(draw_picture, image, boxes, max_side=max_side, max_pixels=self._max_pixels)


def _nobody(_: Detected) -> None:
    """Be told of an answer that is not complete yet."""


def _end_of_this_task() -> Callable[[], object]:
    task = asyncio.current_task()
    assert task is not None, "every request has a task of its own"
    return task.cancel


def _options(request: Detect) -> DetectOptions:
    return DetectOptions(
        score_threshold=request.score_threshold,
        nms_iou=request.nms_iou,
        max_detections=request.max_detections,
        class_ids=request.class_ids,
        passes=request.passes,
    )
