"""The way of one picture through the engine: admitted, prepared, batched, finished; or drawn and shrunk."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

import cv2
import msgspec
import torch

from app.detect.wire import (
    AskStatus,
    Box,
    Detect,
    Detected,
    EngineStatus,
    Prepare,
    Prepared,
    Refusal,
    Render,
    Rendered,
    ServedModel,
    Timing,
)
from app.engine.admission import Admission
from app.engine.batcher import Batcher
from app.engine.device import choose_device, num_cores
from app.engine.drawing import draw_picture, drawing_bytes
from app.engine.lanes import Lane, Turn
from app.engine.loader import LoadedClassifier, LoadedModel, Loader, ModelCache
from app.engine.refusal import RefusedError
from app.engine.second_stage import ReadyClassifier, classify_boxes, crop_bytes, line_up
from app.settings import MIB, Settings
from app.storage import Storage
from detection.clock import Stopwatch
from detection.images import ImageHeader, check_header, decoding_bytes
from detection.inference.passes import PLAIN, TtaPass
from detection.inference.predictor import (
    DetectOptions,
    Inferred,
    Prediction,
    Predictor,
    with_view,
)
from detection.inference.predictor import Prepared as PreparedPicture
from detection.inference.tta import view_bytes, view_size_hw

ORDINARY_BYTES = 96 * MIB
ORDINARY_PIXELS = 32_000_000
"""Beyond one of these a picture is large. Decoding an ordinary one takes at most a few tenths of a second."""
LARGE_NICENESS = 5
"""A core goes to an ordinary picture first."""
ANY_SIZE = "eager"
"""The backend for views of another size than the model's own: an exported graph takes that one only."""

Value = TypeVar("Value")


@dataclass(frozen=True, slots=True)
class _ReadyModel:
    """A model in one backend, and who waits for it."""

    loaded: LoadedModel
    batcher: Batcher[PreparedPicture, Inferred]

    @property
    def size_bytes(self) -> int:
        return self.loaded.size_bytes


class Pipeline:
    """Everything that the engine does with pictures.

    On a CPU one pool of as many threads as cores does all the work, so that busy streams do not push each
    other off the cores; an accelerator has a thread of its own that feeds it. Large pictures are decoded in a
    lane beside it, on fewer threads, and only as many at a time as fit into their share of the memory.
    """

    def __init__(self, settings: Settings, storage: Storage) -> None:
        self._settings = settings
        self._device = choose_device(settings)
        self.admission = Admission(
            max_images=settings.engine_queue_images, max_bytes=settings.engine_queue_bytes
        )
        self._loader = Loader(
            storage, self._device, scratch=settings.scratch / "engine", max_pixels=settings.max_image_pixels
        )
        self._models = ModelCache(self._load, max_bytes=settings.engine_model_bytes)
        cores = num_cores()
        # A prepared picture is megabytes of floats: only as many exist as keep every stream busy.
        slots = max(2 * cores, 2 * self._device.streams * self._device.batch_size)
        self._ordinary = Lane("pictures", threads=cores, max_pictures=slots, max_bytes=slots * ORDINARY_BYTES)
        large_threads = max(cores - 1, 1)
        self._large = Lane(
            "large",
            threads=large_threads,
            max_pictures=large_threads,
            max_bytes=settings.engine_decode_bytes,
            niceness=LARGE_NICENESS,
        )
        on_cpu = self._device.torch_device.type == "cpu"
        self._device_pool = self._ordinary.pool if on_cpu else ThreadPoolExecutor(1, "device")
        self._busy = 0
        cv2.setNumThreads(1)
        if self._device.streams > 1:
            torch.set_num_threads(1)

    @property
    def facts(self) -> dict[str, str | int]:
        """What the log says about the engine."""
        return {
            "device": self._device.name,
            "backend": self._device.backend,
            "streams": self._device.streams,
            "batch_size": self._device.batch_size,
        }

    async def detect(self, request: Detect) -> Detected:
        """Find objects in one picture.

        Raises:
            RefusedError: no room, or no model.
            ImageError: the picture cannot be used.
        """
        watch = Stopwatch()
        request = self._with_ready_model(request)
        with self.admission.admit(len(request.image)):
            models = await self._ready(request)
            classifier = await self._classifier(request.classifier)
            header = await self._header(request.image)
            size_bytes = decoding_bytes(header, input_size_hw=request.model.record.input_size_hw)
            if len(request.passes) > 1:
                size_bytes += view_bytes(request.passes, request.model.record)
            if request.annotate:
                size_bytes = max(size_bytes, drawing_bytes(header))
            if request.classifier is not None:
                crops = crop_bytes(request.classifier, request.max_detections)
                size_bytes = max(size_bytes, decoding_bytes(header) + crops)
            async with self._lane(header, size_bytes).turn(size_bytes) as turn:
                prediction = await self._predict(request, models, turn)
                spent_ms = watch.lap_ms()
                boxes = _boxes(prediction, request.model.record.classes)
                classify_ms = 0.0
                if classifier is not None:
                    boxes, classify_ms = await self._classify(request, boxes, classifier, turn)
                annotated = await self._annotate(request, boxes, turn) if request.annotate else None
        return Detected(
            id=request.id,
            width=prediction.width,
            height=prediction.height,
            boxes=boxes,
            timing=_timing(prediction, spent_ms, classify_ms),
            queue_images=self.admission.images,
            model_id=request.model.id,
            annotated=annotated,
        )

    async def render(self, request: Render) -> Rendered:
        """Draw boxes into a picture and shrink it.

        Raises:
            RefusedError: no room.
            ImageError: the picture cannot be used.
        """
        with self.admission.admit(len(request.image)):
            header = await self._header(request.image)
            size_bytes = drawing_bytes(header, max_side=request.max_side)
            async with self._lane(header, size_bytes).turn(size_bytes) as turn:
                jpeg = await turn.run(
                    draw_picture,
                    request.image,
                    request.boxes,
                    max_side=request.max_side,
                    max_pixels=self._settings.max_image_pixels,
                )
        return Rendered(request.id, jpeg)

    def hold(self, models: Sequence[ServedModel]) -> None:
        """Keep these models in memory whatever happens, and no others; load those that are not there yet."""
        self._models.hold([(model, self._device.backend) for model in models])

    async def prepare(self, request: Prepare) -> Prepared:
        """Load a model.

        Raises:
            RefusedError: it cannot be loaded.
        """
        await self._models.get(request.model, self._device.backend)
        return Prepared(request.id)

    async def status(self, request: AskStatus) -> EngineStatus:
        return EngineStatus(
            id=request.id,
            pid=os.getpid(),
            device=self._device.name,
            backend=self._device.backend,
            models=self._models.ids,
            model_bytes=self._models.size_bytes,
            queue_images=self.admission.images,
            queue_bytes=self.admission.bytes,
        )

    def _with_ready_model(self, request: Detect) -> Detect:
        """Return the request for the model that looks now: the one instead while the wanted one is loaded."""
        own = self._device.backend
        if request.instead is None or self._models.has(request.model, own):
            return request
        if not self._models.has(request.instead, own):
            return request
        self._models.load_beside(request.model, own)
        return msgspec.structs.replace(request, model=request.instead)

    async def _header(self, image: bytes) -> ImageHeader:
        return await self._ordinary.run(check_header, image, max_pixels=self._settings.max_image_pixels)

    def _lane(self, header: ImageHeader, size_bytes: int) -> Lane:
        large = header.width * header.height > ORDINARY_PIXELS or size_bytes > ORDINARY_BYTES
        return self._large if large else self._ordinary

    async def _ready(self, request: Detect) -> list[_ReadyModel]:
        """Return the model for each pass: in the device's own backend where the view has the model's size."""
        record, own = request.model.record, self._device.backend
        backends = [
            own if view_size_hw(look, record) == record.input_size_hw else ANY_SIZE for look in request.passes
        ]
        ready = {backend: await self._detector(request.model, backend) for backend in dict.fromkeys(backends)}
        return [ready[backend] for backend in backends]

    async def _predict(self, request: Detect, models: Sequence[_ReadyModel], turn: Turn) -> Prediction:
        predictor = models[0].loaded.predictor
        self._busy += len(models)
        try:
            prepared = await turn.run(predictor.prepare, request.image)
            looks = [
                self._look(prepared, look, model, turn)
                for look, model in zip(request.passes, models, strict=True)
            ]
            seen = [await looks[0]] if len(looks) == 1 else await _all_or_first_error(looks)
            for look, (view, _) in zip(request.passes, seen, strict=True):
                prepared = with_view(prepared, view, look)
            inferred = [each for _, each in seen]
            return await turn.run(_finish, predictor, prepared, inferred, _options(request))
        finally:
            self._busy -= len(models)

    async def _look(
        self, prepared: PreparedPicture, look: TtaPass, model: _ReadyModel, turn: Turn
    ) -> tuple[PreparedPicture, Inferred]:
        view = prepared if look == PLAIN else await turn.run(model.loaded.predictor.view, prepared, look)
        return view, await model.batcher.submit(view)

    async def _classify(
        self, request: Detect, boxes: Sequence[Box], classifier: ReadyClassifier, turn: Turn
    ) -> tuple[tuple[Box, ...], float]:
        self._busy += 1
        try:
            return await classify_boxes(
                request.image,
                boxes,
                request.model.record,
                classifier,
                turn,
                max_pixels=self._settings.max_image_pixels,
            )
        finally:
            self._busy -= 1

    async def _detector(self, wanted: ServedModel, backend: str) -> _ReadyModel:
        model = await self._models.get(wanted, backend)
        if not isinstance(model, _ReadyModel):
            raise RefusedError(Refusal.MODEL_UNAVAILABLE, f"the model {wanted.id} is no detector")
        return model

    async def _classifier(self, wanted: ServedModel | None) -> ReadyClassifier | None:
        model = None if wanted is None else await self._models.get(wanted, self._device.backend)
        if wanted is not None and not isinstance(model, ReadyClassifier):
            raise RefusedError(Refusal.MODEL_UNAVAILABLE, f"the model {wanted.id} is no classifier")
        return model if isinstance(model, ReadyClassifier) else None

    async def _annotate(self, request: Detect, boxes: Sequence[Box], turn: Turn) -> bytes:
        max_pixels = self._settings.max_image_pixels
        return await turn.run(draw_picture, request.image, boxes, max_pixels=max_pixels)

    async def _load(self, model: ServedModel, backend: str) -> _ReadyModel | ReadyClassifier:
        loaded = await asyncio.to_thread(self._loader.load, model, backend)
        if isinstance(loaded, LoadedClassifier):
            return line_up(
                loaded, self._device_pool, streams=self._device.streams, alone=lambda: self._busy <= 1
            )
        return self._lined_up(loaded)

    def _lined_up(self, loaded: LoadedModel) -> _ReadyModel:

        async def infer(batch: Sequence[PreparedPicture]) -> list[Inferred]:
            predictor = loaded.narrow if self._busy > 1 else loaded.predictor
            loop = asyncio.get_running_loop()
            return await loop.run_in_executor(self._device_pool, predictor.infer, batch)

        batcher = Batcher(
            infer,
            max_batch_size=self._device.batch_size,
            streams=self._device.streams,
            max_delay_s=self._settings.engine_batch_delay_ms / 1000,
        )
        return _ReadyModel(loaded, batcher)


def _options(request: Detect) -> DetectOptions:
    return DetectOptions(
        score_threshold=request.score_threshold,
        nms_iou=request.nms_iou,
        max_detections=request.max_detections,
        class_ids=request.class_ids,
        passes=request.passes,
    )


async def _all_or_first_error(work: Sequence[Coroutine[Any, Any, Value]]) -> list[Value]:
    """Return what all return when all have ended, so that nothing works on for a picture that is given up."""
    ended = await asyncio.gather(*work, return_exceptions=True)
    for each in ended:
        if isinstance(each, BaseException):
            raise each
    return [each for each in ended if not isinstance(each, BaseException)]


def _finish(
    predictor: Predictor, prepared: PreparedPicture, inferred: Sequence[Inferred], options: DetectOptions
) -> Prediction:
    return predictor.finish(prepared, predictor.merge(options.passes, inferred), options)


def _boxes(prediction: Prediction, classes: Sequence[str]) -> tuple[Box, ...]:
    found = prediction.detections
    rows = zip(found.boxes_N4.tolist(), found.scores_N.tolist(), found.labels_N.tolist(), strict=True)
    return tuple(
        Box(x1, y1, x2, y2, class_id, classes[class_id], score) for (x1, y1, x2, y2), score, class_id in rows
    )


def _timing(prediction: Prediction, total_ms: float, classify_ms: float) -> Timing:
    """Waiting is what no stage accounts for: for a slot, for the model to load, for a thread, for a batch."""
    timing = prediction.timing
    worked_ms = timing.decode_ms + timing.preprocess_ms + timing.inference_ms + timing.postprocess_ms
    return Timing(
        decode_ms=timing.decode_ms,
        queue_ms=max(total_ms - worked_ms, 0.0),
        preprocess_ms=timing.preprocess_ms,
        inference_ms=timing.inference_ms,
        postprocess_ms=timing.postprocess_ms,
        batch_size=timing.batch_size,
        passes=timing.passes,
        classify_ms=classify_ms,
    )
