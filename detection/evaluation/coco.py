"""Average precision by the rules of COCO: the only module that talks to the library that computes it.

Lin et al., "Microsoft COCO: Common Objects in Context", https://arxiv.org/abs/1405.0312

Shape suffixes of the library's arrays: T = IoU thresholds 0.50 to 0.95, R = recall points 0 to 1,
K = classes, A = area ranges (all, small, medium, large), M = most detections per picture and class.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

import hotcoco
import numpy as np
from numpy.typing import NDArray

from detection.data.records import BoxRecord, ImageRecord
from detection.detections import Detections

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
EVERY_AREA = 1e10

RECALLS = tuple(step / 100 for step in range(101))
"""Where the precision of a class is read off."""
AREAS = {"all": 0, "small": 1, "medium": 2, "large": 3}
"""Below 32², below 96², and above, in pixels of the picture."""
MOST_DETECTIONS = {1: 0, 10: 1, 100: 2}
IOU_50, IOU_75 = 0, 5
"""Rows of the IoU thresholds."""
IOU_OF_CURVES = 0.5
MOST_MATCHED = 1000
"""Detections per picture and class that are matched for curves; AP looks at 100, as COCO defines it."""
PICTURES_AT_ONCE = 500
"""The library lists its matches as Python objects; so many pictures at once keep them small."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassMetrics:
    """How well one class is found; None where the split has no box of it."""

    label: str
    ap: float | None
    ap50: float | None
    ar: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class CocoMetrics:
    """Average precision and recall as fractions, 0 to 1; None where there is no box to be found."""

    score_name: ClassVar[str] = "AP"
    headline: ClassVar[tuple[str, ...]] = ("ap", "ap50", "ap75", "ap_small", "ap_medium", "ap_large")

    ap: float | None
    """Mean over the IoU thresholds 0.50 to 0.95 and over the classes."""
    ap50: float | None
    ap75: float | None
    ap_small: float | None
    ap_medium: float | None
    ap_large: float | None
    ar_1: float | None
    """Recall when one box per class and picture may be named; then 10, then 100."""
    ar_10: float | None
    ar_100: float | None
    ar_small: float | None
    ar_medium: float | None
    ar_large: float | None
    images: int
    boxes: int
    """Boxes to be found; crowds are not counted."""
    per_class: tuple[ClassMetrics, ...]

    @property
    def score(self) -> float | None:
        return self.ap

    def as_json(self) -> dict[str, Any]:
        return {**asdict(self), "per_class": [asdict(each) for each in self.per_class]}


@dataclass(frozen=True, slots=True)
class ClassMatches:
    """The detections of one class, most certain first, and whether each of them found a box."""

    scores_D: Floats
    is_right_D: Bools
    num_boxes: int
    """Boxes to be found; crowds, and detections of crowds, are in none of the three."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Matching:
    """Which detections are right."""

    per_class: tuple[ClassMatches, ...]
    of_crowd_N: Bools
    """Detections of a crowd, which are neither right nor wrong, in the order given."""


def measure_detections(
    images: Sequence[ImageRecord], detections: Sequence[Detections], classes: Sequence[str]
) -> CocoMetrics:
    """Measure what was found in `images`, one entry of `detections` per picture, in pixels of the picture.

    Crowd boxes are ignored: finding one is neither right nor wrong. The area of a box decides whether it is
    small, medium or large.
    """
    return measure(ground_truth_of(images, classes), rows_of(detections))


def rows_of(detections: Sequence[Detections]) -> Floats:
    """Return [N, 7]: picture number from 1, x, y, width, height, score, class number from 1."""
    rows = [_rows(index, found) for index, found in enumerate(detections, start=1)]
    return np.concatenate(rows) if rows else np.zeros((0, 7))


def ground_truth_of(images: Sequence[ImageRecord], classes: Sequence[str]) -> dict[str, Any]:
    """Return the pictures and boxes as COCO JSON; pictures, boxes and classes are numbered from 1."""
    boxes = [(index, box) for index, image in enumerate(images, start=1) for box in image.boxes]
    return {
        "images": [
            {"id": index, "width": image.width, "height": image.height}
            for index, image in enumerate(images, start=1)
        ],
        "categories": [{"id": index, "name": name} for index, name in enumerate(classes, start=1)],
        "annotations": [
            _annotation(number, index, box) for number, (index, box) in enumerate(boxes, start=1)
        ],
    }


def measure(ground_truth: Mapping[str, Any], detections: Floats) -> CocoMetrics:
    """Measure detections against ground truth in COCO's own terms.

    Args:
        ground_truth: COCO JSON: `images`, `annotations` (with `area` and `iscrowd`) and `categories`.
        detections: [N, 7]: picture id, x, y, width, height, score, category id.
    """
    precision_TRKAM, recall_TKAM = _accumulate(ground_truth, detections)

    def ap(area: str = "all", iou: int | slice = slice(None), k: int | slice = slice(None)) -> float | None:
        return _mean(precision_TRKAM[iou, :, k, AREAS[area], MOST_DETECTIONS[100]])

    def ar(area: str = "all", most: int = 100, k: int | slice = slice(None)) -> float | None:
        return _mean(recall_TKAM[:, k, AREAS[area], MOST_DETECTIONS[most]])

    labels = [each["name"] for each in sorted(ground_truth["categories"], key=lambda each: each["id"])]
    return CocoMetrics(
        ap=ap(),
        ap50=ap(iou=IOU_50),
        ap75=ap(iou=IOU_75),
        ap_small=ap("small"),
        ap_medium=ap("medium"),
        ap_large=ap("large"),
        ar_1=ar(most=1),
        ar_10=ar(most=10),
        ar_100=ar(),
        ar_small=ar("small"),
        ar_medium=ar("medium"),
        ar_large=ar("large"),
        images=len(ground_truth["images"]),
        boxes=sum(not each["iscrowd"] for each in ground_truth["annotations"]),
        per_class=tuple(
            ClassMetrics(label=label, ap=ap(k=k), ap50=ap(iou=IOU_50, k=k), ar=ar(k=k))
            for k, label in enumerate(labels)
        ),
    )


def precision_at_recall(ground_truth: Mapping[str, Any], detections: Floats) -> list[Floats | None]:
    """Return each class's precision at `RECALLS` for an IoU of 0.5; None for one without boxes.

    As COCO defines it: the best precision that is reached with this recall or more. Arguments of `measure`.
    """
    precision_TRKAM, _ = _accumulate(ground_truth, detections)
    of_class_KR = precision_TRKAM[IOU_50, :, :, AREAS["all"], MOST_DETECTIONS[100]].T
    return [None if (row < 0).any() else row for row in of_class_KR]


def match_detections(ground_truth: Mapping[str, Any], detections: Floats) -> Matching:
    """Match detections with boxes of their class by COCO's rules, IoU 0.5. Arguments of `measure`."""
    class_ids = sorted(each["id"] for each in ground_truth["categories"])
    found: dict[int, list[tuple[Floats, Bools]]] = {class_id: [] for class_id in class_ids}
    of_crowd_N = np.zeros(len(detections), dtype=bool)
    for matches in _matches_of_pictures(ground_truth, detections):
        scores, is_right = np.array(matches["dtScores"]), np.array(matches["dtMatched"][0], dtype=bool)
        ignored = np.array(matches["dtIgnore"][0], dtype=bool)
        of_crowd_N[np.array(matches["dtIds"]) - 1] = ignored
        found[matches["category_id"]].append((scores[~ignored], is_right[~ignored]))
    num_boxes = Counter(each["category_id"] for each in ground_truth["annotations"] if not each["iscrowd"])
    per_class = (_class_matches(found[class_id], num_boxes[class_id]) for class_id in class_ids)
    return Matching(per_class=tuple(per_class), of_crowd_N=of_crowd_N)


def count_confusions(
    ground_truth: Mapping[str, Any], detections: Floats, *, score_threshold: float
) -> NDArray[np.uint64]:
    """Count which class was taken for which, for an IoU of 0.5. Arguments of `measure`.

    Returns:
        [K + 1, K + 1]: a row per class in the picture, a column per class that was found there. The last row
        are detections where there is nothing, the last column boxes that were missed.
    """
    matrix = _comparison(ground_truth, detections).confusion_matrix(
        iou_thr=IOU_OF_CURVES, max_det=MOST_MATCHED, min_score=score_threshold
    )
    counts: NDArray[np.uint64] = matrix["matrix"]
    return counts


def _matches_of_pictures(ground_truth: Mapping[str, Any], detections: Floats) -> Iterator[dict[str, Any]]:
    """Yield what the library knows of the detections of one class in one picture, numbered from 1."""
    image_ids = [each["id"] for each in ground_truth["images"]]
    evaluation = _comparison(ground_truth, detections)
    evaluation.params.iou_thrs = [IOU_OF_CURVES]
    evaluation.params.area_rng = [[0.0, EVERY_AREA]]
    evaluation.params.area_rng_lbl = ["all"]
    evaluation.params.max_dets = [MOST_MATCHED]
    for start in range(0, len(image_ids), PICTURES_AT_ONCE):
        evaluation.params.img_ids = image_ids[start : start + PICTURES_AT_ONCE]
        evaluation.evaluate()
        yield from (each for each in evaluation.eval_imgs if each is not None and each["dtScores"])


def _class_matches(found: Sequence[tuple[Floats, Bools]], num_boxes: int) -> ClassMatches:
    if not found:
        return ClassMatches(np.zeros(0), np.zeros(0, dtype=bool), num_boxes)
    scores_D, is_right_D = (np.concatenate(parts) for parts in zip(*found, strict=True))
    order_D = np.argsort(-scores_D, kind="stable")
    return ClassMatches(scores_D[order_D], is_right_D[order_D], num_boxes)


def _comparison(ground_truth: Mapping[str, Any], detections: Floats) -> hotcoco.COCOeval:
    truth = hotcoco.COCO(dict(ground_truth))
    return hotcoco.COCOeval(truth, truth.load_res(detections), "bbox")


def _accumulate(ground_truth: Mapping[str, Any], detections: Floats) -> tuple[Floats, Floats]:
    """Return precision [T, R, K, A, M] and recall [T, K, A, M]; -1 where there is nothing to be found."""
    evaluation = _comparison(ground_truth, detections)
    evaluation.evaluate()
    evaluation.accumulate()
    accumulated = evaluation.eval
    assert accumulated is not None
    return np.asarray(accumulated["precision"]), np.asarray(accumulated["recall"])


def _mean(values: Floats) -> float | None:
    defined = values[values > -1]
    return float(defined.mean()) if defined.size else None


def _annotation(number: int, image_id: int, box: BoxRecord) -> dict[str, Any]:
    return {
        "id": number,
        "image_id": image_id,
        "category_id": box.class_id + 1,
        "bbox": [box.x1, box.y1, box.x2 - box.x1, box.y2 - box.y1],
        "area": box.area,
        "iscrowd": int(box.crowd),
    }


def _rows(image_id: int, found: Detections) -> Floats:
    boxes = found.boxes_N4.double().cpu().numpy()
    rows = np.empty((len(found), 7))
    rows[:, 0] = image_id
    rows[:, 1:3] = boxes[:, :2]
    rows[:, 3:5] = boxes[:, 2:] - boxes[:, :2]
    rows[:, 5] = found.scores_N.double().cpu().numpy()
    rows[:, 6] = found.labels_N.cpu().numpy() + 1
    return rows
