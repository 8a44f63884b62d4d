"""Label Studio: a task a picture, with what was found as its prediction, to be imported and corrected.

Fits its template for object detection, `<Image name="image" value="$image"/>` with
`<RectangleLabels name="label" toName="image">`. The task of a picture that failed has no prediction, and says
in its data why.
"""

from __future__ import annotations

from statistics import fmean
from typing import Any

import msgspec

from app.detect.digits import PERCENT_DIGITS, SCORE_DIGITS
from app.detect.formats.answer_format import Answer, AnswerFormat
from app.detect.wire import Box, Detected
from app.errors import HarrierError

FROM_NAME, TO_NAME = "label", "image"
KIND = "rectanglelabels"


def encode(answer: Answer) -> bytes:
    tasks = [_task(answer, place, image) for place, image in enumerate(answer.images)]
    return msgspec.json.encode(tasks)


def _task(answer: Answer, place: int, image: Detected | HarrierError) -> dict[str, Any]:
    data = {TO_NAME: answer.name_of(place)}
    if isinstance(image, HarrierError):
        return {"data": {**data, "error": image.detail}, "predictions": []}
    return {"data": data, "predictions": [_prediction(answer.model_id, image)]}


def _prediction(model_id: str, image: Detected) -> dict[str, Any]:
    scores = [box.score or 0.0 for box in image.boxes]
    return {
        "model_version": model_id,
        **({"score": round(fmean(scores), SCORE_DIGITS)} if scores else {}),
        "result": [_region(number, box, image) for number, box in enumerate(image.boxes)],
    }


def _region(number: int, box: Box, image: Detected) -> dict[str, Any]:
    percents = {
        "x": box.x1 / image.width,
        "y": box.y1 / image.height,
        "width": (box.x2 - box.x1) / image.width,
        "height": (box.y2 - box.y1) / image.height,
    }
    return {
        "id": str(number),
        "type": KIND,
        "from_name": FROM_NAME,
        "to_name": TO_NAME,
        "original_width": image.width,
        "original_height": image.height,
        "image_rotation": 0,
        "score": round(box.score or 0.0, SCORE_DIGITS),
        "value": {
            **{name: round(100 * part, PERCENT_DIGITS) for name, part in percents.items()},
            "rotation": 0,
            KIND: [box.label],
        },
    }


LABEL_STUDIO = AnswerFormat(
    media_type="application/vnd.label-studio+json",
    also=("application/json;profile=label-studio",),
    encode=encode,
    schema={
        "type": "array",
        "items": {
            "type": "object",
            "required": ["data", "predictions"],
            "properties": {
                "data": {
                    "type": "object",
                    "description": "`image` is the file name of the picture, or its place in the request; "
                    "`error` says why a picture could not be used.",
                },
                "predictions": {
                    "type": "array",
                    "items": {"type": "object"},
                    "description": "One, or none for a picture that could not be used.",
                },
            },
        },
    },
    example=[
        {
            "data": {"image": "dog.jpg"},
            "predictions": [
                {
                    "model_version": "019b3c1e-8f10-7d42-a1cf-0b6a5c1d2e3f",
                    "score": 0.93,
                    "result": [
                        {
                            "id": "0",
                            "type": "rectanglelabels",
                            "from_name": "label",
                            "to_name": "image",
                            "original_width": 768,
                            "original_height": 576,
                            "image_rotation": 0,
                            "score": 0.93,
                            "value": {
                                "x": 17.0182,
                                "y": 38.1076,
                                "width": 23.2422,
                                "height": 55.9201,
                                "rotation": 0,
                                "rectanglelabels": ["dog"],
                            },
                        }
                    ],
                }
            ],
        }
    ],
)
