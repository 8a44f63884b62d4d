"""Pictures for people: upright, shrunk, with boxes."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from app.detect.wire import Box
from detection.images import BYTES_PER_PIXEL, ImageHeader, Pixels, decode_image, decoding_bytes, encode_jpeg
from detection.inference.draw import LabelledBox, draw_boxes

LONGEST_JPEG_SIDE = 65_500
"""No JPEG can be larger; what is taken as PNG, WebP or BMP can."""


def draw_picture(
    image: bytes, boxes: Sequence[Box], *, max_pixels: int, max_side: int | None = None
) -> bytes:
    """Return a picture as JPEG with its boxes, the surest on top; drawn after shrinking, so lines stay sharp.

    Raises:
        ImageError: the picture cannot be used.
    """
    reduced_to = (max_side, max_side) if max_side is not None else None
    picture = decode_image(image, max_pixels=max_pixels, input_size_hw=reduced_to)
    pixels = _shrink(picture.pixels, min(max_side or LONGEST_JPEG_SIDE, LONGEST_JPEG_SIDE))
    scale_x, scale_y = pixels.shape[1] / picture.width, pixels.shape[0] / picture.height
    labelled = [_labelled(box, scale_x, scale_y) for box in boxes]
    return encode_jpeg(draw_boxes(pixels, labelled[::-1]) if labelled else pixels)


def drawing_bytes(header: ImageHeader, *, max_side: int | None = None) -> int:
    """Return about how much memory `draw_picture` takes at most."""
    reduced_to = (max_side, max_side) if max_side is not None else None
    drawn = BYTES_PER_PIXEL * header.width * header.height if max_side is None else 0
    return decoding_bytes(header, input_size_hw=reduced_to) + drawn


def _shrink(pixels: Pixels, max_side: int) -> Pixels:
    longest = max(pixels.shape[:2])
    if longest <= max_side:
        return pixels
    scale = max_side / longest
    size_wh = max(round(pixels.shape[1] * scale), 1), max(round(pixels.shape[0] * scale), 1)
    return np.asarray(cv2.resize(pixels, size_wh, interpolation=cv2.INTER_AREA), np.uint8)


def _labelled(box: Box, scale_x: float, scale_y: float) -> LabelledBox:
    return LabelledBox(
        xyxy=(box.x1 * scale_x, box.y1 * scale_y, box.x2 * scale_x, box.y2 * scale_y),
        class_id=box.class_id,
        caption=_caption(box),
    )


def _caption(box: Box) -> str:
    """Return `label 0.87`, and after it what the second stage says."""
    caption = box.label if box.score is None else f"{box.label} {box.score:.2f}"
    second = box.classification
    return caption if second is None else f"{caption}, {second.label} {second.score:.2f}"
