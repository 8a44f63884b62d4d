"""Accuracy, recall and precision of a classifier, by hand."""

from __future__ import annotations

import numpy as np
import pytest
from torch import Tensor

from detection.data.records import BoxRecord, ImageRecord, Split
from detection.evaluation.classification import (
    ClassConfusion,
    classify_all,
    count_answers,
    measure_answers,
)
from detection.evaluation.metrics import headline_of
from detection.inference.second_stage import CropClassifier
from tests.pictures import png
from tests.unit.detection.test_second_stage import RECORD, Brightness

CLASSES = ("cat", "dog", "owl")


def crop(class_id: int, number: int = 0, *edges: float) -> ImageRecord:
    x1, y1, x2, y2 = edges or (0, 0, 8, 8)
    box = BoxRecord(class_id=class_id, x1=x1, y1=y1, x2=x2, y2=y2)
    return ImageRecord(id=str(number), file_name="a.png", width=400, height=8, split=Split.VAL, boxes=(box,))


def test_measures_by_hand() -> None:
    """Of 4 cats 3 are known, one is said to be a dog; of 2 dogs 1; there is no owl, but one was seen."""
    shown = [crop(each) for each in (0, 0, 0, 0, 1, 1)]
    counts = count_answers(shown, [0, 0, 0, 1, 1, 2], 3)
    assert counts.tolist() == [[3, 1, 0], [0, 1, 1], [0, 0, 0]]
    metrics = measure_answers(counts, CLASSES)
    assert metrics.accuracy == metrics.score == pytest.approx(4 / 6)
    assert metrics.mean_recall == pytest.approx((3 / 4 + 1 / 2) / 2)
    assert [(each.crops, each.recall, each.precision) for each in metrics.per_class] == [
        (4, 0.75, 1.0),
        (2, 0.5, 0.5),
        (0, None, 0.0),
    ]
    assert headline_of(metrics) == {"accuracy": metrics.accuracy, "mean_recall": metrics.mean_recall}
    assert metrics.as_json()["confusion_matrix"] == {"labels": [*CLASSES], "counts": counts.tolist()}


def test_nothing_to_measure_on_measures_nothing() -> None:
    metrics = measure_answers(count_answers([], [], 3), CLASSES)
    assert (metrics.accuracy, metrics.mean_recall, metrics.crops) == (None, None, 0)
    assert headline_of(metrics) == {}


def test_many_classes_have_their_matrix_elsewhere() -> None:
    names = tuple(map(str, range(60)))
    counts = count_answers([], [], 60)
    assert measure_answers(counts, names).confusion_matrix is None
    details = ClassConfusion(names, counts).as_json()
    assert len(details["confusion_matrix"]["counts"]) == 60
    assert details["curves"] is None
    many = tuple(map(str, range(501)))
    assert ClassConfusion(many, np.zeros((501, 501), np.int64)).as_json()["confusion_matrix"] is None


def half_bright() -> bytes:
    pixels = np.zeros((8, 400, 3), np.uint8)
    pixels[:, 200:] = 255
    return png(pixels)


def test_a_picture_is_read_once_for_all_of_its_crops() -> None:
    reads: list[str] = []

    def read(image: ImageRecord) -> bytes:
        reads.append(image.id)
        return half_bright()

    crops = [crop(0, 1, 0, 0, 8, 8), crop(1, 1, 390, 0, 398, 8), crop(0, 2, 0, 0, 0.01, 0.01)]
    seen: list[int] = []
    said = classify_all(CropClassifier(Brightness(), RECORD), crops, read, saw=seen.append)
    assert said == [0, 1, 0]
    assert reads == ["1", "2"]
    assert seen == [3]


def test_a_box_of_which_nothing_is_left_is_looked_at_by_the_pixel_that_it_touches() -> None:
    class Tight(CropClassifier):
        def regions(self, *_: object) -> np.ndarray:  # type: ignore[override,type-arg]
            return np.array([[3, 3, 3, 3]])

    said = classify_all(Tight(Brightness(), RECORD), [crop(1, 1, 399.8, 0, 400, 1)], lambda _: half_bright())
    assert said == [1]


def test_an_interrupted_measurement_has_no_result() -> None:
    class Untouched(Brightness):
        def run(self, images_BCHW: Tensor) -> tuple[Tensor, ...]:
            raise AssertionError("nobody asked")

    classifier = CropClassifier(Untouched(), RECORD)
    assert classify_all(classifier, [crop(0)], lambda _: half_bright(), interrupted=lambda: True) is None
