"""Pictures for people are JPEGs, and those have a longest side."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from app.detect.wire import Box
from app.engine.drawing import LONGEST_JPEG_SIDE, draw_picture


@pytest.mark.parametrize("size_hw", [(70_000, 2), (2, 70_000)])
def test_a_picture_longer_than_any_jpeg_is_shrunk(size_hw: tuple[int, int]) -> None:
    done, png = cv2.imencode(".png", np.zeros((*size_hw, 3), np.uint8))
    assert done
    box = Box(0, 0, 1, 1, class_id=0, label="dog", score=0.5)

    drawn = cv2.imdecode(np.frombuffer(draw_picture(png.tobytes(), [box], max_pixels=10**8), np.uint8), 1)

    assert drawn is not None
    assert max(drawn.shape) == LONGEST_JPEG_SIDE
