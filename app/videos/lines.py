"""The lines of a video's detections, rounded as `/detect` rounds them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from app.detect.digits import PIXEL_DIGITS, SCORE_DIGITS

TIME_DIGITS = 3
LINE_END = b"\n"

FoundBox = tuple[Sequence[float], float, int]
"""Corners x1, y1, x2, y2 in pixels of the frame, score, and index of the class."""


def head_line(model_id: str, parameters: Mapping[str, Any], **facts: Any) -> bytes:
    """Return the first line; `facts` are those of `VideoHead`."""
    return msgspec.json.encode({"model": model_id, "parameters": parameters, **facts}) + LINE_END


def frame_line(
    number: int, time_s: float, *, size_wh: tuple[int, int], boxes: Sequence[FoundBox], classes: Sequence[str]
) -> bytes:
    """Return the line of one frame, as `FrameRead` describes it.

    Args:
        classes: the label of every class index.
    """
    line = {
        "frame": number,
        "time_s": round(time_s, TIME_DIGITS),
        "width": size_wh[0],
        "height": size_wh[1],
        "detections": [_detection(box, classes) for box in boxes],
    }
    return msgspec.json.encode(line) + LINE_END


def _detection(found: FoundBox, classes: Sequence[str]) -> dict[str, Any]:
    corners, score, class_id = found
    x1, y1, x2, y2 = (round(corner, PIXEL_DIGITS) for corner in corners)
    return {
        "label": classes[class_id],
        "class_id": class_id,
        "score": round(score, SCORE_DIGITS),
        "box": {"x1": x1, "y1": y1, "x2": x2, "y2": y2},
    }
