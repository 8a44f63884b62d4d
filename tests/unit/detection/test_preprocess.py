"""A picture reaches the network as the model's convention says, and boxes find the way back."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from detection.images import decode_image
from detection.input_convention import (
    NANODET_KEEP_RATIO,
    NANODET_STRETCH,
    YOLOX,
    YOLOX_LEGACY,
    ChannelOrder,
    InputConvention,
    Resize,
)
from detection.preprocess import Placement, fit_image, place_image
from tests import pictures
from tests.npz import read_npz

BOXES = np.array([[0, 0, 10, 20], [3.5, 4.25, 99, 70]], np.float32)


@pytest.mark.parametrize("case", range(3))
def test_letterbox_equals_the_original(golden: Path, case: int) -> None:
    numbers = np.load(golden / "yolox_preproc_aug.npz")
    height, width = numbers[f"letterbox{case}_target_hw"]

    fitted = fit_image(numbers[f"letterbox{case}_img_bgr"], (int(height), int(width)), YOLOX)

    np.testing.assert_allclose(fitted.tensor, numbers[f"letterbox{case}_out_chw"], atol=1)
    assert fitted.tensor.dtype == np.float32
    assert fitted.placement == Placement(
        scale_x=numbers[f"letterbox{case}_ratio"], scale_y=numbers[f"letterbox{case}_ratio"]
    )


def test_letterbox_fills_the_rest_with_grey() -> None:
    tensor = fit_image(pictures.quadrants(40, 20), (64, 64), YOLOX).tensor

    assert tensor.shape == (3, 64, 64)
    assert (tensor[:, 32:] == 114).all()
    assert tensor[:, 0, 0].tolist() == list(pictures.QUADRANTS[0])


def test_centred_letterbox_puts_half_of_the_rest_before() -> None:
    convention = InputConvention(resize=Resize.LETTERBOX_CENTRE, pad_value=128)

    fitted = fit_image(pictures.quadrants(40, 20), (64, 64), convention)

    assert fitted.placement == Placement(scale_x=1.6, scale_y=1.6, offset_x=0, offset_y=16)
    assert (fitted.tensor[:, :16] == 128).all()
    assert (fitted.tensor[:, 48:] == 128).all()


def test_stretch_scales_each_axis() -> None:
    convention = InputConvention(resize=Resize.STRETCH)

    fitted = fit_image(pictures.quadrants(40, 20), (60, 80), convention)

    assert fitted.placement == Placement(scale_x=2, scale_y=3)
    assert fitted.tensor[:, -1, -1].tolist() == list(pictures.QUADRANTS[3])


def test_legacy_convention_is_rgb_with_mean_and_std() -> None:
    blue = np.zeros((32, 32, 3), np.uint8)
    blue[:, :, 0] = 255

    tensor = fit_image(blue, (32, 32), YOLOX_LEGACY).tensor

    expected = [
        (value - mean) / std
        for value, mean, std in zip((0, 0, 1), YOLOX_LEGACY.mean, YOLOX_LEGACY.std, strict=True)
    ]
    np.testing.assert_allclose(tensor[:, 5, 5], expected, rtol=1e-6)


@pytest.mark.reference
def test_nanodet_normalises_and_places_as_the_original(reference: Path) -> None:
    """The original resamples from corner to corner, so the pixels themselves are not compared."""
    numbers = read_npz(reference / "golden" / "nanodet_preproc.npz")
    cases = [name.removesuffix("_keep_ratio") for name in numbers if name.endswith("_keep_ratio")]
    stretched = [case for case in cases if not numbers[f"{case}_keep_ratio"]]
    assert stretched
    for case in cases:
        picture = numbers[f"{case}_img_bgr"]
        tensor = fit_image(picture, picture.shape[:2], NANODET_STRETCH).tensor
        np.testing.assert_allclose(tensor.transpose(1, 2, 0), numbers[f"{case}_normalised"], atol=1e-4)
    for case in stretched:
        width, height = numbers[f"{case}_dst_wh"].tolist()
        placement = fit_image(numbers[f"{case}_img_bgr"], (height, width), NANODET_STRETCH).placement
        matrix = np.diag([placement.scale_x, placement.scale_y, 1.0])
        np.testing.assert_allclose(matrix, numbers[f"{case}_plain_M"], atol=1e-9)
        boxes = placement.to_input(numbers[f"{case}_boxes"])
        np.testing.assert_allclose(
            boxes.clip(0, [width, height] * 2), numbers[f"{case}_plain_boxes"], atol=1e-3
        )


def test_a_picture_that_keeps_its_ratio_is_padded_with_about_nothing() -> None:
    tensor = fit_image(pictures.quadrants(40, 20), (64, 64), NANODET_KEEP_RATIO).tensor

    assert np.abs(tensor[:, 32:]).max() < 0.2
    assert np.abs(tensor[:, :32]).max() > 1


def test_mean_and_std_follow_the_channel_order() -> None:
    picture = pictures.noise(32, 32)
    bgr = InputConvention(mean=(1, 2, 3), std=(4, 5, 6))
    rgb = InputConvention(order=ChannelOrder.RGB, mean=(3, 2, 1), std=(6, 5, 4))

    np.testing.assert_array_equal(
        fit_image(picture, (32, 32), bgr).tensor, fit_image(picture, (32, 32), rgb).tensor[::-1]
    )


@pytest.mark.parametrize("resize", Resize)
@pytest.mark.parametrize("size_wh", [(640, 480), (33, 47), (1, 1), (1, 2000)])
def test_boxes_return_to_the_picture(resize: Resize, size_wh: tuple[int, int]) -> None:
    _, placement = place_image(pictures.noise(*size_wh), (96, 160), InputConvention(resize=resize))

    there = placement.to_input(BOXES)
    tensors = placement.to_input(torch.from_numpy(BOXES))

    np.testing.assert_allclose(placement.to_picture(there), BOXES, rtol=1e-5, atol=1e-3)
    np.testing.assert_allclose(tensors.numpy(), there, rtol=1e-6)
    assert BOXES[0, 3] == 20, "the argument must stay as it was"
    assert placement.to_picture(BOXES[:0]).shape == (0, 4)


@pytest.mark.parametrize("convention", [YOLOX, InputConvention(resize=Resize.LETTERBOX_CENTRE)])
def test_reduced_pixels_are_placed_like_the_full_picture(convention: InputConvention) -> None:
    data = pictures.jpeg(pictures.quadrants(1201, 803))
    full = decode_image(data)
    reduced = decode_image(data, input_size_hw=(128, 128))
    assert reduced.pixels.shape[1] < 1201

    by_full = fit_image(full.pixels, (128, 128), convention)
    by_reduced = fit_image(reduced.pixels, (128, 128), convention, picture_size_wh=reduced.size_wh)

    assert by_full.placement == by_reduced.placement
    assert np.abs(by_full.tensor - by_reduced.tensor).mean() < 2


@pytest.mark.parametrize(
    "convention",
    [
        YOLOX,
        YOLOX_LEGACY,
        NANODET_STRETCH,
        NANODET_KEEP_RATIO,
        InputConvention(order=ChannelOrder.RGB, resize=Resize.LETTERBOX_CENTRE, mean=(1.5, 2.5, 3.5)),
    ],
)
@pytest.mark.parametrize("size_wh", [(70, 30), (30, 70), (64, 48), (3, 500)])
def test_writing_into_a_used_buffer_gives_what_placing_and_then_normalising_gives(
    convention: InputConvention, size_wh: tuple[int, int]
) -> None:
    pixels = pictures.noise(*size_wh)
    placed, placement = place_image(pixels, (48, 64), convention)
    step = -1 if convention.order is ChannelOrder.RGB else 1
    plain = placed[:, :, ::step].transpose(2, 0, 1).astype(np.float32) * np.float32(convention.scale)
    plain -= np.array(convention.mean, np.float32)[:, None, None]
    plain /= np.array(convention.std, np.float32)[:, None, None]

    used = np.full((3, 48, 64), np.nan, np.float32)
    fitted = fit_image(pixels, (48, 64), convention, out=used)

    assert fitted.tensor is used
    assert fitted.placement == placement
    np.testing.assert_array_equal(fitted.tensor, plain)
    np.testing.assert_array_equal(fit_image(pixels, (48, 64), convention).tensor, plain)


def test_a_box_too_large_for_a_number_becomes_infinite_in_silence() -> None:
    """After a few steps from random weights a network may give a box any size; answers are clipped."""
    huge = np.array([[-3e38, -3e38, 3e38, 3e38]], np.float32)
    mapped = Placement(scale_x=0.5, scale_y=0.5).to_picture(huge)
    np.testing.assert_array_equal(mapped, [[-np.inf, -np.inf, np.inf, np.inf]])
