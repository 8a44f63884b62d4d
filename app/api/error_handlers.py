"""Every exception that leaves a route becomes problem+json; what we did not foresee is a 500 with an id."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.routing import compile_path

from app.api.context import CLIENT_GONE, SECURITY_HEADERS, request_id_of, route_path
from app.api.idempotency import ReplayedAnswer
from app.api.problems import problem_response
from app.errors import (
    BadRequestError,
    DatabaseUnavailableError,
    HarrierError,
    InternalError,
    InvalidInputError,
    MethodNotAllowedError,
    NotFoundError,
    Problem,
)
from app.logs import get_logger
from detection.errors import ConfigError, DetectionError, UnknownNameError

log = get_logger(__name__)

PLACES = ("body", "query", "path", "header")
# Pydantic names the same fault differently for models and for dataclasses.
UNKNOWN_FIELD = frozenset({"extra_forbidden", "unexpected_keyword_argument"})
NO_OBJECT = frozenset({"model_attributes_type", "model_type", "dataclass_type"})


class RefusedError(HTTPException):
    """Carries a HarrierError through code that only HTTPException passes, such as FastAPI's body reading."""

    def __init__(self, error: HarrierError, *, close: bool = False) -> None:
        super().__init__(error.status, error.detail)
        self.error, self.close = error, close


def add_error_handlers(app: FastAPI) -> None:
    app.add_exception_handler(HarrierError, _harrier_error)
    app.add_exception_handler(HTTPException, _http_exception)
    app.add_exception_handler(RequestValidationError, _validation_error)
    app.add_exception_handler(DetectionError, _detection_error)
    app.add_exception_handler(ReplayedAnswer, _replayed)
    app.add_exception_handler(ClientDisconnect, _client_gone)
    for kind in (OperationalError, InterfaceError, DBAPIError, PoolTimeoutError):
        app.add_exception_handler(kind, _database_error)
    app.add_exception_handler(Exception, _unforeseen)


def _answer(request: Request, error: HarrierError, *, close: bool = False) -> Response:
    return problem_response(error, request_id_of(request.scope), close=close)


def _harrier_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HarrierError)
    return _answer(request, error)


def _http_exception(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    if isinstance(error, RefusedError):
        return _answer(request, error.error, close=error.close)
    if error.status_code == NotFoundError.status:
        return _answer(request, NotFoundError("this path does not exist; GET /docs shows those that do"))
    if error.status_code == MethodNotAllowedError.status:
        allow = _allowed(request, (error.headers or {}).get("Allow", ""))
        detail = f"this path knows {allow}"
        return _answer(request, MethodNotAllowedError(detail, headers={"Allow": allow}))
    return _answer(request, BadRequestError(str(error.detail)))


def _validation_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    problems = [_problem_of(fault, error.body) for fault in error.errors()]
    if any(fault["type"] == "json_invalid" for fault in error.errors()):
        return _answer(request, BadRequestError("the body is not JSON", problems=problems))
    return _answer(request, InvalidInputError(_summary(problems), problems=problems))


def _detection_error(request: Request, error: Exception) -> Response:
    """The few errors of the library that a request can cause; any other one is ours."""
    if isinstance(error, ConfigError):
        problems = [Problem(pointer=fault.pointer, problem=fault.problem) for fault in error.faults]
        return _answer(request, InvalidInputError(_summary(problems), problems=problems))
    if isinstance(error, UnknownNameError):
        return _answer(request, InvalidInputError(str(error)))
    raise error


def _replayed(request: Request, error: Exception) -> Response:
    assert isinstance(error, ReplayedAnswer)
    return JSONResponse(error.body, status_code=error.status_code, headers=error.headers)


def _client_gone(request: Request, error: Exception) -> Response:
    """Nobody will read this; it is for the log, where a client that left is no fault of ours."""
    return Response(status_code=CLIENT_GONE)


def _database_error(request: Request, error: Exception) -> Response:
    """Locked, restarting, out of connections: come back later. A mistake of ours is no such thing."""
    temporary = isinstance(error, OperationalError | InterfaceError | PoolTimeoutError)
    if not temporary and not (isinstance(error, DBAPIError) and error.connection_invalidated):
        raise error
    log.warning("database_unavailable", error=type(error).__name__)
    return _answer(request, DatabaseUnavailableError("the database does not answer; try again shortly"))


def _unforeseen(request: Request, error: Exception) -> Response:
    """Starlette calls this outside of our middlewares, so that it adds what they would have added."""
    request_id = request_id_of(request.scope)
    log.error("internal_error", path=route_path(request.scope), request_id=request_id, exc_info=error)
    answer = _answer(request, InternalError("something went wrong here; the log knows more"))
    answer.headers.update({"X-Request-ID": request_id, **SECURITY_HEADERS})
    return answer


def _allowed(request: Request, known: str) -> str:
    """Return every method of a path; Starlette knows those of the first route that fits, OpenAPI of all."""
    path, methods = route_path(request.scope), set(known.split(", "))
    for template, calls in request.app.openapi()["paths"].items():
        if compile_path(template)[0].match(path):
            methods.update(method.upper() for method in calls)
    return ", ".join(sorted(methods - {""}))


def _summary(problems: Sequence[Problem]) -> str:
    first = problems[0]
    where = first.pointer or first.place
    rest = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
    return f"{where}: {first.problem}{rest}"


def _problem_of(fault: Mapping[str, Any], body: object) -> Problem:
    place, *path = fault["loc"]
    if fault["type"] == "json_invalid":
        return Problem(problem=f"{fault['ctx']['error']} at character {path[0]}")
    if place not in PLACES:
        return Problem(problem=fault["msg"])
    pointer = _pointer(path, body) if place == "body" else "/" + "/".join(str(part) for part in path)
    return Problem(problem=_friendly(fault), pointer=pointer, place=place)


def _friendly(fault: Mapping[str, Any]) -> str:
    if fault["type"] in UNKNOWN_FIELD:
        return "this field is not known"
    if fault["type"] in NO_OBJECT:
        whole = fault["loc"] == ("body",)
        return "this is no JSON object" + (" with Content-Type: application/json" if whole else "")
    message: str = fault["msg"]
    return message.removeprefix("Value error, ")


def _pointer(path: Sequence[str | int], body: object) -> str:
    """Return the JSON pointer of a fault; pydantic's path also names members of unions, which are no keys."""
    parts: list[str] = []
    here = body
    for number, part in enumerate(path):
        if isinstance(here, Mapping) and (part in here or number == len(path) - 1):
            here = here.get(part)
        elif isinstance(here, list) and isinstance(part, int) and part < len(here):
            here = here[part]
        else:
            continue
        parts.append(str(part).replace("~", "~0").replace("/", "~1"))
    return "".join(f"/{part}" for part in parts)
