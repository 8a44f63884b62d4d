"""From a decoded picture to the network's input, and boxes there and back.

Letterbox: Ge et al., "YOLOX: Exceeding YOLO Series in 2021", https://arxiv.org/abs/2107.08430
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray

from detection.images import Pixels
from detection.input_convention import ChannelOrder, InputConvention, Resize

if TYPE_CHECKING:
    from torch import Tensor

Boxes = TypeVar("Boxes", NDArray[np.float32], NDArray[np.float64], "Tensor")
"""[N, 4], xyxy, pixels: a NumPy array or a torch tensor; functions return what they were given."""


_STEP = {ChannelOrder.BGR: 1, ChannelOrder.RGB: -1}
"""Through the channels of a decoded picture, which are BGR."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    """Where a picture lies in the network's input: input = picture * scale + offset, per axis, pixels."""

    scale_x: float
    scale_y: float
    offset_x: float = 0.0
    offset_y: float = 0.0

    def to_input(self, boxes: Boxes) -> Boxes:
        """Map xyxy boxes [N, 4] from the picture to the input; nothing is clipped."""
        mapped = boxes * 1.0
        mapped[:, 0::2] *= self.scale_x
        mapped[:, 1::2] *= self.scale_y
        mapped[:, 0::2] += self.offset_x
        mapped[:, 1::2] += self.offset_y
        return mapped

    def to_picture(self, boxes: Boxes) -> Boxes:
        """Map xyxy boxes [N, 4] from the input to the picture; nothing is clipped."""
        mapped = boxes * 1.0
        mapped[:, 0::2] -= self.offset_x
        mapped[:, 1::2] -= self.offset_y
        # A network that has hardly learnt gives boxes of any size; one becomes infinite here, and is clipped.
        with np.errstate(over="ignore"):
            mapped[:, 0::2] /= self.scale_x
            mapped[:, 1::2] /= self.scale_y
        return mapped


@dataclass(frozen=True, slots=True)
class FittedImage:
    """One picture, ready for the network."""

    tensor: NDArray[np.float32]
    """Channels in the convention's order, height, width."""
    placement: Placement


def fit_image(
    pixels_bgr: Pixels,
    input_size_hw: tuple[int, int],
    convention: InputConvention,
    *,
    picture_size_wh: tuple[int, int] | None = None,
    out: NDArray[np.float32] | None = None,
) -> FittedImage:
    """Resize, pad and normalise a picture the way that a model was trained with.

    Args:
        pixels_bgr: height, width, BGR.
        input_size_hw: height and width of the network's input.
        convention: of the model.
        picture_size_wh: width and height of the full picture when `pixels_bgr` was reduced while decoding;
            the placement maps to the full picture.
        out: where the result is written, [3, height, width]; None is a new array.
    """
    height, width = pixels_bgr.shape[:2]
    placement, fitted_wh = placement_of(picture_size_wh or (width, height), input_size_hw, convention)
    tensor = np.empty((3, *input_size_hw), np.float32) if out is None else out
    resized = resize_image(pixels_bgr, fitted_wh)
    left, top = int(placement.offset_x), int(placement.offset_y)
    right, bottom = left + fitted_wh[0], top + fitted_wh[1]
    inside = tensor[:, top:bottom, left:right]
    planes = cv2.split(resized)
    for target, plane in zip(inside, planes[:: _STEP[convention.order]], strict=True):
        np.copyto(target, plane)
    _normalise(inside, convention)
    if inside.shape != tensor.shape:
        padding = np.full((3, 1, 1), round(convention.pad_value), np.float32)
        _normalise(padding, convention)
        for border in (
            tensor[:, :top],
            tensor[:, bottom:],
            tensor[:, top:bottom, :left],
            tensor[:, top:bottom, right:],
        ):
            border[:] = padding
    return FittedImage(tensor, placement)


def _normalise(tensor_CHW: NDArray[np.float32], convention: InputConvention) -> None:
    if convention.scale != 1.0:
        tensor_CHW *= np.float32(convention.scale)
    if any(convention.mean):
        tensor_CHW -= np.array(convention.mean, np.float32)[:, None, None]
    if convention.std != (1.0, 1.0, 1.0):
        tensor_CHW /= np.array(convention.std, np.float32)[:, None, None]


def place_image(
    pixels: Pixels,
    input_size_hw: tuple[int, int],
    convention: InputConvention,
    *,
    picture_size_wh: tuple[int, int] | None = None,
) -> tuple[Pixels, Placement]:
    """Resize and pad only: return the picture on a canvas of the input's size, still 8-bit BGR."""
    height, width = pixels.shape[:2]
    placement, fitted_wh = placement_of(picture_size_wh or (width, height), input_size_hw, convention)
    resized = resize_image(pixels, fitted_wh)
    if fitted_wh == (input_size_hw[1], input_size_hw[0]):
        return resized, placement
    canvas = np.full((*input_size_hw, 3), round(convention.pad_value), np.uint8)
    left, top = int(placement.offset_x), int(placement.offset_y)
    canvas[top : top + fitted_wh[1], left : left + fitted_wh[0]] = resized
    return canvas, placement


def placement_of(
    picture_size_wh: tuple[int, int], input_size_hw: tuple[int, int], convention: InputConvention
) -> tuple[Placement, tuple[int, int]]:
    """Return where a picture goes, and the width and height that it is resized to."""
    width, height = picture_size_wh
    input_height, input_width = input_size_hw
    if convention.resize is Resize.STRETCH:
        return Placement(scale_x=input_width / width, scale_y=input_height / height), (
            input_width,
            input_height,
        )
    scale = min(input_height / height, input_width / width)
    fitted_width, fitted_height = max(int(width * scale), 1), max(int(height * scale), 1)
    centred = convention.resize is Resize.LETTERBOX_CENTRE
    placement = Placement(
        scale_x=scale,
        scale_y=scale,
        offset_x=(input_width - fitted_width) // 2 if centred else 0,
        offset_y=(input_height - fitted_height) // 2 if centred else 0,
    )
    return placement, (fitted_width, fitted_height)


def resize_image(pixels: Pixels, size_wh: tuple[int, int]) -> Pixels:
    """Resize bilinearly, as the original project does; the very picture when it has that size."""
    if (pixels.shape[1], pixels.shape[0]) == size_wh:
        return pixels
    return np.asarray(cv2.resize(pixels, size_wh, interpolation=cv2.INTER_LINEAR), np.uint8)
