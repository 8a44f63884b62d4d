"""The second stage in the engine: crops of the whole picture, classified together, on behalf of one request.

The detector may have seen a picture that was reduced while it was decoded. Crops are cut out of the whole
one, so it is decoded once more, and only when there is a box.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from app.detect.wire import Box, Classification
from app.engine.batcher import Batcher
from app.engine.lanes import Turn
from app.engine.loader import LoadedClassifier
from detection.clock import Stopwatch
from detection.crops import cut
from detection.images import BYTES_PER_PIXEL, Pixels, decode_image
from detection.inference.second_stage import Classification as Seen
from detection.inference.second_stage import CropClassifier
from detection.model_record import ModelRecord
from detection.preprocess import placement_of

Crops = list[Pixels]
"""Of one picture."""


@dataclass(frozen=True, slots=True)
class ReadyClassifier:
    """A classifier with its own line; an item of a batch is all crops of one picture."""

    loaded: LoadedClassifier
    batcher: Batcher[Crops, list[Seen]]

    @property
    def size_bytes(self) -> int:
        return self.loaded.size_bytes

    @property
    def record(self) -> ModelRecord:
        return self.loaded.classifier.record


def line_up(
    loaded: LoadedClassifier, pool: ThreadPoolExecutor, *, streams: int, alone: Callable[[], bool]
) -> ReadyClassifier:
    """Return a classifier that computes on the threads of `pool`, for so many pictures side by side.

    Args:
        alone: whether no other picture needs the cores at this moment.
    """

    async def look(pictures: Sequence[Crops]) -> list[list[Seen]]:
        classifier = loaded.classifier if alone() else loaded.narrow
        loop = asyncio.get_running_loop()
        return [await loop.run_in_executor(pool, classifier.look, crops) for crops in pictures]

    return ReadyClassifier(loaded, Batcher(look, streams=streams))


async def classify_boxes(
    image: bytes,
    boxes: Sequence[Box],
    detector: ModelRecord,
    classifier: ReadyClassifier,
    turn: Turn,
    *,
    max_pixels: int,
) -> tuple[tuple[Box, ...], float]:
    """Return the boxes with what the classifier says of each, and the milliseconds that this took.

    A box of which no pixel is left gets no classification.

    Raises:
        ImageError: the picture cannot be used.
    """
    watch = Stopwatch()  # what is seen lies on the CPU; to wait for an accelerator would stop the event loop
    if not boxes:
        return (), 0.0
    crops = await turn.run(_cut_all, image, boxes, detector, classifier.loaded.classifier, max_pixels)
    seen = iter(await classifier.batcher.submit([crop for crop in crops if crop is not None]))
    classes = classifier.loaded.classifier.record.classes
    classified = tuple(
        box if crop is None else _with(box, next(seen), classes)
        for box, crop in zip(boxes, crops, strict=True)
    )
    return classified, watch.lap_ms()


def _cut_all(
    image: bytes, boxes: Sequence[Box], detector: ModelRecord, classifier: CropClassifier, max_pixels: int
) -> list[Pixels | None]:
    """Return what is looked at for each box, in the size of the network: the picture need not be kept."""
    picture = decode_image(image, max_pixels=max_pixels)
    placement, _ = placement_of(picture.size_wh, detector.input_size_hw, detector.input_convention)
    corners = np.array([(box.x1, box.y1, box.x2, box.y2) for box in boxes], np.float32)
    regions = classifier.regions(corners, placement, picture.size_wh)
    crops = (cut(picture.pixels, region) for region in regions.tolist())
    return [None if crop is None else classifier.fit(crop) for crop in crops]


def _with(box: Box, seen: Seen, classes: Sequence[str]) -> Box:
    classification = Classification(classes[seen.class_id], seen.class_id, seen.score)
    return Box(box.x1, box.y1, box.x2, box.y2, box.class_id, box.label, box.score, classification)


def crop_bytes(classifier: ModelRecord, max_detections: int) -> int:
    """Return about how much memory the crops of a picture take at most."""
    height, width = classifier.input_size_hw
    return BYTES_PER_PIXEL * height * width * max_detections
