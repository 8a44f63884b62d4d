"""A validation split that is cut has every class in its share, and copies of a picture on one side."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import replace

import pytest

from detection.data.records import BoxRecord, ImageRecord, Split
from detection.data.validation_cut import cut_validation


def image(number: int, *class_ids: int, split: Split = Split.TRAIN, sha256: str = "") -> ImageRecord:
    boxes = tuple(BoxRecord(class_id=class_id, x1=0, y1=0, x2=1, y2=1) for class_id in class_ids)
    name = f"{number:06d}"
    return ImageRecord(id=name, file_name=name, width=9, height=9, split=split, boxes=boxes, sha256=sha256)


def moved(images: list[ImageRecord], fraction: float = 0.2, seed: int = 0) -> list[ImageRecord]:
    return [each for each in cut_validation(images, fraction, seed) if each.split is Split.VAL]


@pytest.mark.parametrize("seed", range(5))
def test_every_class_keeps_its_share(seed: int) -> None:
    rng = random.Random(seed)
    weights = [100, 60, 20, 10]
    images = [image(n, *set(rng.choices(range(4), weights, k=rng.randint(0, 3)))) for n in range(400)]
    totals = Counter(c for each in images for c in {b.class_id for b in each.boxes} or {-1})

    parts = Counter(c for each in moved(images, 0.2, seed) for c in {b.class_id for b in each.boxes} or {-1})

    for class_id, total in totals.items():
        assert abs(parts[class_id] - 0.2 * total) <= max(2, 0.06 * total), class_id


def test_seed_decides() -> None:
    images = [image(n, n % 3) for n in range(60)]

    assert moved(images, seed=1) == moved(images, seed=1)
    assert moved(images, seed=1) != moved(images, seed=2)


def test_order_and_everything_else_stay() -> None:
    images = [image(n, n % 3) for n in range(30)]

    cut = cut_validation(images, 0.3, 0)

    assert [replace(each, split=Split.TRAIN) for each in cut] == images


def test_copies_stay_together() -> None:
    images = [image(n, 0, sha256=f"{n // 3}") for n in range(60)]

    sides = {(each.sha256, each.split) for each in cut_validation(images, 0.25, 0)}

    assert len(sides) == 20
    assert {split for _, split in sides} == {Split.TRAIN, Split.VAL}


def test_other_splits_are_not_touched() -> None:
    images = [image(n, 0, split=Split.TEST if n % 2 else Split.TRAIN) for n in range(20)]

    assert {int(each.id) % 2 for each in moved(images)} == {0}


@pytest.mark.parametrize(
    ("count", "fraction", "expected"),
    [(0, 0.2, 0), (1, 0.2, 0), (9, 0.0, 0), (2, 0.01, 1), (2, 1.0, 1), (10, 1.0, 9)],
)
def test_edges(count: int, fraction: float, expected: int) -> None:
    assert len(moved([image(n, 0) for n in range(count)], fraction)) == expected
