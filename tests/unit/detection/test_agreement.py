"""Whether two backends see the same is told from their boxes, with honest limits."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from detection.detections import Detections
from detection.inference.agreement import (
    EXACT,
    FEWEST_BOXES,
    HALF,
    Agreement,
    agreement_in_all,
    compare_detections,
)

BOX = (10.0, 10.0, 110.0, 60.0)
MOVED = (10.0, 10.0, 110.0, 55.0)
"""Overlaps by 0.9."""


def seen(*boxes: tuple[tuple[float, ...], float, int]) -> Detections:
    return Detections(
        torch.tensor([box for box, _, _ in boxes]).reshape(-1, 4),
        torch.tensor([score for _, score, _ in boxes]),
        torch.tensor([label for _, _, label in boxes], dtype=torch.int64),
    )


@pytest.mark.parametrize(
    ("other", "exact", "half"),
    [
        ((BOX, 0.8, 1), 2, 2),
        ((BOX, 0.75, 1), 0, 2),
        ((BOX, 0.65, 1), 0, 0),
        ((MOVED, 0.8, 1), 0, 2),
        ((BOX, 0.8, 2), 0, 0),
    ],
    ids=["same", "score differs a little", "score differs", "moved a little", "another class"],
)
def test_the_same_box_has_class_place_and_score(
    other: tuple[tuple[float, ...], float, int], exact: int, half: int
) -> None:
    reference, found = seen((BOX, 0.8, 1)), seen(other)
    for tolerance, same in ((EXACT, exact), (HALF, half)):
        agreement = compare_detections(reference, found, tolerance)
        assert (agreement.pictures, agreement.boxes, agreement.same) == (1, 2, same)


def test_a_box_that_only_one_is_sure_of_may_score_a_little_less_for_the_other() -> None:
    agreement = compare_detections(seen((BOX, 0.31, 0)), seen((BOX, 0.29, 0)), HALF)
    assert (agreement.boxes, agreement.same) == (1, 1)
    assert agreement.score_difference == pytest.approx(0.02)
    missed = compare_detections(seen((BOX, 0.31, 0)), seen(), HALF)
    assert (missed.boxes, missed.same) == (1, 0)
    invented = compare_detections(seen(), seen((BOX, 0.31, 0)), HALF)
    assert (invented.boxes, invented.same) == (1, 0)


def test_nothing_says_nothing() -> None:
    agreement = compare_detections(seen(), seen(), EXACT)
    assert (agreement.boxes, agreement.share) == (0, 1.0)
    assert not agreement.is_within(EXACT)


def test_enough_of_enough_boxes_must_be_the_same() -> None:
    enough = Agreement(pictures=4, boxes=100, same=95)
    assert enough.is_within(HALF)
    assert not enough.is_within(EXACT)
    assert not replace(enough, same=94).is_within(HALF)
    assert not Agreement(pictures=4, boxes=FEWEST_BOXES - 1, same=FEWEST_BOXES - 1).is_within(HALF)
    both = enough + Agreement(pictures=1, boxes=2, same=0, score_difference=0.05)
    assert both == Agreement(pictures=5, boxes=102, same=95, score_difference=0.05)


def test_a_model_that_is_rarely_sure_is_judged_by_its_surest_boxes() -> None:
    many = [seen(*((BOX, 0.02 + index / 1000, 0) for index in range(9, -1, -1))) for _ in range(4)]
    agreement = agreement_in_all(many, many, EXACT)
    assert (agreement.pictures, agreement.same) == (4, agreement.boxes)
    assert FEWEST_BOXES <= agreement.boxes < 80
    assert agreement.is_within(EXACT)
    assert not agreement_in_all(many, [seen()] * 4, EXACT).is_within(EXACT)
    assert not agreement_in_all([], [], EXACT).is_within(EXACT)
