"""How often a classifier is right, and which class it takes for which; measured exactly as it serves.

Shape suffix: C = classes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import groupby
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from detection.crops import cut, frame_of, touched_by
from detection.data.records import ImageRecord
from detection.evaluation.evaluate import ReadPicture
from detection.images import MAX_PIXELS, DecodedImage, Pixels, decode_image
from detection.inference.second_stage import MOST_AT_ONCE, CropClassifier

MOST_CLASSES = 500
"""With more, a confusion matrix would be larger than all the rest that is kept about a model."""

MOST_SHOWN = 50
"""Classes whose confusion matrix stands among the metrics, which lists of models show."""

Counts = NDArray[np.int64]
"""[C, C]: a row per class that a crop shows, a column per class that was said."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassAccuracy:
    """How well one class is told; None where nothing can be said."""

    label: str
    crops: int
    recall: float | None
    """Of the crops that show it, how many it was said of."""
    precision: float | None
    """Of the crops that it was said of, how many show it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassificationMetrics:
    """How often a classifier is right; fractions from 0 to 1, None without a crop."""

    score_name: ClassVar[str] = "accuracy"
    headline: ClassVar[tuple[str, ...]] = ("accuracy", "mean_recall")

    accuracy: float | None
    """Of all crops."""
    mean_recall: float | None
    """Over the classes that there are crops of: the accuracy if every class were as frequent."""
    crops: int
    per_class: tuple[ClassAccuracy, ...]
    confusion_matrix: dict[str, Any] | None
    """`labels`, and `counts` with a row per class that a crop shows and a column per class that was said.
    None with more than 50 classes; an evaluation has it."""

    @property
    def score(self) -> float | None:
        return self.accuracy

    def as_json(self) -> dict[str, Any]:
        return {**asdict(self), "per_class": [asdict(each) for each in self.per_class]}


@dataclass(frozen=True, slots=True)
class ClassConfusion:
    """Which class was taken for which, as an evaluation keeps it."""

    classes: tuple[str, ...]
    counts_CC: Counts

    def as_json(self) -> dict[str, Any]:
        """Return the columns of an evaluation; a confusion matrix of detections has thresholds besides."""
        matrix = {
            "iou": None,
            "score_threshold": None,
            "labels": list(self.classes),
            "counts": self.counts_CC.tolist(),
        }
        return {"curves": None, "confusion_matrix": matrix if len(self.classes) <= MOST_CLASSES else None}


def classify_all(
    classifier: CropClassifier,
    crops: Sequence[ImageRecord],
    read: ReadPicture,
    *,
    max_pixels: int = MAX_PIXELS,
    interrupted: Callable[[], bool] = lambda: False,
    saw: Callable[[int], None] = lambda num_crops: None,
) -> list[int] | None:
    """Return the class that is said of every crop.

    Args:
        crops: pictures with one box each; those of one picture follow one another.
        interrupted: asked before every batch; when true, the rest is given up and None returned.
        saw: told after every batch how many crops are done.

    Raises:
        ImageError: a picture cannot be read; an evaluation never leaves one out.
    """
    said: list[int] = []
    for batch in _batches(_cut_all(classifier, crops, read, max_pixels)):
        if interrupted():
            return None
        said += [each.class_id for each in classifier.look(batch)]
        saw(len(said))
    return said


def count_answers(crops: Sequence[ImageRecord], said: Sequence[int], num_classes: int) -> Counts:
    """Return how often each class was said of crops of each class."""
    counts_CC = np.zeros((num_classes, num_classes), np.int64)
    shown = [crop.boxes[0].class_id for crop in crops]
    np.add.at(counts_CC, (np.array(shown, np.int64), np.array(said, np.int64)), 1)
    return counts_CC


def measure_answers(counts_CC: Counts, classes: Sequence[str]) -> ClassificationMetrics:
    """Return what the counts of answers say."""
    right_C = counts_CC.diagonal()
    recalls = [_share(right, total) for right, total in zip(right_C, counts_CC.sum(axis=1), strict=True)]
    precisions = [_share(right, total) for right, total in zip(right_C, counts_CC.sum(axis=0), strict=True)]
    shown = len(classes) <= MOST_SHOWN
    known = [recall for recall in recalls if recall is not None]
    return ClassificationMetrics(
        accuracy=_share(right_C.sum(), counts_CC.sum()),
        mean_recall=sum(known) / len(known) if known else None,
        crops=int(counts_CC.sum()),
        per_class=tuple(
            ClassAccuracy(label=label, crops=int(crops), recall=recall, precision=precision)
            for label, crops, recall, precision in zip(
                classes, counts_CC.sum(axis=1), recalls, precisions, strict=True
            )
        ),
        confusion_matrix={"labels": list(classes), "counts": counts_CC.tolist()} if shown else None,
    )


def _share(part: int, whole: int) -> float | None:
    return int(part) / int(whole) if whole else None


def _cut_all(
    classifier: CropClassifier, crops: Sequence[ImageRecord], read: ReadPicture, max_pixels: int
) -> Iterator[Pixels]:
    """Yield the pixels of every crop; a picture is decoded once for all that follow one another."""
    for _, of_one in groupby(crops, key=lambda crop: crop.id):
        own = list(of_one)
        picture = decode_image(read(own[0]), max_pixels=max_pixels)
        for crop in own:
            yield _cut(classifier, crop, picture)


def _cut(classifier: CropClassifier, crop: ImageRecord, picture: DecodedImage) -> Pixels:
    box = crop.boxes[0]
    box_14 = np.array([[box.x1, box.y1, box.x2, box.y2]], np.float32)
    frame = frame_of(picture.size_wh, classifier.rule)
    region = classifier.regions(box_14, frame, picture.size_wh)[0].tolist()
    pixels = cut(picture.pixels, region)
    if pixels is None:
        pixels = cut(picture.pixels, touched_by(box_14, picture.size_wh)[0].tolist())
    assert pixels is not None
    return pixels


def _batches(crops: Iterator[Pixels]) -> Iterator[list[Pixels]]:
    batch: list[Pixels] = []
    for crop in crops:
        batch.append(crop)
        if len(batch) == MOST_AT_ONCE:
            yield batch
            batch = []
    if batch:
        yield batch
