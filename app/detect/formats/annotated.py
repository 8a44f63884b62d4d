"""The picture itself as JPEG, with its detections drawn."""

from __future__ import annotations

from app.detect.formats.answer_format import Answer, AnswerFormat, Drawing
from app.detect.wire import Detected


def encode(answer: Answer) -> bytes:
    (image,) = answer.images
    assert isinstance(image, Detected)
    assert image.annotated is not None
    return image.annotated


ANNOTATED = AnswerFormat(
    media_type="image/jpeg",
    also=("image/jpg",),
    encode=encode,
    holds_several=False,
    drawing=Drawing.ALWAYS,
    schema={"type": "string", "format": "binary"},
)
