"""Draw boxes and their labels onto a picture, so that they can be read on any ground."""

from __future__ import annotations

import colorsys
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from detection.detections import Detections
from detection.images import Pixels

Colour = tuple[int, int, int]
"""Blue, green, red; 0..255."""

GOLDEN_RATIO = 0.618_033_988_75
BLACK: Colour = (0, 0, 0)
WHITE: Colour = (255, 255, 255)
PIXELS_PER_LINE_WIDTH = 320
PIXELS_PER_TEXT_HEIGHT = 36
SMALLEST_TEXT_PX = 11
FONT = cv2.FontFace("sans")
FONT_WEIGHT = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelledBox:
    """One box to draw: xyxy, pixels of the picture."""

    xyxy: tuple[float, float, float, float]
    class_id: int
    """Decides the colour."""
    caption: str


def draw_detections(pixels: Pixels, detections: Detections, classes: Sequence[str]) -> Pixels:
    """Return a copy of a picture with its detections drawn, captioned `label 0.87`, the surest on top.

    Args:
        pixels: height, width, BGR.
        detections: boxes in pixels of this picture, by decreasing score.
        classes: the label of every class index.
    """
    boxes = [
        LabelledBox(
            xyxy=(float(x1), float(y1), float(x2), float(y2)),
            class_id=int(label),
            caption=f"{classes[int(label)]} {float(score):.2f}",
        )
        for (x1, y1, x2, y2), score, label in zip(
            detections.boxes_N4.tolist(),
            detections.scores_N.tolist(),
            detections.labels_N.tolist(),
            strict=True,
        )
    ]
    return draw_boxes(pixels, boxes[::-1])


def draw_boxes(pixels: Pixels, boxes: Sequence[LabelledBox]) -> Pixels:
    """Return a copy of a picture (height, width, BGR) with boxes drawn in the order given.

    Lines and text grow with the picture; the colour of a class is the same in every picture.
    """
    canvas = np.ascontiguousarray(pixels).copy()
    line_width = max(1, round(max(canvas.shape[:2]) / PIXELS_PER_LINE_WIDTH))
    for box in boxes:
        _draw_outline(canvas, box, line_width)
    for box in boxes:
        _draw_caption(canvas, box, line_width)
    return canvas


def class_colour(class_id: int) -> Colour:
    """Return a bright colour; neighbouring classes differ much."""
    hue = (0.02 + class_id * GOLDEN_RATIO) % 1.0
    red, green, blue = colorsys.hsv_to_rgb(hue, 0.85, 1.0)
    return round(blue * 255), round(green * 255), round(red * 255)


def text_colour(ground: Colour) -> Colour:
    """Return black or white, whichever reads better on `ground` (luminance of ITU-R BT.601)."""
    blue, green, red = ground
    return BLACK if 0.114 * blue + 0.587 * green + 0.299 * red > 140 else WHITE


def _draw_outline(canvas: Pixels, box: LabelledBox, line_width: int) -> None:
    first, second = _corners(canvas, box)
    # A dark rim under the colour keeps the line visible on a ground of the same colour.
    cv2.rectangle(canvas, first, second, BLACK, line_width + 2)
    cv2.rectangle(canvas, first, second, class_colour(box.class_id), line_width)


def _draw_caption(canvas: Pixels, box: LabelledBox, line_width: int) -> None:
    height, width = canvas.shape[:2]
    size = max(SMALLEST_TEXT_PX, round(max(height, width) / PIXELS_PER_TEXT_HEIGHT))
    caption = _drawable(box.caption)
    _, _, text_width, _ = cv2.getTextSize((0, 0), caption, (0, 0), FONT, size, FONT_WEIGHT)
    padding, plate_height = max(size // 5, 2), round(size * 1.3)
    (left, top), _ = _corners(canvas, box)
    plate_width = text_width + 2 * padding
    left = max(min(left - line_width, width - plate_width), 0)
    bottom = top if top >= plate_height else min(top + plate_height, height)
    ground = class_colour(box.class_id)
    cv2.rectangle(canvas, (left, bottom - plate_height), (left + plate_width, bottom), ground, cv2.FILLED)
    baseline = bottom - round(plate_height * 0.27)
    cv2.putText(canvas, caption, (left + padding, baseline), text_colour(ground), FONT, size, FONT_WEIGHT)


def _corners(canvas: Pixels, box: LabelledBox) -> tuple[tuple[int, int], tuple[int, int]]:
    height, width = canvas.shape[:2]
    x1, y1, x2, y2 = (round(value) for value in box.xyxy)
    x1, x2 = (min(max(x, 0), width - 1) for x in (x1, x2))
    y1, y2 = (min(max(y, 0), height - 1) for y in (y1, y2))
    return (x1, y1), (x2, y2)


def _drawable(text: str) -> str:
    """Return text that the font engine survives: half of a surrogate pair ends the process."""
    return "".join(character if character.isprintable() else " " for character in text)
