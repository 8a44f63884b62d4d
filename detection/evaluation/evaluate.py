"""Measure a predictor on a split, exactly as it serves: the same decoding, fitting, choosing and clipping."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from detection.data.records import ImageRecord
from detection.detections import Detections
from detection.evaluation.coco import CocoMetrics, measure_detections
from detection.inference.predictor import DetectOptions, Predictor, Prepared
from detection.model_record import ModelRecord

BATCH_SIZE = 8
ReadPicture = Callable[[ImageRecord], bytes]
"""Returns the bytes of a picture's file."""
Found = TypeVar("Found")


def evaluation_options(record: ModelRecord) -> DetectOptions:
    """Return the only differences from serving: which detections of a model an evaluation counts."""
    return DetectOptions(
        score_threshold=record.evaluation_score_threshold, max_detections=record.evaluation_max_detections
    )


def evaluate(
    predictor: Predictor,
    images: Sequence[ImageRecord],
    read: ReadPicture,
    *,
    options: DetectOptions | None = None,
    interrupted: Callable[[], bool] = lambda: False,
) -> CocoMetrics | None:
    """Detect in every picture and compare with its boxes by COCO's rules. Arguments of `detect_in_all`."""
    found = detect_in_all(predictor, images, read, options=options, interrupted=interrupted)
    return None if found is None else measure_detections(images, found, predictor.record.classes)


def detect_in_all(
    predictor: Predictor,
    images: Sequence[ImageRecord],
    read: ReadPicture,
    *,
    options: DetectOptions | None = None,
    interrupted: Callable[[], bool] = lambda: False,
    saw: Callable[[int], None] = lambda num_images: None,
) -> list[Detections] | None:
    """Return what is found in every picture, in its own pixels.

    Args:
        options: None is what the model's record says of an evaluation.
        interrupted: asked before every batch; when true, the evaluation is given up and None returned.
        saw: told after every batch how many pictures are done.

    Raises:
        ImageError: a picture cannot be read; an evaluation never leaves one out.
    """
    chosen = options or evaluation_options(predictor.record)

    def look(batch: Sequence[Prepared]) -> list[Detections]:
        return [prediction.detections for prediction in predictor.detect(batch, chosen)]

    return look_at_all(predictor, images, read, look, interrupted=interrupted, saw=saw)


def look_at_all(
    predictor: Predictor,
    images: Sequence[ImageRecord],
    read: ReadPicture,
    look: Callable[[Sequence[Prepared]], list[Found]],
    *,
    interrupted: Callable[[], bool] = lambda: False,
    saw: Callable[[int], None] = lambda num_images: None,
) -> list[Found] | None:
    """Return what `look` finds in every picture, batch by batch; the other arguments of `detect_in_all`.

    Raises:
        ImageError: a picture cannot be read; an evaluation never leaves one out.
    """
    found: list[Found] = []
    for batch in _prepared_batches(predictor, images, read):
        if interrupted():
            return None
        found += look(batch)
        saw(len(found))
    return found


def _prepared_batches(
    predictor: Predictor, images: Sequence[ImageRecord], read: ReadPicture
) -> Iterator[list[Prepared]]:
    """Yield batches; the next one is decoded while the network works on this one."""

    def prepare(batch: Sequence[ImageRecord]) -> list[Prepared]:
        return [predictor.prepare(read(image)) for image in batch]

    batches = [images[start : start + BATCH_SIZE] for start in range(0, len(images), BATCH_SIZE)]
    if not batches:
        return
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="decode") as pool:
        coming = pool.submit(prepare, batches[0])
        for following in batches[1:]:
            ready, coming = coming.result(), pool.submit(prepare, following)
            yield ready
        yield coming.result()
