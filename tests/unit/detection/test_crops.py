"""What a classifier sees of a box, against the original program and by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from detection.crops import cut, frame_of, regions_of, squares_around, touched_by
from detection.inference.second_stage import Classification, agreeing
from detection.input_convention import ChannelOrder, InputConvention, Resize
from detection.model_record import PUBLISHED_CROP, CropRule
from detection.preprocess import Placement, fit_image, placement_of
from tests.npz import read_npz

PARITY = InputConvention(order=ChannelOrder.RGB, scale=1 / 255, resize=Resize.STRETCH)
"""The original only divides by 255."""
CENTRED = InputConvention(resize=Resize.LETTERBOX_CENTRE)
ONE_TO_ONE = Placement(scale_x=1.0, scale_y=1.0)


def crops_are_the_original_ones(given: dict[str, Any]) -> None:
    pixels, boxes_N4 = given["img_bgr"], given["dets_xyxy_conf_cls"][:, :4]
    size_wh = pixels.shape[1], pixels.shape[0]
    placement, _ = placement_of(size_wh, tuple(given["net_input_hw"].tolist()), CENTRED)
    regions = regions_of(squares_around(boxes_N4, PUBLISHED_CROP), placement, size_wh)
    assert len(regions) == len(boxes_N4)
    for region, expected in zip(regions.tolist(), given["crops_rgb_01"], strict=False):
        crop = cut(pixels, region)
        assert crop is not None
        fitted = fit_image(crop, (224, 224), PARITY).tensor
        assert np.abs(fitted * 255 - expected).max() <= 1


def kept_rows_are_the_original_ones(given: dict[str, Any]) -> None:
    rows = given["dets_xyxy_conf_cls"]
    said = [Classification(int(class_id), 1.0) for class_id in given["classifier_argmax"]]
    kept = agreeing(rows[:, 5].astype(int).tolist(), said)
    assert np.array_equal(rows[kept], given["kept"])


def test_golden_crops_and_rows(golden: Path) -> None:
    given = read_npz(golden / "second_stage_classifier.npz")
    crops_are_the_original_ones(given)
    kept_rows_are_the_original_ones(given)


@pytest.mark.reference
def test_all_golden_crops(reference: Path) -> None:
    given = read_npz(reference / "golden" / "second_stage_classifier.npz")
    assert len(given["crops_rgb_01"]) == 3
    crops_are_the_original_ones(given)
    kept_rows_are_the_original_ones(given)


def test_a_square_by_hand() -> None:
    """A box of 40 x 20 around (100, 60): a side of 40 * 1.3 + 30 = 82, from (59, 19) to (141, 101)."""
    squares = squares_around(np.array([[80, 50, 120, 70]], np.float32), PUBLISHED_CROP)
    assert squares.tolist() == [[100, 60, 82]]
    assert regions_of(squares, ONE_TO_ONE, (640, 480)).tolist() == [[59, 19, 141, 101]]


def test_corners_are_truncated_before_and_after_the_way_to_the_picture() -> None:
    squares = np.array([[50.2, 50.2, 81.0]], np.float32)  # from 9.7 to 90.7: 9 to 90, then halved
    halved = Placement(scale_x=2.0, scale_y=2.0)
    assert regions_of(squares, halved, (640, 480)).tolist() == [[4, 4, 45, 45]]


def test_what_reaches_over_the_border_is_cut_off() -> None:
    squares = np.array([[5, 5, 40], [630, 470, 40], [900, 900, 40]], np.float32)
    regions = regions_of(squares, ONE_TO_ONE, (640, 480)).tolist()
    assert regions == [[0, 0, 25, 25], [610, 450, 640, 480], [640, 480, 640, 480]]
    pixels = np.zeros((480, 640, 3), np.uint8)
    shapes = [None if crop is None else crop.shape for crop in (cut(pixels, each) for each in regions)]
    assert shapes == [(25, 25, 3), (30, 30, 3), None]


def test_the_margin_counts_in_the_input_of_the_detector() -> None:
    """At 640, a picture of 1280 is halved: 30 pixels there are 60 of the picture."""
    frame = frame_of((1280, 960), PUBLISHED_CROP)
    box = np.array([[600, 400, 700, 500]], np.float32)
    squares = squares_around(frame.to_input(box), PUBLISHED_CROP)
    assert squares.tolist() == [[325, 225, 95]]
    assert regions_of(squares, frame, (1280, 960)).tolist() == [[554, 354, 744, 544]]


def test_the_rule_may_be_another() -> None:
    box = np.array([[10, 10, 20, 30]], np.float32)
    assert squares_around(box, CropRule(enlarge=1.0, margin=0.0)).tolist() == [[15, 20, 20]]


def test_no_boxes_have_no_squares() -> None:
    squares = squares_around(np.zeros((0, 4), np.float32), PUBLISHED_CROP)
    assert squares.shape == (0, 3)
    assert regions_of(squares, ONE_TO_ONE, (8, 8)).shape == (0, 4)


@pytest.mark.parametrize("box", [(0, 0, 0.1, 0.1), (7.9, 7.9, 8, 8), (3.2, 3.4, 3.3, 5.1)])
def test_a_tiny_box_touches_at_least_a_pixel(box: tuple[float, ...]) -> None:
    x1, y1, x2, y2 = touched_by(np.array([box], np.float32), (8, 8))[0].tolist()
    assert 0 <= x1 < x2 <= 8
    assert 0 <= y1 < y2 <= 8
