"""COCO results: the list that pycocotools' `loadRes` reads and every COCO server takes.

`image_id` is the place of a picture in the request, `category_id` the class's index plus 1: the ids that a
dataset exported from here in COCO's layout has as well. A picture that failed has no rows, as one in which
nothing was found: which ones failed stands in a header of the answer.
"""

from __future__ import annotations

from typing import Any

import msgspec

from app.detect.digits import PIXEL_DIGITS, SCORE_DIGITS
from app.detect.formats.answer_format import Answer, AnswerFormat
from app.detect.wire import Box, Detected

FIRST_CATEGORY = 1


def encode(answer: Answer) -> bytes:
    rows = [
        _row(place, box)
        for place, image in enumerate(answer.images)
        if isinstance(image, Detected)
        for box in image.boxes
    ]
    return msgspec.json.encode(rows)


def _row(place: int, box: Box) -> dict[str, Any]:
    corners = (box.x1, box.y1, box.x2 - box.x1, box.y2 - box.y1)
    return {
        "image_id": place,
        "category_id": box.class_id + FIRST_CATEGORY,
        "bbox": [round(value, PIXEL_DIGITS) for value in corners],
        "score": round(box.score or 0.0, SCORE_DIGITS),
    }


COCO = AnswerFormat(
    media_type="application/vnd.coco.results+json",
    also=("application/json;profile=coco",),
    encode=encode,
    schema={
        "type": "array",
        "items": {
            "type": "object",
            "required": ["image_id", "category_id", "bbox", "score"],
            "properties": {
                "image_id": {
                    "type": "integer",
                    "description": "The place of the picture in the request, from 0.",
                },
                "category_id": {
                    "type": "integer",
                    "description": "The index of the class among the model's, plus 1.",
                },
                "bbox": {
                    "type": "array",
                    "items": {"type": "number"},
                    "minItems": 4,
                    "maxItems": 4,
                    "description": "Left, top, width and height in pixels of the picture.",
                },
                "score": {"type": "number", "description": "How sure the model is."},
            },
        },
    },
    example=[{"image_id": 0, "category_id": 17, "bbox": [130.7, 219.5, 178.5, 322.1], "score": 0.93}],
)
