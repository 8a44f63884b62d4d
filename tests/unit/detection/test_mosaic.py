"""Four pictures meet in one point."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from detection.data.mosaic import mosaic, mosaic_corner
from detection.data.transforms import Sample


def test_places_equal_the_original(golden: Path) -> None:
    rows = np.load(golden / "yolox_preproc_aug.npz")["mosaic_rows"].tolist()
    for quarter, xc, yc, width, height, input_height, input_width, *expected in rows:
        left, top = mosaic_corner(quarter, (xc, yc), (width, height))
        x1, y1 = max(left, 0), max(top, 0)
        x2, y2 = min(left + width, 2 * input_width), min(top + height, 2 * input_height)

        assert [x1, y1, x2, y2, x1 - left, y1 - top, x2 - left, y2 - top] == expected


def test_pixels_and_boxes_of_all_four_arrive() -> None:
    sizes = [(30, 20), (25, 40), (64, 64), (10, 10)]
    samples = [_plain(size, grey=10 * (n + 1), label=n) for n, size in enumerate(sizes)]

    joined = mosaic(samples, (40, 30), (100, 80), pad_value=114)

    assert joined.size_wh == (100, 80)
    assert joined.pixels[29, 39, 0] == 10
    assert joined.pixels[29, 40, 0] == 20
    assert joined.pixels[30, 39, 0] == 30
    assert joined.pixels[30, 40, 0] == 40
    assert joined.pixels[79, 99, 0] == 114
    np.testing.assert_array_equal(
        joined.boxes, [[10, 10, 40, 30], [40, 0, 65, 30], [0, 30, 40, 80], [40, 30, 50, 40]]
    )
    assert joined.labels.tolist() == [0, 1, 2, 3]


def _plain(size_wh: tuple[int, int], *, grey: int, label: int) -> Sample:
    width, height = size_wh
    pixels = np.full((height, width, 3), grey, np.uint8)
    return Sample(pixels, np.array([[0, 0, width, height]], np.float32), np.array([label]))
