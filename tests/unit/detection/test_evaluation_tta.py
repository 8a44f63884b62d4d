"""A split looked at plainly and with augmentation, in one go."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from detection.data.records import BoxRecord, ImageRecord, Split
from detection.devices import CPU
from detection.evaluation.evaluate import BATCH_SIZE, detect_in_all
from detection.evaluation.tta import PlainAndAugmented, detect_plain_and_augmented
from detection.inference.passes import DEFAULT_PASSES, TtaPass, passes_of
from detection.inference.predictor import Predictor
from detection.model_record import ModelRecord
from tests.pictures import jpeg, quadrants

RECORD = ModelRecord(architecture="yolox-nano", classes=("cat", "dog"), input_size_hw=(96, 128))
BOX = BoxRecord(class_id=0, x1=16, y1=16, x2=48, y2=40)


class OnlyWhenSmaller:
    """Sees the box in views of less than the full size, and never before."""

    def __init__(self) -> None:
        self.widths: list[tuple[int, int]] = []

    @property
    def device(self) -> torch.device:
        return CPU

    def run(self, images_BCHW: Tensor) -> tuple[Tensor, Tensor]:
        count, width = len(images_BCHW), images_BCHW.shape[3]
        self.widths.append((count, width))
        boxes = torch.tensor([[8.0, 8, 24, 20]]).expand(count, 1, 4)
        return boxes, torch.tensor([[0.0 if width == 128 else 0.5, 0.0]]).expand(count, 1, 2)


def records(count: int) -> list[ImageRecord]:
    return [
        ImageRecord(id=str(n), file_name=f"{n}.jpg", width=128, height=96, split=Split.VAL, boxes=(BOX,))
        for n in range(count)
    ]


def read(image: ImageRecord) -> bytes:
    return jpeg(quadrants(128, 96))


def looked(backend: OnlyWhenSmaller, count: int, passes: Sequence[TtaPass]) -> PlainAndAugmented:
    found = detect_plain_and_augmented(Predictor(backend, RECORD), records(count), read, passes)
    assert found is not None
    return found


def test_what_augmentation_finds_stands_beside_the_plain_look() -> None:
    found = looked(OnlyWhenSmaller(), 3, passes_of([1, 0.5], ["none", "none"]))
    measured = found.measure(records(3), RECORD.classes)
    assert measured.comparison is not None
    assert measured.comparison["plain"] == {"ap": 0.0, "ap50": 0.0, "ap75": 0.0}
    assert measured.comparison["augmented"] == pytest.approx({"ap": 1.0, "ap50": 1.0, "ap75": 1.0})
    assert measured.comparison["difference"] == measured.comparison["augmented"]
    assert measured.asked_for is measured.augmented
    assert found.asked_for is found.augmented


def test_every_picture_is_seen_plainly_only_once() -> None:
    backend = OnlyWhenSmaller()
    looked(backend, BATCH_SIZE + 1, passes_of([1, 0.5], ["none", "none"]))
    assert backend.widths == [(BATCH_SIZE, 128), (BATCH_SIZE, 64), (1, 128), (1, 64)]
    backend = OnlyWhenSmaller()
    looked(backend, 1, passes_of([1], ["lr"]))
    assert backend.widths == [(1, 128), (1, 128)], "a mirrored look is another one"


def test_without_passes_the_plain_look_is_all() -> None:
    found = looked(OnlyWhenSmaller(), 2, ())
    expected = detect_in_all(Predictor(OnlyWhenSmaller(), RECORD), records(2), read)
    assert expected is not None
    assert found.augmented is None
    assert found.asked_for is found.plain
    for own, other in zip(found.plain, expected, strict=True):
        assert torch.equal(own.scores_N, other.scores_N)
    measured = found.measure(records(2), RECORD.classes)
    assert measured.comparison is None
    assert measured.asked_for is measured.plain


def test_a_split_without_boxes_has_no_difference() -> None:
    found = looked(OnlyWhenSmaller(), 1, DEFAULT_PASSES)
    empty = [ImageRecord(id="0", file_name="0.jpg", width=128, height=96, split=Split.VAL, boxes=())]
    comparison = found.measure(empty, RECORD.classes).comparison
    assert comparison is not None
    assert comparison["difference"] == {"ap": None, "ap50": None, "ap75": None}


def test_it_can_be_given_up_and_tells_how_far_it_is() -> None:
    predictor, counts = Predictor(OnlyWhenSmaller(), RECORD), list[int]()
    assert (
        detect_plain_and_augmented(predictor, records(2), read, DEFAULT_PASSES, interrupted=lambda: True)
        is None
    )
    detect_plain_and_augmented(predictor, records(BATCH_SIZE + 1), read, DEFAULT_PASSES, saw=counts.append)
    assert counts == [BATCH_SIZE, BATCH_SIZE + 1]
