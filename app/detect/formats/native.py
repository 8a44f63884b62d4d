"""Harrier's own JSON, which holds everything: the answer to all who ask for nothing else."""

from __future__ import annotations

from app.detect.formats.answer_format import Answer, AnswerFormat, Drawing
from app.detect.service import answer_body


def encode(answer: Answer) -> bytes:
    return answer_body(answer.model_id, answer.images, answer.request_id)


NATIVE = AnswerFormat(
    media_type="application/json",
    encode=encode,
    drawing=Drawing.IF_ASKED,
    schema={"$ref": "#/components/schemas/DetectAnswer"},
)
