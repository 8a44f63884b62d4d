"""The one shape of every error: `application/problem+json` (RFC 9457), for answers and for OpenAPI."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict
from typing import Any

from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field

from app.api.links import published_links
from app.errors import HarrierError, InvalidInputError, Place, all_errors
from app.errors import Problem as Fault

MEDIA_TYPE = "application/problem+json"
EXAMPLE_ID = "019b3c1f-2c5b-7a11-9c67-3d1e9f0a4b5c"


EXAMPLES = "#/components/examples/"


class ProblemItem(BaseModel):
    """One of the things that are wrong, and where."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    place: Place
    """Which part of the request."""
    pointer: str
    """JSON pointer into that part."""
    problem: str
    """What is wrong, and what would be right."""


class Problem(BaseModel):
    """What every error looks like. `code` is stable, `docs/errors.md` explains it."""

    model_config = ConfigDict(
        use_attribute_docstrings=True,
        extra="allow",
        json_schema_extra={
            "example": {
                "type": "urn:harrier:problem:not_found",
                "title": "There is no such thing",
                "status": 404,
                "detail": f"there is no job {EXAMPLE_ID}",
                "code": "not_found",
                "errors": [],
                "request_id": EXAMPLE_ID,
            }
        },
    )

    type: str
    """A name of the kind of problem; it need not lead anywhere."""
    title: str
    """The kind of problem in words; the same for every case of it."""
    status: int = Field(ge=400, le=599)
    """The answer's status code."""
    detail: str
    """What is wrong in this case, and what would be right."""
    code: str
    """Stable; for programs."""
    errors: list[ProblemItem]
    """Every single fault, when there are several places to look at."""
    request_id: str
    """Quote it when you ask for help; the log knows more."""


class ProblemResponse(JSONResponse):
    media_type = MEDIA_TYPE


def problem_body(error: HarrierError, request_id: str) -> dict[str, Any]:
    """Return an error as JSON; also for one bad picture among several of a request."""
    return {
        "type": f"urn:harrier:problem:{error.code}",
        "title": error.title,
        "status": error.status,
        "detail": error.detail,
        "code": error.code,
        "errors": [asdict(fault) for fault in error.problems],
        "request_id": request_id,
        **({"links": published_links(error.links)} if error.links else {}),
    }


def problem_response(error: HarrierError, request_id: str, *, close: bool = False) -> ProblemResponse:
    """Return the answer for an error.

    Args:
        close: end the connection, because what is left of the request will not be read.
    """
    headers = {**error.headers, "Cache-Control": "no-store", **({"Connection": "close"} if close else {})}
    return ProblemResponse(problem_body(error, request_id), status_code=error.status, headers=headers)


def documented(*kinds: type[HarrierError]) -> dict[int | str, dict[str, Any]]:
    """Return what OpenAPI says about the errors a path can answer, one example per code."""
    found: dict[int | str, dict[str, Any]] = {}
    for status in sorted({kind.status for kind in kinds}):
        of_status = [kind for kind in dict.fromkeys(kinds) if kind.status == status]
        found[status] = {
            "description": _description(of_status),
            "content": {
                MEDIA_TYPE: {
                    "schema": {"$ref": "#/components/schemas/Problem"},
                    "examples": {kind.code: {"$ref": f"{EXAMPLES}{kind.code}"} for kind in of_status},
                }
            },
        }
    return found


def _description(kinds: Iterable[type[HarrierError]]) -> str:
    named = [f"{kind.title} (`{kind.code}`)" for kind in kinds]
    return "; ".join(named)


def problem_examples() -> dict[str, dict[str, Any]]:
    """Return one example for each code, to be referred to."""
    return {kind.code: {"value": _example(kind)} for kind in all_errors()}


def _example(kind: type[HarrierError]) -> dict[str, Any]:
    errors: list[Fault] = []
    if kind.status == InvalidInputError.status:
        errors.append(Fault(pointer="/epochs", problem="Input should be greater than or equal to 1"))
    return {
        "type": f"urn:harrier:problem:{kind.code}",
        "title": kind.title,
        "status": kind.status,
        "detail": "…",
        "code": kind.code,
        "errors": [asdict(error) for error in errors],
        "request_id": EXAMPLE_ID,
    }
