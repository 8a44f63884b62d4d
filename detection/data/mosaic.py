"""Mosaic: four pictures around one point of a canvas of twice the input's size."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from detection.data.transforms import Sample, paste, shifted_boxes


def mosaic_corner(quarter: int, centre: tuple[int, int], size_wh: tuple[int, int]) -> tuple[int, int]:
    """Return where the top left of a picture goes so that one of its corners touches the centre.

    Args:
        quarter: 0 top left, 1 top right, 2 bottom left, 3 bottom right.
        centre: x and y on the canvas.
        size_wh: of the picture.
    """
    left = centre[0] - (size_wh[0] if quarter % 2 == 0 else 0)
    top = centre[1] - (size_wh[1] if quarter < 2 else 0)
    return left, top


def mosaic(
    samples: Sequence[Sample], centre: tuple[int, int], canvas_wh: tuple[int, int], *, pad_value: int
) -> Sample:
    """Join four samples; what reaches over the canvas is cut off, boxes are clipped to the canvas.

    Args:
        samples: already scaled to the input's size.
        centre: x and y where they meet.
    """
    canvas = np.full((canvas_wh[1], canvas_wh[0], 3), pad_value, np.uint8)
    boxes = []
    for quarter, sample in enumerate(samples):
        corner = mosaic_corner(quarter, centre, sample.size_wh)
        paste(canvas, sample.pixels, corner)
        boxes.append(shifted_boxes(sample.boxes, (1.0, 1.0), corner, canvas_wh))
    return Sample(canvas, np.concatenate(boxes), np.concatenate([sample.labels for sample in samples]))
