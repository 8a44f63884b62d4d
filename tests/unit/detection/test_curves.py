"""Curves and confusion matrix: counted by hand, and against a slow obvious matching on random scenes."""

from __future__ import annotations

import json
from itertools import pairwise

import numpy as np
import pytest
import torch

from detection.boxes import pairwise_iou
from detection.data.records import BoxRecord, ImageRecord, Split
from detection.detections import Detections
from detection.evaluation import coco
from detection.evaluation.coco import measure_detections
from detection.evaluation.curves import MOST_CLASSES, SCORE_THRESHOLDS, EvaluationDetails, detail_detections

CLASSES = ("cat", "dog", "owl")


def image(*boxes: BoxRecord, name: str = "a") -> ImageRecord:
    return ImageRecord(id=name, file_name=f"{name}.jpg", width=640, height=480, split=Split.VAL, boxes=boxes)


def box(x1: float, y1: float, x2: float, y2: float, class_id: int = 0, *, crowd: bool = False) -> BoxRecord:
    return BoxRecord(class_id=class_id, x1=x1, y1=y1, x2=x2, y2=y2, crowd=crowd)


def detections(*rows: tuple[float, float, float, float, float, int]) -> Detections:
    table = torch.tensor(rows, dtype=torch.float32).reshape(-1, 6)
    return Detections(table[:, :4], table[:, 4], table[:, 5].long())


def details(images: list[ImageRecord], found: list[Detections]) -> EvaluationDetails:
    made = detail_detections(images, found, CLASSES, score_threshold=0.3)
    assert made is not None
    return made


@pytest.fixture
def by_hand() -> EvaluationDetails:
    """Two cats, a dog; one cat found twice, one taken for a dog, the dog missed, a herd of dogs ignored."""
    images = [
        image(box(0, 0, 50, 50), box(100, 0, 150, 50), name="a"),
        image(box(0, 0, 50, 50, 1), box(200, 200, 400, 400, 1, crowd=True), name="b"),
    ]
    found = [
        detections((0, 0, 50, 50, 0.9, 0), (1, 0, 50, 50, 0.6, 0), (100, 0, 150, 50, 0.8, 1)),
        detections((210, 210, 390, 390, 0.7, 1), (0, 0, 50, 50, 0.2, 1)),
    ]
    return details(images, found)


def test_what_each_threshold_costs_and_gains(by_hand: EvaluationDetails) -> None:
    cat = by_hand.curves.per_class[0]
    at = SCORE_THRESHOLDS.index
    assert (cat.label, cat.boxes) == ("cat", 2)
    assert (cat.precision[at(0.5)], cat.recall[at(0.5)], cat.f1[at(0.5)]) == (0.5, 0.5, 0.5)
    assert (cat.precision[at(0.7)], cat.recall[at(0.7)]) == (1.0, 0.5)
    assert cat.f1[at(0.7)] == pytest.approx(2 / 3, abs=1e-5)
    assert (cat.precision[at(0.95)], cat.recall[at(0.95)], cat.f1[at(0.95)]) == (None, 0.0, 0.0)
    assert (cat.best_f1, cat.best_score_threshold) == (pytest.approx(2 / 3, abs=1e-5), 0.75)


def test_a_crowd_is_in_no_curve(by_hand: EvaluationDetails) -> None:
    dog = by_hand.curves.per_class[1]
    at = SCORE_THRESHOLDS.index
    assert dog.boxes == 1
    assert dog.precision[at(0.75)] == 0.0
    assert (dog.precision[at(0.1)], dog.recall[at(0.1)]) == (0.5, 1.0)


def test_a_class_without_boxes_has_no_curve_and_does_not_count(by_hand: EvaluationDetails) -> None:
    owl, mean = by_hand.curves.per_class[2], by_hand.curves.mean
    assert (owl.boxes, owl.f1, owl.best_f1) == (0, (), None)
    assert mean.boxes == 3
    assert mean.recall[SCORE_THRESHOLDS.index(0.5)] == 0.25


def test_what_was_taken_for_what(by_hand: EvaluationDetails) -> None:
    matrix = by_hand.confusion_matrix
    assert matrix.labels == ("cat", "dog", "owl", "background")
    assert matrix.counts == ((1, 1, 0, 0), (0, 0, 0, 1), (0, 0, 0, 0), (1, 0, 0, 0))


def test_nothing_to_be_found_and_nothing_found() -> None:
    empty = details([image()], [detections()])
    assert empty.curves.mean.f1 == ()
    assert sum(sum(row) for row in empty.confusion_matrix.counts) == 0
    missed = details([image(box(0, 0, 9, 9))], [detections()])
    assert missed.curves.per_class[0].best_f1 == 0.0
    assert set(missed.curves.per_class[0].precision) == {None}
    assert details([], []).curves.mean.label is None


def test_where_nothing_is_right_no_threshold_is_recommended() -> None:
    wrong = details([image(box(0, 0, 50, 50))], [detections((200, 200, 250, 250, 0.9, 0))])
    assert (wrong.curves.mean.best_f1, wrong.curves.mean.best_score_threshold) == (0.0, None)


def test_a_crowded_picture_is_looked_at_whole() -> None:
    cells = [(10.0 * n, 0.0, 10.0 * n + 8, 8.0) for n in range(250)]
    found = detections(*((*cell, 0.9, 0) for cell in cells))
    crowded = details([image(*(box(*cell) for cell in cells))], [found])
    assert crowded.curves.mean.best_f1 == 1.0
    assert crowded.confusion_matrix.counts[0] == (250, 0, 0, 0)


def test_with_very_many_classes_there_are_no_details() -> None:
    classes = [f"class {n}" for n in range(MOST_CLASSES + 1)]
    assert detail_detections([image()], [detections()], classes, score_threshold=0.3) is None


def slow_counts(
    images: list[ImageRecord], found: list[Detections], class_id: int, threshold: float
) -> tuple[int, int]:
    """Return how many detections of a class there are, and how many of them are right, box after box."""
    right = total = 0
    for picture, each in zip(images, found, strict=True):
        truth = [other for other in picture.boxes if other.class_id == class_id]
        free = [True] * len(truth)
        for index in sorted(range(len(each)), key=lambda index: -float(each.scores_N[index])):
            if int(each.labels_N[index]) != class_id or float(each.scores_N[index]) < threshold:
                continue
            total += 1
            corners = torch.tensor([[b.x1, b.y1, b.x2, b.y2] for b in truth]).reshape(-1, 4)
            overlaps = pairwise_iou(each.boxes_N4[index : index + 1], corners)[0].tolist()
            fitting = [(iou, n) for n, iou in enumerate(overlaps) if free[n] and iou >= 0.5]
            if fitting:
                free[max(fitting)[1]] = False
                right += 1
    return total, right


@pytest.mark.parametrize("seed", range(3))
def test_a_slow_matching_agrees_on_random_scenes(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(coco, "PICTURES_AT_ONCE", 2)
    random = np.random.default_rng(seed)
    images, found = [], []
    for number in range(5):
        corner, side = random.uniform(0, 300, (8, 2)), random.uniform(40, 150, (8, 2))
        boxes = np.concatenate([corner, corner + side], axis=1)
        labels = random.integers(0, 3, 8)
        images.append(image(*(box(*b, int(k)) for b, k in zip(boxes, labels, strict=True)), name=str(number)))
        shifted = boxes + random.normal(0, 8, boxes.shape)
        rows = [(*b, random.random(), int(k)) for b, k in zip(shifted, labels, strict=True)]
        found.append(detections(*rows))
    curves = details(images, found).curves
    for class_id, own in enumerate(curves.per_class):
        for threshold in (0.01, 0.25, 0.5, 0.9):
            total, right = slow_counts(images, found, class_id, threshold)
            index = SCORE_THRESHOLDS.index(threshold)
            assert own.recall[index] == pytest.approx(right / own.boxes, abs=1e-5)
            assert own.f1[index] == pytest.approx(2 * right / (total + own.boxes), abs=1e-5)
            assert own.precision[index] == (pytest.approx(right / total, abs=1e-5) if total else None)


def test_the_mean_precision_over_recall_is_ap50(by_hand: EvaluationDetails) -> None:
    images = [image(box(0, 0, 50, 50), box(100, 0, 150, 50)), image(box(0, 0, 50, 50, 1), name="b")]
    found = [
        detections((0, 0, 50, 50, 0.5, 0), (200, 0, 250, 50, 0.9, 0)),
        detections((0, 0, 50, 45, 0.5, 1)),
    ]
    own = details(images, found).curves
    assert np.mean(own.mean.precision_at_recall) == pytest.approx(
        measure_detections(images, found, CLASSES).ap50, abs=1e-4
    )
    assert all(later <= before for before, later in pairwise(own.per_class[0].precision_at_recall))


def test_it_becomes_json(by_hand: EvaluationDetails) -> None:
    plain = json.loads(json.dumps(by_hand.as_json()))
    assert set(plain) == {"curves", "confusion_matrix"}
    assert len(plain["curves"]["score_thresholds"]) == len(plain["curves"]["mean"]["f1"]) == 99
