"""The second stage with a backend whose answers are known."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from detection.errors import WeightsError
from detection.images import Pixels
from detection.inference.second_stage import MOST_AT_ONCE, Classification, CropClassifier, agreeing
from detection.input_convention import IMAGENET
from detection.model_record import PUBLISHED_CROP, ModelRecord
from detection.preprocess import Placement
from detection.tasks import Task
from tests.pictures import noise

RECORD = ModelRecord(
    task=Task.CLASSIFY,
    architecture="resnet18",
    classes=("dark", "bright"),
    input_size_hw=(64, 64),
    input_convention=IMAGENET,
    crop=PUBLISHED_CROP,
)
ONE_TO_ONE = Placement(scale_x=1.0, scale_y=1.0)


class Brightness:
    """Answers how bright a prepared crop is, and remembers how many it was given at a time."""

    def __init__(self) -> None:
        self.given: list[int] = []

    @property
    def device(self) -> torch.device:
        return torch.device("cpu")

    def run(self, images_BCHW: Tensor) -> tuple[Tensor, ...]:
        self.given.append(len(images_BCHW))
        bright_B = (images_BCHW.mean(dim=(1, 2, 3)) + 2) / 4.5
        return (torch.stack((1 - bright_B, bright_B), dim=1),)


def grey(level: int, height: int = 10, width: int = 10) -> Pixels:
    return np.full((height, width, 3), level, np.uint8)


def test_every_crop_gets_its_own_answer_in_order() -> None:
    classifier = CropClassifier(Brightness(), RECORD)
    found = classifier.look([grey(255), grey(0), grey(200, 5, 30)])
    assert [each.class_id for each in found] == [1, 0, 1]
    assert found[0].score == pytest.approx(1.0, abs=0.02)


def test_all_crops_of_a_picture_are_one_batch_up_to_a_bound() -> None:
    backend = Brightness()
    classifier = CropClassifier(backend, RECORD)
    assert len(classifier.look([grey(9)] * MOST_AT_ONCE)) == MOST_AT_ONCE
    assert len(classifier.look([grey(9)] * (MOST_AT_ONCE + 3))) == MOST_AT_ONCE + 3
    assert backend.given == [MOST_AT_ONCE, MOST_AT_ONCE, 3]


class Small(Brightness):
    """An accelerator with memory for so many crops at a time."""

    def __init__(self, fits: int) -> None:
        super().__init__()
        self._fits = fits

    def run(self, images_BCHW: Tensor) -> tuple[Tensor, ...]:
        outputs = super().run(images_BCHW)
        if len(images_BCHW) > self._fits:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return outputs


def test_crops_that_do_not_fit_are_cut_in_halves_and_never_as_many_again() -> None:
    crops = [grey(level) for level in range(0, 255, 25)]
    small = Small(fits=3)
    classifier = CropClassifier(small, RECORD)
    expected = CropClassifier(Brightness(), RECORD).probabilities(crops)
    assert torch.equal(classifier.probabilities(crops), expected)
    assert small.given == [11, 5, 2, 2, 2, 2, 2, 1]
    small.given.clear()
    classifier.look(crops)
    assert max(small.given) == 2


def test_a_crop_that_does_not_fit_alone_is_an_error() -> None:
    with pytest.raises(torch.OutOfMemoryError):
        CropClassifier(Small(fits=0), RECORD).look([grey(9)] * 3)


def test_no_crop_costs_nothing() -> None:
    backend = Brightness()
    assert CropClassifier(backend, RECORD).look([]) == []
    assert backend.given == []


def test_a_region_without_a_pixel_gets_no_classification() -> None:
    pixels = grey(0, 100, 100)
    pixels[:, 50:] = 255
    boxes = np.array([[70, 40, 90, 60], [300, 300, 310, 310], [5, 40, 20, 60]], np.float32)
    classifier = CropClassifier(Brightness(), RECORD)
    regions = classifier.regions(boxes, ONE_TO_ONE, (100, 100))
    found = classifier.classify(pixels, regions)
    assert [None if each is None else each.class_id for each in found] == [1, None, 0]


def test_a_fitted_crop_gives_the_same_answer() -> None:
    classifier, crop = CropClassifier(Brightness(), RECORD), noise(37, 21)
    assert classifier.fit(crop).shape == (64, 64, 3)
    assert torch.equal(classifier.probabilities([classifier.fit(crop)]), classifier.probabilities([crop]))


def test_a_detector_is_no_classifier() -> None:
    record = ModelRecord(architecture="yolox-nano", classes=("a",), input_size_hw=(64, 64))
    with pytest.raises(WeightsError, match="a yolox-nano is a model to detect, not to classify"):
        CropClassifier(Brightness(), record)


def test_the_original_keeps_what_the_classifier_agrees_with() -> None:
    said = [Classification(1, 0.9), None, Classification(0, 0.6)]
    assert agreeing([1, 1, 2], said) == [0]
