"""Errors as the protocol has them, `{"error": "…"}`, with the status that its clients expect."""

from __future__ import annotations

from typing import Any

from fastapi.responses import JSONResponse

from app.api.shapes import Shape, example
from app.errors import BadRequestError, HarrierError, InvalidInputError

PREFIX = "/v2"


class InferenceError(Shape):
    """What every error of the protocol looks like."""

    model_config = example(error="there is no model with the id or alias 'producton'")

    error: str
    """What is wrong, and what would be right."""


def speaks_at(path: str) -> bool:
    """Return whether a path is one of the protocol's, so that its errors have the protocol's shape."""
    return path == PREFIX or path.startswith(f"{PREFIX}/")


def status_of(error: HarrierError | type[HarrierError]) -> int:
    """Return the status of an error: the protocol knows no other for a wrong request than 400."""
    return BadRequestError.status if error.status == InvalidInputError.status else error.status


def error_response(error: HarrierError, *, close: bool = False) -> JSONResponse:
    """Return the answer for an error; `close` as with a problem."""
    headers = {**error.headers, "Cache-Control": "no-store", **({"Connection": "close"} if close else {})}
    return JSONResponse({"error": error.detail}, status_code=status_of(error), headers=headers)


def documented(*kinds: type[HarrierError]) -> dict[int | str, dict[str, Any]]:
    """Return what OpenAPI says about the errors that a path can answer."""
    found: dict[int | str, dict[str, Any]] = {}
    for status in sorted({status_of(kind) for kind in kinds}):
        titles = dict.fromkeys(kind.title for kind in kinds if status_of(kind) == status)
        found[status] = {"model": InferenceError, "description": "; ".join(titles)}
    return found
