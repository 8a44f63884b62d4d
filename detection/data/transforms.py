"""What may happen to a training picture and its boxes: plain geometry and colour, all draws are arguments.

Ge et al., "YOLOX: Exceeding YOLO Series in 2021", https://arxiv.org/abs/2107.08430; the parameters are those
of the project's published recipes. Boxes are xyxy, pixels, float32, in the frame of the sample's picture.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from detection.images import Pixels
from detection.preprocess import resize_image

BoxArray = NDArray[np.float32]
"""[n, 4]."""
LabelArray = NDArray[np.int64]
"""[n]."""
Matrix = NDArray[np.float64]
"""[2, 3]: an affine map of points."""

AnyPixels = NDArray[Any]
"""Height, width, BGR, 0..255: `Pixels`, or float32 where colours went beyond that or between."""

HUES = 180
"""OpenCV halves the degrees so that they fit into a byte."""


def no_boxes() -> BoxArray:
    """Return an array of no boxes."""
    return np.zeros((0, 4), np.float32)


@dataclass(frozen=True, slots=True)
class Sample:
    """A picture with its boxes."""

    pixels: AnyPixels
    boxes: BoxArray
    labels: LabelArray
    crowds: BoxArray = field(default_factory=no_boxes)
    """Regions where objects are not labelled one by one. Only some families ask for them."""

    @property
    def size_wh(self) -> tuple[int, int]:
        return self.pixels.shape[1], self.pixels.shape[0]


def shifted_boxes(
    boxes: BoxArray, scale: tuple[float, float], shift: tuple[float, float], size_wh: tuple[int, int]
) -> BoxArray:
    """Return boxes scaled per axis, then shifted, then clipped to a picture of `size_wh`."""
    moved = boxes * np.array([*scale, *scale], np.float32) + np.array([*shift, *shift], np.float32)
    return clipped_boxes(moved, size_wh)


def clipped_boxes(boxes: BoxArray, size_wh: tuple[int, int]) -> BoxArray:
    """Move every edge into a picture of `size_wh`; a box outside of it becomes a line or a point."""
    return np.clip(boxes, np.float32(0), np.array([*size_wh, *size_wh], np.float32))


def mirrored(sample: Sample) -> Sample:
    """Exchange left and right."""
    boxes = sample.boxes.copy()
    boxes[:, 0::2] = sample.size_wh[0] - boxes[:, 2::-2]
    return replace(sample, pixels=np.asarray(cv2.flip(sample.pixels, 1), np.uint8), boxes=boxes)


def shifted_colours(pixels: Pixels, deltas: tuple[int, int, int]) -> Pixels:
    """Add to hue (modulo a full turn), saturation and value (both clipped).

    Args:
        deltas: in OpenCV's units: hue in steps of two degrees, the others of 255.
    """
    hue, saturation, value = deltas
    hsv = cv2.cvtColor(pixels, cv2.COLOR_BGR2HSV)
    levels = np.arange(256)
    tables = ((levels + hue) % HUES, np.clip(levels + saturation, 0, 255), np.clip(levels + value, 0, 255))
    shifted = cv2.LUT(hsv, np.stack(tables, axis=1).astype(np.uint8)[None])
    return np.asarray(cv2.cvtColor(shifted, cv2.COLOR_HSV2BGR), np.uint8)


def affine_matrix(
    *, degrees: float, scale: float, shear_degrees: tuple[float, float], shift: tuple[float, float]
) -> Matrix:
    """Return the map that rotates and scales about the origin, shears along x and y, and shifts.

    Args:
        degrees: counter-clockwise in the picture, as OpenCV counts.
        shift: in pixels.
    """
    turned = cv2.getRotationMatrix2D((0.0, 0.0), degrees, scale)
    shear_x, shear_y = (math.tan(math.radians(angle)) for angle in shear_degrees)
    matrix = np.empty((2, 3))
    matrix[0] = turned[0] + shear_y * turned[1]
    matrix[1] = turned[1] + shear_x * turned[0]
    matrix[:, 2] = shift
    return matrix


def warped(sample: Sample, matrix: Matrix, size_wh: tuple[int, int], *, pad_value: int) -> Sample:
    """Map a sample onto a canvas of another size; boxes become the hulls of their mapped corners, clipped."""
    pixels = cv2.warpAffine(sample.pixels, matrix, size_wh, borderValue=(pad_value, pad_value, pad_value))
    return replace(
        sample, pixels=np.asarray(pixels, np.uint8), boxes=warped_boxes(sample.boxes, matrix, size_wh)
    )


def warped_boxes(boxes: BoxArray, matrix: Matrix, size_wh: tuple[int, int]) -> BoxArray:
    """Return the upright hulls of mapped boxes, clipped to the canvas."""
    corners = boxes[:, [0, 1, 2, 3, 0, 3, 2, 1]].reshape(-1, 4, 2) @ matrix[:, :2].T + matrix[:, 2]
    hulls = np.concatenate([corners.min(axis=1), corners.max(axis=1)], axis=1)
    return clipped_boxes(hulls.astype(np.float32), size_wh)


def resized(sample: Sample, size_wh: tuple[int, int]) -> Sample:
    """Scale a sample to another size, each axis by itself."""
    scale = size_wh[0] / sample.size_wh[0], size_wh[1] / sample.size_wh[1]
    boxes = shifted_boxes(sample.boxes, scale, (0.0, 0.0), size_wh)
    return replace(sample, pixels=resize_image(sample.pixels, size_wh), boxes=boxes)


def placed(sample: Sample, corner: tuple[int, int], size_wh: tuple[int, int], *, pad_value: int) -> Sample:
    """Put a sample on a canvas; what reaches over its border is cut off.

    Args:
        corner: x and y on the canvas of the sample's top left.
    """
    canvas = np.full((size_wh[1], size_wh[0], 3), pad_value, np.uint8)
    paste(canvas, sample.pixels, corner)
    return replace(sample, pixels=canvas, boxes=shifted_boxes(sample.boxes, (1.0, 1.0), corner, size_wh))


def paste(canvas: Pixels, pixels: Pixels, corner: tuple[int, int]) -> None:
    """Copy what lies inside of the canvas, in place; `corner` is where the pixels' top left goes."""
    left, top = corner
    x1, y1 = max(left, 0), max(top, 0)
    x2, y2 = min(left + pixels.shape[1], canvas.shape[1]), min(top + pixels.shape[0], canvas.shape[0])
    if x1 < x2 and y1 < y2:
        canvas[y1:y2, x1:x2] = pixels[y1 - top : y2 - top, x1 - left : x2 - left]


def mixed(sample: Sample, partner: Sample, crop: tuple[int, int]) -> Sample:
    """Average a sample with another one and keep the boxes of both.

    Args:
        partner: of any size; missing pixels are black.
        crop: x and y in the partner of the part that is used.
    """
    behind = np.zeros_like(sample.pixels)
    corner = -crop[0], -crop[1]
    paste(behind, partner.pixels, corner)
    blended = cv2.addWeighted(sample.pixels, 0.5, behind, 0.5, 0.0)
    boxes = shifted_boxes(partner.boxes, (1.0, 1.0), corner, sample.size_wh)
    return Sample(
        np.asarray(blended, np.uint8),
        np.concatenate([sample.boxes, boxes]),
        np.concatenate([sample.labels, partner.labels]),
    )


def without_small_boxes(sample: Sample, *, min_side: float, max_boxes: int) -> Sample:
    """Drop boxes with a side of at most `min_side` pixels, and all after the first `max_boxes`."""
    sides = sample.boxes[:, 2:] - sample.boxes[:, :2]
    kept = np.flatnonzero((sides > min_side).all(axis=1))[:max_boxes]
    return replace(sample, boxes=sample.boxes[kept], labels=sample.labels[kept])
