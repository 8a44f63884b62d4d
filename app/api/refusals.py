"""In which shape an error goes out: as a problem, or as clients of the Open Inference Protocol read it."""

from __future__ import annotations

from fastapi import Response
from starlette.types import Scope

from app.api.context import request_id_of, route_path
from app.api.problems import problem_response
from app.errors import HarrierError
from app.v2.errors import error_response, speaks_at


def refusal(error: HarrierError, scope: Scope, *, close: bool = False) -> Response:
    """Return the answer for an error of a request.

    Args:
        close: end the connection, because what is left of the request will not be read.
    """
    if speaks_at(route_path(scope)):
        return error_response(error, close=close)
    return problem_response(error, request_id_of(scope), close=close)
