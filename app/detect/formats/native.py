"""Harrier's own JSON, which holds everything: the answer to all who ask for nothing else."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from operator import attrgetter
from typing import Any

import msgspec

from app.api.problems import problem_body
from app.detect.digits import PIXEL_DIGITS, SCORE_DIGITS
from app.detect.formats.answer_format import Answer, AnswerFormat, Drawing
from app.detect.wire import Box, Classification, Detected

MS_DIGITS = 3
STAGES = ("decode_ms", "queue_ms", "preprocess_ms", "inference_ms", "postprocess_ms", "classify_ms")
MILLISECONDS = tuple((name, attrgetter(name)) for name in STAGES)
"""Of each picture; an answer has their sums."""
COUNTS = tuple((name, attrgetter(name)) for name in ("batch_size", "passes"))
"""Of each picture; an answer has the largest."""


def encode(answer: Answer) -> bytes:
    images = answer.images
    return msgspec.json.encode(
        {
            "model": answer.model_id,
            "images": [
                _image(image)
                if isinstance(image, Detected)
                else {"error": problem_body(image, answer.request_id)}
                for image in images
            ],
            "timing": _timing([image for image in images if isinstance(image, Detected)]),
        }
    )


def _image(found: Detected) -> dict[str, Any]:
    image: dict[str, Any] = {
        "width": found.width,
        "height": found.height,
        "detections": [_detection(box) for box in found.boxes],
    }
    if found.annotated is not None:
        image["annotated"] = base64.b64encode(found.annotated).decode()
    return image


def _detection(box: Box) -> dict[str, Any]:
    detection: dict[str, Any] = {
        "label": box.label,
        "class_id": box.class_id,
        "score": round(box.score or 0.0, SCORE_DIGITS),
        "box": {
            "x1": round(box.x1, PIXEL_DIGITS),
            "y1": round(box.y1, PIXEL_DIGITS),
            "x2": round(box.x2, PIXEL_DIGITS),
            "y2": round(box.y2, PIXEL_DIGITS),
        },
    }
    if box.classification is not None:
        detection["classification"] = _classification(box.classification)
    return detection


def _classification(second: Classification) -> dict[str, Any]:
    return {
        "label": second.label,
        "class_id": second.class_id,
        "score": round(second.score, SCORE_DIGITS),
    }


def _timing(seen: Sequence[Detected]) -> dict[str, float]:
    timings = [image.timing for image in seen]
    summed = {name: round(sum(map(time_of, timings)), MS_DIGITS) for name, time_of in MILLISECONDS}
    most = {name: max(map(number_of, timings), default=0) for name, number_of in COUNTS}
    return {**summed, **most}


NATIVE = AnswerFormat(
    media_type="application/json",
    encode=encode,
    drawing=Drawing.IF_ASKED,
    schema={"$ref": "#/components/schemas/DetectAnswer"},
)
