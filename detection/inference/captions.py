"""Where the captions of boxes go: at their own box, and where room is not upon each other.

Axis suffixes: N = boxes, C = places that a caption may take. Rectangles are x1, y1, x2, y2, whole pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Rectangle = tuple[int, int, int, int]
Rectangles = NDArray[np.int64]

SLIDES = (0.0, 1.0, 0.5)
"""Where along an edge of its box a caption may lie: at its left end, its right end, in the middle."""


def place_captions(
    boxes: Sequence[Rectangle], sizes_wh: Sequence[tuple[int, int]], *, picture_wh: tuple[int, int]
) -> tuple[list[Rectangle], bool]:
    """Return a place for each caption, and whether none covers another.

    The first to come chooses first: above its box, else inside it along an edge, else below, else beside it.
    One that finds no free place takes that where it covers least.

    Args:
        sizes_wh: of each caption.
        picture_wh: no caption leaves the picture, unless it is larger.
    """
    placed_N4 = np.empty((len(boxes), 4), np.int64)
    all_free = True
    for number, (box, size_wh) in enumerate(zip(boxes, sizes_wh, strict=True)):
        places_C4 = _places(box, size_wh, picture_wh)
        covered_C = _covered(places_C4, placed_N4[:number])
        best = int(covered_C.argmin())  # of several that are free, the first
        all_free = all_free and not covered_C[best]
        placed_N4[number] = places_C4[best]
    return [(x1, y1, x2, y2) for x1, y1, x2, y2 in placed_N4.tolist()], all_free


def _places(box: Rectangle, size_wh: tuple[int, int], picture_wh: tuple[int, int]) -> Rectangles:
    """Return the places that a caption may take, the best first; what hides its own object is the last."""
    (x1, y1, x2, y2), (width, height) = box, size_wh
    room_x, room_y = max(picture_wh[0] - width, 0), max(picture_wh[1] - height, 0)
    slack = max(x2 - x1 - width, 0)
    along = dict.fromkeys(min(max(x1 + round(slide * slack), 0), room_x) for slide in SLIDES)
    upper, lower = (min(max(top, 0), room_y) for top in (y1, y2 - height))
    is_roomy = x2 - x1 >= width and y2 - y1 >= 2 * height
    inside = [(left, top) for top in (upper, lower) for left in along]
    above, below = ([(left, top) for left in along] for top in (y1 - height, y2))
    beside = [(left, top) for left in (x2, x1 - width) for top in (upper, lower)]
    tried = [*above, *inside, *below, *beside] if is_roomy else [*above, *below, *beside]
    within = [(left, top) for left, top in tried if 0 <= left <= room_x and 0 <= top <= room_y]
    corners = dict.fromkeys([*within, *inside])
    return np.array([(left, top, left + width, top + height) for left, top in corners], np.int64)


def _covered(places_C4: Rectangles, others_N4: Rectangles) -> NDArray[Any]:
    """Return how many pixels of the others each place would cover."""
    corners_CN2 = np.maximum(places_C4[:, None, :2], others_N4[None, :, :2])
    opposite_CN2 = np.minimum(places_C4[:, None, 2:], others_N4[None, :, 2:])
    shared: NDArray[Any] = (opposite_CN2 - corners_CN2).clip(min=0).prod(axis=2).sum(axis=1)
    return shared
