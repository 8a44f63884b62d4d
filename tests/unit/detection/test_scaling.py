"""Inputs made smaller or larger: the original's numbers, and a slow implementation that is plain to see."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from detection.inference.scaling import scale_img, scaled_size_hw
from tests.npz import read_npz

PADDING_OF_ORIGINAL = 0.447


def check_cases(path: Path) -> int:
    numbers = read_npz(path)
    cases = sorted({name.partition("_")[0] for name in numbers})
    for case in cases:
        images = torch.from_numpy(numbers[f"{case}_x"])
        ratio, multiple = float(numbers[f"{case}_ratio"]), int(numbers[f"{case}_gs"])
        same_shape = bool(numbers[f"{case}_same_shape"])
        expected = torch.from_numpy(numbers[f"{case}_y"])
        scaled = scale_img(
            images, ratio, same_shape=same_shape, multiple=multiple, pad_value=PADDING_OF_ORIGINAL
        )
        torch.testing.assert_close(scaled, expected, rtol=0, atol=1e-5)
        size_hw = tuple(images.shape[2:])
        if ratio != 1:
            said = scaled_size_hw(size_hw, ratio, same_shape=same_shape, multiple=multiple)
            assert said == tuple(expected.shape[2:])
    return len(cases)


def test_golden_numbers(golden: Path) -> None:
    assert check_cases(golden / "scale_img.npz") == 2


def test_all_golden_numbers(reference: Path) -> None:
    assert check_cases(reference / "golden" / "scale_img.npz") == 7


def resized_slowly(image_HW: Tensor, height: int, width: int) -> Tensor:
    """Bilinear, pixel by pixel: centres of pixels lie at halves, and beyond the border is the border."""
    rows, columns = image_HW.shape
    result = torch.empty(height, width)
    for y in range(height):
        for x in range(width):
            at_y = min(max((y + 0.5) * rows / height - 0.5, 0.0), rows - 1.0)
            at_x = min(max((x + 0.5) * columns / width - 0.5, 0.0), columns - 1.0)
            top, left = int(at_y), int(at_x)
            bottom, right = min(top + 1, rows - 1), min(left + 1, columns - 1)
            down, along = at_y - top, at_x - left
            upper = image_HW[top, left] * (1 - along) + image_HW[top, right] * along
            lower = image_HW[bottom, left] * (1 - along) + image_HW[bottom, right] * along
            result[y, x] = upper * (1 - down) + lower * down
    return result


@pytest.mark.parametrize(("ratio", "size_hw"), [(0.67, (16, 16)), (1.5, (24, 32))])
def test_it_agrees_with_a_slow_obvious_resize(ratio: float, size_hw: tuple[int, int]) -> None:
    image = torch.rand(1, 2, 14, 20, generator=torch.Generator().manual_seed(0))
    scaled = scale_img(image, ratio, multiple=8, pad_value=(-1.0, 3.0))
    assert scaled.shape == (1, 2, *size_hw)
    height, width = int(14 * ratio), int(20 * ratio)
    for channel, padding in enumerate((-1.0, 3.0)):
        expected = torch.full(size_hw, padding)
        expected[:height, :width] = resized_slowly(image[0, channel], height, width)
        torch.testing.assert_close(scaled[0, channel], expected, rtol=0, atol=1e-5)


def test_the_same_shape_is_padded_when_smaller_and_cropped_when_larger() -> None:
    image = torch.ones(1, 3, 10, 10)
    smaller = scale_img(image, 0.5, same_shape=True, pad_value=7.0)
    assert smaller[0, 0].sum() == 25 + 75 * 7
    assert torch.equal(scale_img(image, 2.0, same_shape=True, pad_value=7.0), image)


def test_the_ratio_of_one_leaves_the_very_images() -> None:
    image = torch.ones(1, 3, 33, 47)
    assert scale_img(image, 1.0, multiple=32) is image


def test_a_ratio_that_leaves_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match=r"nothing is left of 10 x 10 pixels at the ratio 0\.05"):
        scale_img(torch.ones(1, 3, 10, 10), 0.05)


def test_what_fills_the_rest_can_be_said_for_every_channel() -> None:
    scaled = scale_img(torch.zeros(1, 3, 32, 32), 0.5, same_shape=True, pad_value=(1.0, 2.0, 3.0))
    np.testing.assert_array_equal(scaled[0, :, -1, -1].numpy(), [1, 2, 3])
