"""Every exception that leaves a route becomes problem+json; what we did not foresee is a 500 with an id."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi.routing import APIRoute
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.routing import compile_path

from app.api.context import CLIENT_GONE, SECURITY_HEADERS, request_id_of, route_path
from app.api.faults import invalid_input, problems_of
from app.api.head import EVENT_STREAM
from app.api.idempotency import ReplayedAnswer
from app.api.refusals import refusal
from app.database.session import is_disk_full
from app.errors import (
    BadRequestError,
    DatabaseUnavailableError,
    HarrierError,
    InternalError,
    InvalidInputError,
    MethodNotAllowedError,
    NotFoundError,
    Place,
    Problem,
)
from app.logs import get_logger
from detection.errors import ConfigError, DetectionError, UnknownNameError

log = get_logger(__name__)

PLACES: tuple[Place, ...] = ("body", "query", "path", "header")


class RefusedError(HTTPException):
    """Carries a HarrierError through code that only HTTPException passes, such as FastAPI's body reading."""

    def __init__(self, error: HarrierError, *, close: bool = False) -> None:
        super().__init__(error.status, error.detail)
        self.error, self.close = error, close


def add_error_handlers(app: FastAPI) -> None:
    for kind, handler in HANDLERS.items():
        app.add_exception_handler(kind, handler)
    app.add_exception_handler(Exception, _unforeseen)


async def answer_error(request: Request, error: Exception) -> Response:
    """Return the answer for one of FORESEEN, where no route of FastAPI does it.

    Raises:
        Exception: the error itself, when it is none that a request can cause.
    """
    handler = next(HANDLERS[kind] for kind in type(error).__mro__ if kind in HANDLERS)
    answer = handler(request, error)
    return answer if isinstance(answer, Response) else await answer


def _answer(request: Request, error: HarrierError, *, close: bool = False) -> Response:
    return refusal(error, request.scope, close=close)


async def _harrier_error(request: Request, error: Exception) -> Response:
    """Answer without a thread: when there is too much of everything, those are taken, too."""
    assert isinstance(error, HarrierError)
    return _answer(request, error)


async def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, RefusedError)
    return _answer(request, error.error, close=error.close)


def _http_exception(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    if error.status_code == NotFoundError.status:
        return _answer(request, NotFoundError("this path does not exist; GET /docs shows those that do"))
    if error.status_code == MethodNotAllowedError.status:
        allow = _allowed(request, (error.headers or {}).get("Allow", ""))
        detail = f"this path knows {allow}"
        return _answer(request, MethodNotAllowedError(detail, headers={"Allow": allow}))
    return _answer(request, BadRequestError(str(error.detail)))


def _validation_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    faults = error.errors()
    no_json = [fault for fault in faults if fault["type"] == "json_invalid"]
    if no_json:
        problem = Problem(problem=f"{no_json[0]['ctx']['error']} at character {no_json[0]['loc'][1]}")
        return _answer(request, BadRequestError("the body is not JSON", problems=[problem]))
    return _answer(request, invalid_input([*_problems(request, faults, error.body)]))


def _problems(request: Request, faults: Sequence[Mapping[str, Any]], body: object) -> Iterator[Problem]:
    """Yield the faults of each place; FastAPI puts the name of the place before pydantic's path."""
    for place in PLACES:
        here = [{**fault, "loc": fault["loc"][1:]} for fault in faults if fault["loc"][0] == place]
        sent = body if place == "body" else None
        yield from problems_of(here, shape=_shape(request, place), sent=sent, place=place)


def _shape(request: Request, place: Place) -> object:
    """Return the type as which FastAPI read a place, as far as fields could be unknown in it."""
    route: APIRoute = request.scope["route"]
    if place == "body":
        return route.body_field.field_info.annotation if route.body_field is not None else object
    models = [field.field_info.annotation for field in route.dependant.query_params]
    return models[0] if place == "query" and len(models) == 1 else object


def _detection_error(request: Request, error: Exception) -> Response:
    """The few errors of the library that a request can cause; any other one is ours."""
    if isinstance(error, ConfigError):
        problems = [Problem(pointer=fault.pointer, problem=fault.problem) for fault in error.faults]
        return _answer(request, invalid_input(problems))
    if isinstance(error, UnknownNameError):
        return _answer(request, InvalidInputError(str(error)))
    raise error


def _replayed(request: Request, error: Exception) -> Response:
    assert isinstance(error, ReplayedAnswer)
    return JSONResponse(error.body, status_code=error.status_code, headers=error.headers)


async def _client_gone(request: Request, error: Exception) -> Response:
    """Nobody will read this; it is for the log, where a client that left is no fault of ours."""
    return Response(status_code=CLIENT_GONE)


def _database_error(request: Request, error: Exception) -> Response:
    """Locked, restarting, out of connections: come back later. A mistake of ours is no such thing."""
    temporary = isinstance(error, OperationalError | InterfaceError | PoolTimeoutError)
    if not temporary and not (isinstance(error, DBAPIError) and error.connection_invalidated):
        raise error
    log.warning("database_unavailable", error=type(error).__name__)
    if isinstance(error, DBAPIError) and is_disk_full(error.orig):
        return _answer(request, DatabaseUnavailableError("the disk of the database is full"))
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
    path, calls = route_path(request.scope), dict[str, Any]()
    for template, described in request.app.openapi()["paths"].items():
        if compile_path(template)[0].match(path):
            calls |= described
    methods = {*known.split(", "), *(method.upper() for method in calls)} - {""}
    if "GET" in methods and not ("get" in calls and _is_stream(calls["get"])):
        methods.add("HEAD")
    return ", ".join(sorted(methods))


def _is_stream(call: Mapping[str, Any]) -> bool:
    return EVENT_STREAM in call["responses"]["200"].get("content", {})


HANDLERS: Mapping[type[Exception], Callable[[Request, Exception], Response | Awaitable[Response]]] = {
    HarrierError: _harrier_error,
    RefusedError: _refused,
    HTTPException: _http_exception,
    RequestValidationError: _validation_error,
    DetectionError: _detection_error,
    ReplayedAnswer: _replayed,
    ClientDisconnect: _client_gone,
    **dict.fromkeys((OperationalError, InterfaceError, DBAPIError, PoolTimeoutError), _database_error),
}
FORESEEN = tuple(HANDLERS)
"""Errors that have an answer."""
