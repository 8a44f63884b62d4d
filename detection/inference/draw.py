"""Draw boxes and their labels onto a picture, so that they can be read on any ground."""

from __future__ import annotations

import colorsys
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from detection.detections import Detections
from detection.images import Pixels
from detection.inference.captions import Rectangle, place_captions

Colour = tuple[int, int, int]
"""Blue, green, red; 0..255."""

GOLDEN_RATIO = 0.618_033_988_75
BLACK: Colour = (0, 0, 0)
WHITE: Colour = (255, 255, 255)
PIXELS_PER_LINE_WIDTH = 320
PIXELS_PER_TEXT_HEIGHT = 36
SMALLEST_TEXT_PX = 11
TEXTS_PER_SHORT_SIDE = 8
"""Text is no larger, so that a very long picture still shows something else."""
TEXT_SCALES = (1.0, 0.8, 0.64)
"""Where captions would cover each other, text is tried smaller."""
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

    Lines and text grow with the picture; the colour of a class is the same in every picture. Captions do not
    cover each other where there is room; the last box has the first choice.
    """
    canvas = np.ascontiguousarray(pixels).copy()
    line_width = max(1, round(max(canvas.shape[:2]) / PIXELS_PER_LINE_WIDTH))
    corners = [_corners(canvas, box) for box in boxes]
    for box, (x1, y1, x2, y2) in zip(boxes, corners, strict=True):
        _draw_outline(canvas, (x1, y1), (x2, y2), class_colour(box.class_id), line_width)
    captions = [_drawable(box.caption) for box in boxes]
    outer = [(x1 - line_width, y1, x2 + line_width, y2) for x1, y1, x2, y2 in corners]
    text = _lay_out(canvas, captions[::-1], outer[::-1])
    for box, caption, plate in zip(boxes, captions, text.plates[::-1], strict=True):
        _draw_caption(canvas, caption, plate, class_colour(box.class_id), text.size)
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


@dataclass(frozen=True, slots=True)
class Layout:
    """How large text is, and the plate of each caption."""

    size: int
    plates: list[Rectangle]


def _lay_out(canvas: Pixels, captions: Sequence[str], boxes: Sequence[Rectangle]) -> Layout:
    """Return the layout with the largest text whose captions do not cover each other, else with the smallest.

    Args:
        captions: who comes first has the first choice.
    """
    height, width = canvas.shape[:2]
    largest = min(max(height, width) / PIXELS_PER_TEXT_HEIGHT, min(height, width) / TEXTS_PER_SHORT_SIDE)
    for size in dict.fromkeys(max(SMALLEST_TEXT_PX, round(largest * scale)) for scale in TEXT_SCALES):
        sizes_wh = [_plate_size(caption, size) for caption in captions]
        plates, all_free = place_captions(boxes, sizes_wh, picture_wh=(width, height))
        if all_free:
            break
    return Layout(size, plates)


def _plate_size(caption: str, text_size: int) -> tuple[int, int]:
    _, _, text_width, _ = cv2.getTextSize((0, 0), caption, (0, 0), FONT, text_size, FONT_WEIGHT)
    return text_width + 2 * _padding(text_size), round(text_size * 1.3)


def _padding(text_size: int) -> int:
    return max(text_size // 5, 2)


def _draw_outline(
    canvas: Pixels, first: tuple[int, int], second: tuple[int, int], colour: Colour, line_width: int
) -> None:
    # A dark rim under the colour keeps the line visible on a ground of the same colour.
    cv2.rectangle(canvas, first, second, BLACK, line_width + 2)
    cv2.rectangle(canvas, first, second, colour, line_width)


def _draw_caption(canvas: Pixels, caption: str, plate: Rectangle, ground: Colour, text_size: int) -> None:
    left, top, right, bottom = plate
    # The pixels of both corners belong to a rectangle that is drawn, those of the plate end before.
    cv2.rectangle(canvas, (left, top), (right - 1, bottom - 1), ground, cv2.FILLED)
    start = left + _padding(text_size), bottom - round((bottom - top) * 0.27)
    cv2.putText(canvas, caption, start, text_colour(ground), FONT, text_size, FONT_WEIGHT)


def _corners(canvas: Pixels, box: LabelledBox) -> Rectangle:
    height, width = canvas.shape[:2]
    x1, y1, x2, y2 = (round(value) for value in box.xyxy)
    x1, x2 = (min(max(x, 0), width - 1) for x in (x1, x2))
    y1, y2 = (min(max(y, 0), height - 1) for y in (y1, y2))
    return x1, y1, x2, y2


def _drawable(text: str) -> str:
    """Return text that the font engine survives: half of a surrogate pair ends the process."""
    return "".join(character if character.isprintable() else " " for character in text)
