"""Boxes as labels state them become boxes that lie in the picture; what cannot is dropped, and said."""

from __future__ import annotations

import math
from collections.abc import Mapping

from detection.data.finding_log import FindingCode, FindingLog
from detection.data.formats.dataset_format import LabelledBox, LabelledImage
from detection.data.records import BoxRecord

DECIMALS = 4
"""Of a pixel; more is the noise of other programs' divisions."""
TOLERANCE = 0.5
"""A box may reach so many pixels over the border through rounding; beyond it is said that it was clipped."""


def clean_boxes(
    image: LabelledImage,
    size_wh: tuple[int, int],
    class_ids: Mapping[str, int],
    log: FindingLog,
    *,
    image_id: str,
) -> tuple[BoxRecord, ...]:
    """Return the usable boxes of a picture, in pixels and clipped to it.

    Args:
        size_wh: width and height of the picture as a person sees it.
        class_ids: index of every class that is wanted; boxes of others are left out.
        image_id: for the findings.
    """
    boxes = []
    for box in image.boxes:
        class_id = class_ids.get(box.class_name)
        if class_id is None:
            continue
        edges, problem = _clean_edges(_pixels(box, image, size_wh), size_wh)
        if problem is not None:
            code, message = problem
            log.add(code, image.label_file, message, where=box.where, image_id=image_id)
        if edges is not None:
            x1, y1, x2, y2 = edges
            boxes.append(
                BoxRecord(
                    class_id=class_id,
                    x1=x1,
                    y1=y1,
                    x2=x2,
                    y2=y2,
                    crowd=box.crowd,
                    difficult=box.difficult,
                    attributes=box.attributes,
                )
            )
    return tuple(boxes)


Edges = tuple[float, float, float, float]
"""Left, top, right, bottom."""


def _pixels(box: LabelledBox, image: LabelledImage, size_wh: tuple[int, int]) -> Edges:
    width, height = size_wh if image.relative else (1, 1)
    return box.x1 * width, box.y1 * height, box.x2 * width, box.y2 * height


def _clean_edges(
    edges: Edges, size_wh: tuple[int, int]
) -> tuple[Edges | None, tuple[FindingCode, str] | None]:
    """Return usable edges, or None, and what was wrong with the given ones, if anything."""
    if not all(map(math.isfinite, edges)):
        return None, (
            FindingCode.BOX_NOT_FINITE,
            f"the box {_shown(edges)} has a coordinate that is no number",
        )
    x1, y1, x2, y2 = (round(edge, DECIMALS) + 0.0 for edge in edges)  # + 0.0 turns -0.0 into 0.0
    problem = None
    if x1 > x2 or y1 > y2:
        problem = FindingCode.BOX_INVERTED, f"the box {_shown(edges)} has its corners exchanged"
        x1, y1, x2, y2 = min(x1, x2), min(y1, y2), max(x1, x2), max(y1, y2)
    if x1 == x2 or y1 == y2:
        return None, (FindingCode.BOX_EMPTY, f"the box {_shown(edges)} has no area")
    width, height = size_wh
    if x1 >= width or y1 >= height or x2 <= 0 or y2 <= 0:
        message = f"the box {_shown(edges)} lies outside of the picture of {width}×{height}"
        return None, (FindingCode.BOX_OUTSIDE, message)
    if max(-x1, -y1, x2 - width, y2 - height) > TOLERANCE:
        message = f"the box {_shown(edges)} reaches over the border of the picture of {width}×{height}"
        problem = FindingCode.BOX_CLIPPED, message
    return (max(x1, 0.0), max(y1, 0.0), min(x2, float(width)), min(y2, float(height))), problem


def _shown(edges: Edges) -> str:
    return "(" + ", ".join(f"{edge:g}" for edge in edges) + ")"
