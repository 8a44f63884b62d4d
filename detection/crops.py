"""What a classifier sees of a box: the published square around it, cut out of the whole picture.

side = longer side of the box * `enlarge` + `margin`, in pixels of the detector's input. The corners of the
square are truncated to whole pixels there, mapped to the picture, cut off at its border, truncated again.

Shape suffix: N = boxes.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from detection.images import Pixels
from detection.input_convention import YOLOX
from detection.model_record import CropRule
from detection.preprocess import Placement, placement_of

Squares = NDArray[np.float32]
"""[N, 3]: centre x, centre y and side, pixels of the detector's input."""
Regions = NDArray[np.int64]
"""[N, 4]: xyxy, whole pixels of the picture; what is empty has no width or no height."""


def squares_around(boxes_N4: NDArray[np.float32], rule: CropRule) -> Squares:
    """Return the squares around boxes (xyxy, pixels of the detector's input)."""
    centres_N2 = (boxes_N4[:, :2] + boxes_N4[:, 2:]) / 2
    longer_N = (boxes_N4[:, 2:] - boxes_N4[:, :2]).max(axis=1, initial=0.0)
    sides_N = longer_N * np.float32(rule.enlarge) + np.float32(rule.margin)
    return np.concatenate((centres_N2, sides_N[:, None]), axis=1).astype(np.float32)


def regions_of(squares_N3: Squares, placement: Placement, picture_size_wh: tuple[int, int]) -> Regions:
    """Return which pixels of a picture squares hold, given where the picture lies in the detector's input."""
    half_N1 = squares_N3[:, 2:] / 2
    corners_N4 = np.concatenate((squares_N3[:, :2] - half_N1, squares_N3[:, :2] + half_N1), axis=1)
    mapped_N4 = placement.to_picture(np.trunc(corners_N4))
    return np.clip(mapped_N4, 0, np.array([*picture_size_wh] * 2)).astype(np.int64)


def frame_of(picture_size_wh: tuple[int, int], rule: CropRule) -> Placement:
    """Return where a picture lies in the input of the detector that the rule assumes."""
    side = rule.detector_input_size
    return placement_of(picture_size_wh, (side, side), YOLOX)[0]


def touched_by(box_14: NDArray[np.float32], picture_size_wh: tuple[int, int]) -> Regions:
    """Return the pixels of a picture that a box in it touches, at least one.

    They stand for a labelled box that is so small, in so small a frame, that truncation leaves nothing of its
    square.
    """
    grown = box_14 + np.array([0, 0, 1, 1], np.float32)
    return np.clip(grown, 0, np.array([*picture_size_wh] * 2)).astype(np.int64)


def cut(pixels: Pixels, region: Sequence[int]) -> Pixels | None:
    """Return the pixels of a region of a whole picture, a view of them; None when there are none."""
    x1, y1, x2, y2 = region
    return pixels[y1:y2, x1:x2] if x1 < x2 and y1 < y2 else None
