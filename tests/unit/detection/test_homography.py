"""One matrix from a picture to the input: the original's numbers, and where its steps lead by themselves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from detection.data.homography import LONGEST_SIDE, homography, picture_to_target, projected, projected_boxes
from detection.data.transforms import BoxArray
from detection.preprocess import resize_image
from tests.npz import read_npz

SIZE_WH = 100, 60


@pytest.fixture(scope="module")
def numbers(golden: Path) -> dict[str, Any]:
    return read_npz(golden / "nanodet_preproc.npz")


def boxes(*rows: tuple[float, float, float, float]) -> BoxArray:
    return np.array(rows, np.float32).reshape(-1, 4)


def drawn(draws: np.ndarray, size_wh: tuple[int, int]) -> np.ndarray:
    """Return the map that the original makes of the numbers that it drew."""
    tilt_x, tilt_y, scale, wide, high, degrees, shear_x, shear_y, flip, centre_x, centre_y = map(float, draws)
    return homography(
        size_wh,
        tilt=(tilt_x, tilt_y),
        zoom=(scale * wide, scale * high),
        degrees=degrees,
        shear_degrees=(shear_x, shear_y),
        mirror=flip < 0.5,
        centre=(centre_x, centre_y),
    )


def centred_in(size_wh: tuple[int, int], target_wh: tuple[int, int]) -> np.ndarray:
    """Return how the original brings a picture to a target that has nearly its proportions."""
    scale = min(target / own for target, own in zip(target_wh, size_wh, strict=True))
    rest_x, rest_y = (target - scale * own for target, own in zip(target_wh, size_wh, strict=True))
    return np.array([[scale, 0, rest_x / 2], [0, scale, rest_y / 2], [0, 0, 1]])


def target_of(numbers: dict[str, Any], case: str, kind: str) -> tuple[int, int]:
    height, width = numbers[f"{case}_{kind}_img"].shape[:2]
    return width, height


@pytest.mark.parametrize("case", ["c0", "c1", "c2"])
@pytest.mark.parametrize("kind", ["plain", "aug"])
def test_matrix_picture_and_boxes_are_the_originals(numbers: dict[str, Any], case: str, kind: str) -> None:
    picture = numbers[f"{case}_img_bgr"]
    size_wh = picture.shape[1], picture.shape[0]
    target_wh = target_of(numbers, case, kind)
    keep_ratio = bool(numbers[f"{case}_keep_ratio"])
    matrix = (centred_in if keep_ratio else picture_to_target)(size_wh, target_wh)
    if kind == "aug":
        matrix = matrix @ drawn(numbers[f"{case}_aug_draws"], size_wh)
    np.testing.assert_allclose(matrix, numbers[f"{case}_{kind}_M"], atol=1e-9)
    half = np.array([[1, 0, 0.5], [0, 1, 0.5], [0, 0, 1]])
    of_cell_corners = half @ matrix @ np.linalg.inv(half)
    found = projected(picture, of_cell_corners, target_wh, picture_wh=size_wh)
    np.testing.assert_allclose(found, numbers[f"{case}_{kind}_img"], atol=1)
    moved = projected_boxes(numbers[f"{case}_boxes"], matrix, target_wh)
    np.testing.assert_allclose(moved, numbers[f"{case}_{kind}_boxes"], atol=1e-3)


def test_nothing_drawn_moves_nothing() -> None:
    np.testing.assert_allclose(homography(SIZE_WH), np.eye(3), atol=1e-12)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"zoom": (2.0, 0.5)}, (0, 25, 50, 35)),
        ({"mirror": True}, (50, 20, 75, 40)),
        ({"centre": (0.6, 0.4)}, (35, 14, 60, 34)),
        ({"degrees": 90.0}, (40, 30, 60, 55)),
        ({"shear_degrees": (45.0, 0.0)}, (15, 20, 60, 40)),
        ({"tilt": (0.01, 0.0)}, (50 - 25 / 0.75, 30 - 10 / 0.75, 50, 30 + 10 / 0.75)),
    ],
)
def test_each_step_turns_about_the_centre(options: dict[str, object], expected: tuple[float, ...]) -> None:
    found = projected_boxes(boxes((25, 20, 50, 40)), homography(SIZE_WH, **options), SIZE_WH)  # type: ignore[arg-type]
    np.testing.assert_allclose(found, [expected], atol=1e-4)


def test_boxes_are_clipped_to_the_target() -> None:
    found = projected_boxes(boxes((-10, 5, 50, 70), (90, 50, 130, 90)), np.eye(3), SIZE_WH)
    np.testing.assert_array_equal(found, [(0, 5, 50, 60), (90, 50, 100, 60)])
    assert projected_boxes(boxes(), np.eye(3), SIZE_WH).shape == (0, 4)


def test_a_reduced_copy_lies_where_the_picture_would() -> None:
    full = np.zeros((60, 100, 3), np.uint8)
    full[20:40, 40:80] = 200
    matrix = picture_to_target(SIZE_WH, (50, 30))
    whole = projected(full, matrix, (50, 30), picture_wh=SIZE_WH)
    reduced = projected(full[::2, ::2], matrix, (50, 30), picture_wh=SIZE_WH)
    np.testing.assert_array_equal(whole[12:18, 22:38], reduced[12:18, 22:38])
    assert (whole[12:18, 22:38] == 200).all()


@pytest.mark.parametrize("target_wh", [(50, 30), (100, 60), (37, 41), (25, 60)])
@pytest.mark.parametrize("mirror", [False, True])
def test_a_picture_lies_where_serving_puts_it(target_wh: tuple[int, int], mirror: bool) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (60, 100, 3), dtype=np.uint8)
    matrix = picture_to_target(SIZE_WH, target_wh) @ homography(SIZE_WH, mirror=mirror)
    found = projected(pixels, matrix, target_wh, picture_wh=SIZE_WH)
    served = resize_image(np.ascontiguousarray(pixels[:, ::-1] if mirror else pixels), target_wh)
    np.testing.assert_allclose(found, served, atol=2)


def test_a_strip_longer_than_opencv_warps_is_shortened_first() -> None:
    strip = np.full((2, LONGEST_SIDE + 2000, 3), 90, np.uint8)
    size_wh = strip.shape[1], strip.shape[0]
    matrix = picture_to_target(size_wh, (64, 64))
    found = projected(strip, matrix, (64, 64), picture_wh=size_wh)
    assert (found[20:44, 1:63] == 90).all()
