"""From labelled boxes to augmented crops: which boxes count, what is drawn, and what never changes."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest

from detection.data.crop_records import crop_dataset
from detection.data.crop_samples import CropSamples
from detection.data.dataset import SampleKey
from detection.data.records import BoxRecord, DatasetRecord, ImageRecord, Split
from detection.errors import DatasetFormatError
from detection.families.classifier import ClassifierAugmentationConfig
from detection.images import Pixels
from detection.input_convention import IMAGENET
from detection.model_record import PUBLISHED_CROP, CropRule
from tests.pictures import noise, png

STILL = ClassifierAugmentationConfig(flip=0.0, scale=(1.0, 1.0), translate=0.0, colour=0.0)
PIXELS = noise(200, 100)


def box(class_id: int = 0, colour: str | None = None, *, crowd: bool = False) -> BoxRecord:
    said = () if colour is None else (("colour", colour),)
    return BoxRecord(class_id=class_id, x1=80, y1=40, x2=120, y2=60, crowd=crowd, attributes=said)


def image(number: int, *boxes: BoxRecord, split: Split = Split.TRAIN) -> ImageRecord:
    return ImageRecord(
        id=str(number), file_name=f"{number}.png", width=200, height=100, split=split, boxes=boxes
    )


DATASET = DatasetRecord(
    format="coco",
    classes=("car", "van"),
    images=(
        image(1, box(0, "red"), box(1, "blue"), box(0)),
        image(2, box(1, "red"), box(0, "red", crowd=True), split=Split.VAL),
        image(3),
    ),
)


def test_every_box_is_a_crop_of_its_class() -> None:
    crops = crop_dataset(DATASET, None)
    assert crops.left_out == 0
    assert crops.record.classes == ("car", "van")
    assert [(each.id, each.boxes[0].class_id, each.split.value) for each in crops.record.images] == [
        ("1", 0, "train"),
        ("1", 1, "train"),
        ("1", 0, "train"),
        ("2", 1, "val"),
    ]
    assert all(len(each.boxes) == 1 for each in crops.record.images)


def test_or_of_its_attribute() -> None:
    crops = crop_dataset(DATASET, "colour")
    assert (crops.record.classes, crops.left_out) == (("blue", "red"), 1)
    assert [each.boxes[0].class_id for each in crops.record.images] == [1, 0, 1]


def test_an_attribute_of_nobody_is_refused_with_those_that_there_are() -> None:
    with pytest.raises(DatasetFormatError, match=r"none of its 4 boxes has the attribute 'shape'.*'colour'"):
        crop_dataset(DATASET, "shape")


def samples(
    augmentation: ClassifierAugmentationConfig = STILL, seed: int = 0, rule: CropRule = PUBLISHED_CROP
) -> CropSamples:
    return CropSamples(
        crop_dataset(DATASET, None).record.of_split(Split.TRAIN),
        lambda _: png(PIXELS),
        input_size_hw=(64, 64),
        rule=rule,
        augmentation=augmentation,
        seed=seed,
        convention=IMAGENET,
    )


def first(given: CropSamples, epoch: int = 0, *, tail: bool = False) -> Pixels:
    sample = given[SampleKey(epoch, 0, tail)]
    assert sample.boxes.tolist() == [[0, 0, 64, 64]]
    assert sample.labels.shape == (1,)
    return np.asarray(sample.pixels)


def test_without_augmentation_it_is_what_serving_sees() -> None:
    """At 640 the picture is 3.2 times as large: the box 128 x 64, the side 196.4, the corner (221, 61)."""
    left, top, right, bottom = (int(edge / 3.2) for edge in (221, 61, 418, 258))
    by_hand = PIXELS[top:bottom, left:right]
    expected = cv2.resize(by_hand, (64, 64), interpolation=cv2.INTER_LINEAR)
    assert np.array_equal(first(samples()), expected)


def test_equal_keys_give_equal_samples_and_others_do_not() -> None:
    drawn = ClassifierAugmentationConfig()
    again, other = first(samples(drawn)), first(samples(drawn), epoch=1)
    assert np.array_equal(first(samples(drawn)), again)
    assert not np.array_equal(again, other)
    assert not np.array_equal(first(samples(drawn, seed=1)), again)


@pytest.mark.parametrize(
    "changes", [{"flip": 1.0}, {"scale": (0.5, 0.6)}, {"translate": 0.4}, {"colour": 1.0, "value": 200}]
)
def test_every_step_changes_something(changes: dict[str, object]) -> None:
    assert not np.array_equal(first(samples(replace(STILL, **changes))), first(samples()))  # type: ignore[arg-type]


def test_the_tail_only_colours_and_mirrors() -> None:
    moved = replace(STILL, scale=(0.5, 0.6), translate=0.4)
    assert np.array_equal(first(samples(moved), tail=True), first(samples()))
    mirrored = first(samples(replace(moved, flip=1.0)), tail=True)
    assert np.array_equal(mirrored, first(samples())[:, ::-1])


def test_a_square_that_holds_nothing_falls_back_to_the_pixels_of_the_box() -> None:
    rule = CropRule(enlarge=1.0, margin=0.0, detector_input_size=64)
    tiny = BoxRecord(class_id=0, x1=199.4, y1=0.2, x2=199.6, y2=0.4)
    given = CropSamples(
        [image(1, tiny)],
        lambda _: png(PIXELS),
        input_size_hw=(64, 64),
        rule=rule,
        augmentation=STILL,
        seed=0,
        convention=IMAGENET,
    )
    assert (first(given) == PIXELS[0, 199]).all()
