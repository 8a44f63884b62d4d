"""From what was found to the answer that goes out: its body in the chosen form, and what its headers say."""

from __future__ import annotations

from fastapi import Response

from app.detect.formats import NATIVE, Answer, AnswerFormat
from app.detect.server_timing import HEADER as TIMING_HEADER
from app.detect.server_timing import server_timing

MODEL_HEADER = "X-Harrier-Model"
FAILED_HEADER = "X-Harrier-Failed"
"""The places of the pictures that could not be used, for forms in which they may look like empty ones."""


def respond(form: AnswerFormat, answer: Answer) -> Response:
    """Return the answer in a form that can hold it."""
    headers = {TIMING_HEADER: server_timing(answer.images)}
    if form is not NATIVE:
        headers[MODEL_HEADER] = answer.model_id
        failed = answer.failed()
        if failed:
            headers[FAILED_HEADER] = ", ".join(map(str, failed))
    return Response(form.encode(answer), media_type=form.media_type, headers=headers)
