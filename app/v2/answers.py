"""The answer to an inference: JSON, and behind it the tensors that were wanted as bytes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
from fastapi import Response

from app.detect.answers import MODEL_HEADER
from app.detect.server_timing import HEADER as TIMING_HEADER
from app.detect.server_timing import server_timing
from app.detect.wire import Detected
from app.errors import BadRequestError, HarrierError
from app.v2.inputs import LENGTH_HEADER
from app.v2.outputs import ERRORS, OUTPUTS, tensors_of
from app.v2.schemas import InferRequest

BINARY = "application/octet-stream"


def respond(
    wish: InferRequest, model_name: str, model_id: str, images: Sequence[Detected | HarrierError]
) -> Response:
    """Return the answer that the request wants.

    Raises:
        HarrierError: a picture could not be used, and no output that was wanted could say so.
    """
    as_bytes = _wanted(wish)
    _check_that_failures_are_told(images, as_bytes)
    told: list[dict[str, Any]] = []
    behind: list[bytes] = []
    for tensor in tensors_of(images, as_bytes):
        if as_bytes[tensor.name]:
            behind.append(tensor.packed())
            told.append(tensor.document(num_bytes=len(behind[-1])))
        else:
            told.append(tensor.document())
    named = {"model_name": model_name, "model_version": model_id, **({"id": wish.id} if wish.id else {})}
    head = msgspec.json.encode({**named, "outputs": told})
    headers = {TIMING_HEADER: server_timing(images), MODEL_HEADER: model_id}
    if not any(as_bytes.values()):
        return Response(head, media_type="application/json", headers=headers)
    headers[LENGTH_HEADER] = str(len(head))
    return Response(b"".join((head, *behind)), media_type=BINARY, headers=headers)


def _wanted(wish: InferRequest) -> dict[str, bool]:
    """Return the outputs in the order wanted, each with whether it is wanted as bytes."""
    for_all = wish.parameters.binary_data_output
    if not wish.outputs:
        return dict.fromkeys(OUTPUTS, for_all)
    return {
        each.name: for_all if each.parameters.binary_data is None else each.parameters.binary_data
        for each in wish.outputs
    }


def _check_that_failures_are_told(images: Sequence[Detected | HarrierError], wanted: dict[str, bool]) -> None:
    if len(images) == 1 and isinstance(images[0], HarrierError):
        raise images[0]
    failed = [(place, image) for place, image in enumerate(images) if isinstance(image, HarrierError)]
    if failed and ERRORS not in wanted:
        place, error = failed[0]
        raise BadRequestError(
            f"picture {place}: {error.detail}; with the output `{ERRORS}` the others would be answered"
        )
