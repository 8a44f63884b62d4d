"""One matrix for all that may happen to the place of things in a picture, up to its way to the input.

RangiLyu, "NanoDet-Plus", https://github.com/RangiLyu/nanodet
"""

from __future__ import annotations

import math

import cv2
import numpy as np
from numpy.typing import NDArray

from detection.data.transforms import BoxArray, clipped_boxes
from detection.images import Pixels
from detection.preprocess import resize_image

Homography = NDArray[np.float64]
"""[3, 3]: a map of points (x, y, 1), whose result is divided by its last number."""
LONGEST_SIDE = 2**15 - 1
"""OpenCV warps no longer picture."""


def homography(
    size_wh: tuple[int, int],
    *,
    tilt: tuple[float, float] = (0.0, 0.0),
    zoom: tuple[float, float] = (1.0, 1.0),
    degrees: float = 0.0,
    shear_degrees: tuple[float, ...] = (0.0, 0.0),
    mirror: bool = False,
    centre: tuple[float, ...] = (0.5, 0.5),
) -> Homography:
    """Return the map of a picture's points that tilts, zooms, turns, shears, mirrors and then moves.

    All but the move is about the picture's centre.

    Args:
        tilt: change of the divisor per pixel from the centre, along x and y.
        zoom: along x and y.
        degrees: counter-clockwise in the picture, as OpenCV counts.
        shear_degrees: along x and y.
        centre: where the picture's centre goes, as fractions of its width and height.
    """
    width, height = size_wh
    to_origin = _moved(-width / 2, -height / 2)
    tilted = np.array([[1, 0, 0], [0, 1, 0], [*tilt, 1]], np.float64)
    zoomed = np.diag([*zoom, 1.0])
    turned = np.eye(3)
    turned[:2] = cv2.getRotationMatrix2D((0.0, 0.0), degrees, 1.0)
    shear_x, shear_y = (math.tan(math.radians(angle)) for angle in shear_degrees)
    sheared = np.array([[1, shear_x, 0], [shear_y, 1, 0], [0, 0, 1]], np.float64)
    mirrored = np.diag([-1.0 if mirror else 1.0, 1.0, 1.0])
    back = _moved(centre[0] * width, centre[1] * height)
    return np.asarray(back @ mirrored @ sheared @ turned @ zoomed @ tilted @ to_origin)


def picture_to_target(size_wh: tuple[int, int], target_wh: tuple[int, int]) -> Homography:
    """Return the map of a picture's points that fills a target, each axis by itself."""
    return np.diag([*(target / own for target, own in zip(target_wh, size_wh, strict=True)), 1.0])


def projected(
    pixels: Pixels, matrix: Homography, target_wh: tuple[int, int], *, picture_wh: tuple[int, int]
) -> NDArray[np.float32]:
    """Return a picture's pixels on a target, bilinearly, black where the picture does not reach.

    Differs from the reference: a pixel lies in the middle of its cell, as it does for boxes and in serving.
    The original maps the cells' corners, which moves a mirrored picture by one pixel against its boxes.

    Args:
        matrix: maps points of the picture, whose left and top edges are at 0.
        picture_wh: of the full picture, of which `pixels` may be a reduced copy.
    """
    height, width = pixels.shape[:2]
    if max(width, height) > LONGEST_SIDE:
        pixels = resize_image(pixels, (min(width, LONGEST_SIDE), min(height, LONGEST_SIDE)))
        height, width = pixels.shape[:2]
    from_pixels = np.diag([picture_wh[0] / width, picture_wh[1] / height, 1.0])
    of_pixels = _moved(-0.5, -0.5) @ matrix @ from_pixels @ _moved(0.5, 0.5)
    return cv2.warpPerspective(pixels, of_pixels, target_wh).astype(np.float32)


def projected_boxes(boxes: BoxArray, matrix: Homography, target_wh: tuple[int, int]) -> BoxArray:
    """Return the upright hulls of mapped boxes, clipped to the target."""
    corners = boxes[:, [0, 1, 2, 3, 0, 3, 2, 1]].reshape(-1, 4, 2).astype(np.float64)
    mapped = corners @ matrix[:, :2].T + matrix[:, 2]
    points = mapped[..., :2] / mapped[..., 2:]
    hulls = np.concatenate([points.min(axis=1), points.max(axis=1)], axis=1)
    return clipped_boxes(hulls.astype(np.float32), target_wh)


def _moved(x: float, y: float) -> Homography:
    matrix = np.eye(3)
    matrix[:2, 2] = x, y
    return matrix
