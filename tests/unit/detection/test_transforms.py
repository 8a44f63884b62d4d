"""Geometry and colour of training pictures: the original's numbers, and properties that must hold."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from detection.data.transforms import (
    Sample,
    affine_matrix,
    mirrored,
    mixed,
    placed,
    resized,
    shifted_boxes,
    shifted_colours,
    warped,
    warped_boxes,
    without_small_boxes,
)
from tests import pictures

IDENTITY = np.array([[1.0, 0, 0], [0, 1, 0]])


@pytest.fixture(scope="module")
def numbers(golden: Path) -> Any:
    return np.load(golden / "yolox_preproc_aug.npz")


def sample(width: int = 40, height: int = 20, boxes: object = ((4, 2, 20, 10), (30, 5, 40, 20))) -> Sample:
    array = np.array(boxes, np.float32).reshape(-1, 4)
    return Sample(pictures.quadrants(width, height), array, np.arange(len(array)))


def test_mirror_equals_the_original(numbers: Any) -> None:
    result = mirrored(Sample(numbers["mirror_img"], numbers["mirror_boxes_xyxy"], np.arange(6)))

    np.testing.assert_array_equal(result.pixels, numbers["mirror_out_img"])
    np.testing.assert_allclose(result.boxes, numbers["mirror_out_boxes"], atol=1e-4)


def test_mirror_twice_is_nothing() -> None:
    once = sample()
    twice = mirrored(mirrored(once))

    np.testing.assert_array_equal(twice.pixels, once.pixels)
    np.testing.assert_array_equal(twice.boxes, once.boxes)


@pytest.mark.parametrize("case", range(3))
def test_colour_shift_equals_the_original(numbers: Any, case: int) -> None:
    hue, saturation, value = (int(delta) for delta in numbers[f"hsv{case}_delta_hsv_int"])

    result = shifted_colours(numbers[f"hsv{case}_img_bgr"], (hue, saturation, value))

    assert np.abs(result.astype(int) - numbers[f"hsv{case}_out"]).max() <= 2


def test_colour_shift_wraps_hue_and_clips_the_rest() -> None:
    red = np.array([[[0, 0, 255]]], np.uint8)

    assert shifted_colours(red, (60, 0, 0)).tolist() == [[[0, 255, 0]]]
    assert shifted_colours(red, (-60, 0, 0)).tolist() == [[[255, 0, 0]]]
    assert shifted_colours(red, (0, 0, -255)).tolist() == [[[0, 0, 0]]]
    assert shifted_colours(red, (0, 99, 99)).tolist() == red.tolist()


@pytest.mark.parametrize("case", range(3))
def test_affine_matrix_equals_the_original(numbers: Any, case: int) -> None:
    degrees, scale, shear_x, shear_y, x, y = numbers[f"affine{case}_angle_scale_shearx_sheary_tx_ty"]
    width, height = numbers[f"affine{case}_size_wh"]

    matrix = affine_matrix(
        degrees=degrees, scale=scale, shear_degrees=(shear_x, shear_y), shift=(x * width, y * height)
    )

    np.testing.assert_allclose(matrix, numbers[f"affine{case}_M"], atol=1e-9)


@pytest.mark.parametrize("case", range(3))
def test_affine_boxes_equal_the_original(numbers: Any, case: int) -> None:
    width, height = (int(side) for side in numbers[f"affine{case}_size_wh"])
    boxes = numbers[f"affine{case}_targets_xyxyc"][:, :4].astype(np.float32)

    result = warped_boxes(boxes, numbers[f"affine{case}_M"], (width, height))

    np.testing.assert_allclose(result, numbers[f"affine{case}_out"][:, :4], atol=1e-4)


def test_scale_shift_and_clip_equal_the_original(numbers: Any) -> None:
    ratio, x, y, width, height = numbers["adjust_ratio_padw_padh_wmax_hmax"]

    result = shifted_boxes(numbers["adjust_in"], (ratio, ratio), (x, y), (int(width), int(height)))

    np.testing.assert_allclose(result, numbers["adjust_out"], atol=1e-4)


def test_warp_by_nothing_is_nothing() -> None:
    before = sample()

    after = warped(before, IDENTITY, (40, 20), pad_value=114)

    np.testing.assert_array_equal(after.pixels, before.pixels)
    np.testing.assert_array_equal(after.boxes, before.boxes)


def test_warp_moves_pixels_and_boxes_alike() -> None:
    pixels = np.zeros((64, 64, 3), np.uint8)
    pixels[20:30, 10:40] = 255
    before = Sample(pixels, np.array([[10, 20, 40, 30]], np.float32), np.zeros(1, np.int64))
    matrix = affine_matrix(degrees=10, scale=1.2, shear_degrees=(2, -2), shift=(3, 12))

    after = warped(before, matrix, (96, 96), pad_value=0)

    rows, columns = np.nonzero(after.pixels[:, :, 0] > 64)
    hull = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
    np.testing.assert_allclose(after.boxes[0], hull, atol=1.5)


def test_warp_fills_with_the_pad_value() -> None:
    after = warped(sample(), np.array([[1.0, 0, 100], [0, 1, 100]]), (50, 50), pad_value=114)

    assert (after.pixels == 114).all()
    assert (after.boxes == 50).all()


def test_no_boxes_survive_everything() -> None:
    empty = sample(boxes=())
    for result in (
        mirrored(empty),
        resized(empty, (10, 10)),
        placed(empty, (3, 3), (64, 64), pad_value=114),
        warped(empty, IDENTITY, (9, 9), pad_value=114),
        mixed(empty, empty, (0, 0)),
        without_small_boxes(empty, min_side=1, max_boxes=120),
    ):
        assert result.boxes.shape == (0, 4)
        assert result.boxes.dtype == np.float32
        assert result.labels.shape == (0,)


def test_resize_scales_each_axis() -> None:
    result = resized(sample(), (80, 60))

    assert result.size_wh == (80, 60)
    np.testing.assert_array_equal(result.boxes[0], [8, 6, 40, 30])


@pytest.mark.parametrize(
    ("corner", "box"), [((5, 7), [9, 9, 25, 17]), ((-6, -4), [0, 0, 14, 6]), ((60, 60), [64, 62, 64, 64])]
)
def test_place_shifts_and_cuts(corner: tuple[int, int], box: list[float]) -> None:
    result = placed(sample(), corner, (64, 64), pad_value=114)

    np.testing.assert_array_equal(result.boxes[0], box)
    x, y = corner
    inside = result.pixels[max(y, 0) : y + 20, max(x, 0) : x + 40]
    expected = pictures.quadrants(40, 20)[max(-y, 0) :, max(-x, 0) :][: inside.shape[0], : inside.shape[1]]
    np.testing.assert_array_equal(inside, expected)
    assert (result.pixels == 114).all(axis=2).sum() == 64 * 64 - inside.shape[0] * inside.shape[1]


def test_mix_averages_and_unites() -> None:
    bright = Sample(np.full((20, 40, 3), 200, np.uint8), *_one_box((1, 1, 9, 9)))
    partner = Sample(np.full((30, 30, 3), 100, np.uint8), *_one_box((12, 12, 28, 28)))

    result = mixed(bright, partner, (0, 10))

    assert result.pixels[5, 5].tolist() == [150] * 3
    assert result.pixels[5, 35].tolist() == [100] * 3, "missing pixels of the partner are black"
    np.testing.assert_array_equal(result.boxes, [[1, 1, 9, 9], [12, 2, 28, 18]])
    assert len(result.labels) == 2


def _one_box(box: tuple[float, ...]) -> tuple[Any, Any]:
    return np.array([box], np.float32), np.zeros(1, np.int64)


def test_small_boxes_go_and_no_more_than_allowed_stay() -> None:
    boxes = [(0, 0, 1, 9), (0, 0, 9, 1), (0, 0, 1.01, 1.01), *[(0, 0, n + 2, 5) for n in range(5)]]

    result = without_small_boxes(sample(boxes=boxes), min_side=1, max_boxes=4)

    assert result.labels.tolist() == [2, 3, 4, 5]
