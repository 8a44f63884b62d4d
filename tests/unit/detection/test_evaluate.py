"""Measuring a predictor on a split, as it serves."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from detection.data.records import BoxRecord, ImageRecord, Split
from detection.devices import CPU
from detection.errors import DamagedImageError
from detection.evaluation.evaluate import BATCH_SIZE, evaluate, evaluation_options
from detection.inference.predictor import Predictor
from detection.model_record import ModelRecord
from tests.pictures import jpeg, noise, quadrants

RECORD = ModelRecord(architecture="yolox-nano", classes=("cat", "dog"), input_size_hw=(64, 64))
BOX = BoxRecord(class_id=0, x1=16, y1=16, x2=48, y2=40)


class Oracle:
    """Knows where the box is, and counts how often it is asked."""

    def __init__(self, score: float = 0.01) -> None:
        self._score = score
        self.batches: list[int] = []

    @property
    def device(self) -> torch.device:
        return CPU

    def run(self, images_BCHW: Tensor) -> tuple[Tensor, Tensor]:
        self.batches.append(len(images_BCHW))
        boxes = torch.tensor([[8.0, 8, 24, 20]]).expand(len(images_BCHW), 1, 4)
        return boxes, torch.tensor([[self._score, 0.0]]).expand(len(images_BCHW), 1, 2)


def records(count: int) -> list[ImageRecord]:
    return [
        ImageRecord(id=str(n), file_name=f"{n}.jpg", width=128, height=96, split=Split.VAL, boxes=(BOX,))
        for n in range(count)
    ]


def read(image: ImageRecord) -> bytes:
    return jpeg(quadrants(128, 96))


def test_every_picture_is_measured_in_its_own_pixels() -> None:
    oracle = Oracle()
    metrics = evaluate(Predictor(oracle, RECORD), records(BATCH_SIZE + 3), read)
    assert metrics is not None
    assert metrics.ap == pytest.approx(1.0)
    assert metrics.images == metrics.boxes == BATCH_SIZE + 3
    assert oracle.batches == [BATCH_SIZE, 3]
    assert [each.label for each in metrics.per_class] == ["cat", "dog"]


def test_the_threshold_of_an_evaluation_is_low() -> None:
    assert evaluate(Predictor(Oracle(0.0009), RECORD), records(1), read).ap == 0.0  # type: ignore[union-attr]
    options = replace(evaluation_options(RECORD), score_threshold=0.02)
    low = evaluate(Predictor(Oracle(), RECORD), records(1), read, options=options)
    assert low is not None
    assert low.ap == 0.0


def test_an_empty_split_has_no_score() -> None:
    metrics = evaluate(Predictor(Oracle(), RECORD), [], read)
    assert metrics is not None
    assert metrics.ap is None


def test_an_evaluation_can_be_interrupted_between_batches() -> None:
    oracle = Oracle()
    answers = iter([False, True])
    metrics = evaluate(
        Predictor(oracle, RECORD), records(5 * BATCH_SIZE), read, interrupted=lambda: next(answers)
    )
    assert metrics is None
    assert oracle.batches == [BATCH_SIZE]


def test_a_picture_that_cannot_be_read_is_never_left_out() -> None:
    def read_badly(image: ImageRecord) -> bytes:
        return jpeg(noise(20, 20)) if image.id != "9" else jpeg(noise(20, 20))[:-30]

    with pytest.raises(DamagedImageError):
        evaluate(Predictor(Oracle(), RECORD), records(12), read_badly)
