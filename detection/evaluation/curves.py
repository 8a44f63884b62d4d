"""What a score threshold costs and gains, and what is taken for what: the numbers behind an evaluation.

Shape suffixes: D = detections of a class, most certain first; S = score thresholds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from detection.data.records import ImageRecord
from detection.detections import Detections
from detection.evaluation.coco import (
    IOU_OF_CURVES,
    RECALLS,
    ClassMatches,
    count_confusions,
    ground_truth_of,
    match_detections,
    precision_at_recall,
    rows_of,
)

SCORE_THRESHOLDS = tuple(step / 100 for step in range(1, 100))
MOST_CLASSES = 500
"""With more, details would be larger than all the rest that is kept about a model."""
BACKGROUND = "background"
DECIMALS = 5
"""Digits that are kept: finer than one box of a large split."""

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassCurves:
    """How one class does, or the mean of those that have boxes; empty without any box to be found."""

    label: str | None
    """None for the mean."""
    boxes: int
    precision_at_recall: tuple[float, ...]
    """For each of `Curves.recalls` the best precision with that recall or more, as COCO defines it."""
    precision: tuple[float | None, ...]
    """For each of `Curves.score_thresholds` the share of detections that are right; None without any."""
    recall: tuple[float, ...]
    f1: tuple[float, ...]
    best_f1: float | None
    best_score_threshold: float | None
    """In the middle of the thresholds with the best F1: a good `score_threshold` of a detection. None where
    nothing is right."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Curves:
    """Precision, recall and F1 of every class. A box is found when a detection overlaps it by `iou`."""

    iou: float
    recalls: tuple[float, ...]
    score_thresholds: tuple[float, ...]
    mean: ClassCurves
    per_class: tuple[ClassCurves, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfusionMatrix:
    """Which class was taken for which."""

    iou: float
    score_threshold: float
    labels: tuple[str, ...]
    """The classes, and `background` at the end."""
    counts: tuple[tuple[int, ...], ...]
    """A row per class in the picture, a column per class that was found there. The last row are detections
    where there is nothing, the last column boxes that were missed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluationDetails:
    """What stands behind the numbers of an evaluation."""

    curves: Curves
    confusion_matrix: ConfusionMatrix

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def detail_detections(
    images: Sequence[ImageRecord],
    detections: Sequence[Detections],
    classes: Sequence[str],
    *,
    score_threshold: float,
) -> EvaluationDetails | None:
    """Look closer at what was found in `images`, one entry of `detections` per picture, in its pixels.

    Returns None for more than `MOST_CLASSES` classes.

    Args:
        score_threshold: of the confusion matrix, which counts what a user would see.
    """
    if len(classes) > MOST_CLASSES:
        return None
    truth, rows = ground_truth_of(images, classes), rows_of(detections)
    matching = match_detections(truth, rows)
    per_class = tuple(
        _class_curves(label, matches, at_recall)
        for label, matches, at_recall in zip(
            classes, matching.per_class, precision_at_recall(truth, rows), strict=True
        )
    )
    # The library's confusion matrix would count detections of a crowd as wrong.
    counts = count_confusions(truth, rows[~matching.of_crowd_N], score_threshold=score_threshold)
    return EvaluationDetails(
        curves=Curves(
            iou=IOU_OF_CURVES,
            recalls=RECALLS,
            score_thresholds=SCORE_THRESHOLDS,
            mean=_mean_curves([each for each in per_class if each.boxes]),
            per_class=per_class,
        ),
        confusion_matrix=ConfusionMatrix(
            iou=IOU_OF_CURVES,
            score_threshold=score_threshold,
            labels=(*classes, BACKGROUND),
            counts=tuple(tuple(int(count) for count in row) for row in counts),
        ),
    )


def _class_curves(label: str, matches: ClassMatches, at_recall: Floats | None) -> ClassCurves:
    if at_recall is None or not matches.num_boxes:
        return _without_boxes(label)
    found_S = np.array([np.sum(matches.scores_D >= threshold) for threshold in SCORE_THRESHOLDS])
    right_upto = np.concatenate([[0], np.cumsum(matches.is_right_D)])
    right_S = right_upto[found_S]
    f1_S = 2 * right_S / (found_S + matches.num_boxes)
    return ClassCurves(
        label=label,
        boxes=matches.num_boxes,
        precision_at_recall=_rounded(at_recall),
        precision=tuple(
            round(float(right / found), DECIMALS) if found else None
            for right, found in zip(right_S, found_S, strict=True)
        ),
        recall=_rounded(right_S / matches.num_boxes),
        f1=_rounded(f1_S),
        **_best(f1_S),
    )


def _mean_curves(classes: Sequence[ClassCurves]) -> ClassCurves:
    """Return the mean over classes that have boxes; one that found nothing counts as 0 in F1 and recall."""
    if not classes:
        return _without_boxes(None)
    f1_S = np.mean([each.f1 for each in classes], axis=0)
    precisions = zip(*(each.precision for each in classes), strict=True)
    return ClassCurves(
        label=None,
        boxes=sum(each.boxes for each in classes),
        precision_at_recall=_rounded(np.mean([each.precision_at_recall for each in classes], axis=0)),
        precision=tuple(_mean_of_known(values) for values in precisions),
        recall=_rounded(np.mean([each.recall for each in classes], axis=0)),
        f1=_rounded(f1_S),
        **_best(f1_S),
    )


def _mean_of_known(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return round(sum(known) / len(known), DECIMALS) if known else None


def _best(f1_S: Floats) -> dict[str, float | None]:
    best = float(f1_S.max())
    (with_best,) = np.nonzero(f1_S == best)
    middle = SCORE_THRESHOLDS[int(with_best[len(with_best) // 2])]
    return {"best_f1": round(best, DECIMALS), "best_score_threshold": middle if best else None}


def _without_boxes(label: str | None) -> ClassCurves:
    return ClassCurves(
        label=label,
        boxes=0,
        precision_at_recall=(),
        precision=(),
        recall=(),
        f1=(),
        best_f1=None,
        best_score_threshold=None,
    )


def _rounded(values: Floats) -> tuple[float, ...]:
    return tuple(round(float(value), DECIMALS) for value in values)
