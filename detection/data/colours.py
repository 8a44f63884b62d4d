"""Changes of colour that may leave 0..255: nothing is clipped, so none loses what the next one needs."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

FloatPixels = NDArray[np.float32]
"""Height, width, BGR."""


def brightened(pixels: FloatPixels, delta: float) -> FloatPixels:
    """Add to every value."""
    return pixels + np.float32(delta)


def contrasted(pixels: FloatPixels, factor: float) -> FloatPixels:
    """Multiply every value."""
    return pixels * np.float32(factor)


def resaturated(pixels: FloatPixels, factor: float) -> FloatPixels:
    """Multiply the saturation in HSV."""
    hsv: FloatPixels = np.asarray(cv2.cvtColor(pixels, cv2.COLOR_BGR2HSV), np.float32)
    hsv[..., 1] *= np.float32(factor)
    return np.asarray(cv2.cvtColor(hsv, cv2.COLOR_HSV2BGR), np.float32)
