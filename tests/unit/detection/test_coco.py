"""AP by COCO's rules: the original tool's numbers, its own code as an oracle, and the edges."""

from __future__ import annotations

import io
import json
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from detection.data.records import BoxRecord, ImageRecord, Split
from detection.detections import Detections
from detection.evaluation.coco import CocoMetrics, ground_truth_of, measure, measure_detections

STATS = (
    *("ap", "ap50", "ap75", "ap_small", "ap_medium", "ap_large"),
    *("ar_1", "ar_10", "ar_100", "ar_small", "ar_medium", "ar_large"),
)
CLASSES = ("cat", "dog", "owl")


def detections(*rows: tuple[float, float, float, float, float, int]) -> Detections:
    """Return detections from rows x1, y1, x2, y2, score, class."""
    table = torch.tensor(rows, dtype=torch.float32).reshape(-1, 6)
    return Detections(table[:, :4], table[:, 4], table[:, 5].long())


def image(*boxes: BoxRecord, name: str = "a") -> ImageRecord:
    return ImageRecord(id=name, file_name=f"{name}.jpg", width=640, height=480, split=Split.VAL, boxes=boxes)


def box(x1: float, y1: float, x2: float, y2: float, class_id: int = 0, *, crowd: bool = False) -> BoxRecord:
    return BoxRecord(class_id=class_id, x1=x1, y1=y1, x2=x2, y2=y2, crowd=crowd)


def numbers(metrics: CocoMetrics) -> list[float]:
    """Return the twelve numbers as the original tool does: -1 where there is nothing to be found."""
    return [-1.0 if (value := getattr(metrics, name)) is None else value for name in STATS]


def original_numbers(ground_truth: dict[str, Any], rows: NDArray[np.float64]) -> list[float]:
    with redirect_stdout(io.StringIO()):
        truth = COCO()
        truth.dataset = ground_truth
        truth.createIndex()
        evaluation = COCOeval(truth, truth.loadRes(rows), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return [float(value) for value in evaluation.stats]


def test_the_numbers_of_the_original_tool(golden: Path) -> None:
    case = json.loads((golden / "coco_eval.json").read_text())
    rows = [
        [each["image_id"], *each["bbox"], each["score"], each["category_id"]] for each in case["detections"]
    ]
    metrics = measure(case["ground_truth"], np.array(rows))
    assert numbers(metrics) == pytest.approx(case["stats12"], abs=1e-6)
    for own, expected in zip(metrics.per_class, case["per_class_ap_ap50"].values(), strict=True):
        assert [own.ap, own.ap50] == pytest.approx(expected, abs=1e-6)
    assert [each.label for each in metrics.per_class] == ["c0", "c1", "c2", "c3", "c4"]
    assert metrics.boxes == 42


@pytest.mark.parametrize("seed", range(5))
def test_the_original_code_agrees_on_random_scenes(seed: int) -> None:
    random = np.random.default_rng(seed)
    images, found = [], []
    for number in range(6):
        corner, side = random.uniform(0, 300, (8, 2)), random.uniform(4, 250, (8, 2))
        boxes = np.concatenate([corner, corner + side], axis=1)
        labels = random.integers(0, 3, 8)
        records = [
            box(*each, int(label), crowd=random.random() < 0.15)
            for each, label in zip(boxes, labels, strict=True)
        ]
        images.append(image(*records, name=str(number)))
        shifted = boxes + random.normal(0, 6, boxes.shape)
        rows = [(*each, random.random(), int(label)) for each, label in zip(shifted, labels, strict=True)]
        found.append(detections(*rows[: random.integers(0, 9)]))
    rows = [
        [index, x1, y1, x2 - x1, y2 - y1, score, label + 1]
        for index, each in enumerate(found, start=1)
        for (x1, y1, x2, y2), score, label in zip(
            each.boxes_N4.double().tolist(),
            each.scores_N.double().tolist(),
            each.labels_N.tolist(),
            strict=True,
        )
    ]
    expected = original_numbers(ground_truth_of(images, CLASSES), np.array(rows))
    assert numbers(measure_detections(images, found, CLASSES)) == pytest.approx(expected, abs=1e-9)


def test_perfect_boxes_score_one_and_absent_classes_have_no_score() -> None:
    truth = [image(box(10, 10, 50, 60), box(100, 100, 300, 300, 1)), image(name="b")]
    found = [detections((10, 10, 50, 60, 0.9, 0), (100, 100, 300, 300, 0.8, 1)), detections()]
    metrics = measure_detections(truth, found, CLASSES)
    assert numbers(metrics) == pytest.approx([1, 1, 1, -1, 1, 1, 1, 1, 1, -1, 1, 1])
    assert [each.ap for each in metrics.per_class] == [pytest.approx(1), pytest.approx(1), None]
    assert (metrics.images, metrics.boxes) == (2, 2)


def test_finding_nothing_scores_zero() -> None:
    metrics = measure_detections([image(box(1, 1, 9, 9))], [detections()], CLASSES)
    assert (metrics.ap, metrics.ap50, metrics.ar_100, metrics.ap_small) == (0.0, 0.0, 0.0, 0.0)
    assert metrics.ap_large is None


def test_a_crowd_is_neither_to_be_found_nor_wrong_to_be_found() -> None:
    truth = [image(box(10, 10, 50, 60), box(200, 200, 400, 400, crowd=True))]
    both = detections((210, 210, 390, 390, 0.99, 0), (10, 10, 50, 60, 0.5, 0))
    metrics = measure_detections(truth, [both], CLASSES)
    assert metrics.ap == pytest.approx(1.0)
    assert metrics.boxes == 1


@pytest.mark.parametrize("images", [[], [image()], [image(), image(name="b")]])
def test_without_any_box_there_is_no_score(images: list[ImageRecord]) -> None:
    found = [detections((1, 1, 9, 9, 0.5, 0)) for _ in images]
    metrics = measure_detections(images, found, CLASSES)
    assert numbers(metrics) == [-1.0] * 12
    assert metrics.images == len(images)


def test_only_the_best_hundred_boxes_of_a_class_count() -> None:
    misses = [(300.0, 300.0, 310.0, 310.0, 0.9, 0)] * 100
    found = detections(*misses, (10, 10, 50, 60, 0.5, 0))
    assert measure_detections([image(box(10, 10, 50, 60))], [found], CLASSES).ap == 0.0


def test_metrics_become_json() -> None:
    plain = measure_detections([image(box(1, 1, 9, 9))], [detections()], CLASSES).as_json()
    assert json.loads(json.dumps(plain)) == plain
    assert plain["per_class"][0] == {"label": "cat", "ap": 0.0, "ap50": 0.0, "ar": 0.0}
