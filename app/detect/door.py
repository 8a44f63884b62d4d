"""The short way to `/detect`: a request like one that FastAPI has read before is not read by it again."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from fastapi import Request, Response
from starlette.datastructures import URLPath
from starlette.routing import BaseRoute, Match, NoMatchFound
from starlette.types import Receive, Scope, Send

from app.api.context import route_path
from app.api.dependencies import check_scope
from app.detect.known_queries import KnownQueries
from app.detect.schemas import DetectParameters
from app.keys.service import Scope as KeyScope

PATH = "/detect"
PARAMETERS = "harrier.detect_parameters"

Answer = Callable[[Request, DetectParameters], Awaitable[Response]]


class DetectDoor(BaseRoute):
    """Stands before all other routes and takes what needs no reading; the rest goes the long way.

    The long way is the documented call; both end in the same function, and differ in nothing but the price.
    """

    path = PATH
    """What a request is counted under."""

    def __init__(self, known: KnownQueries, answer: Answer) -> None:
        self._known, self._answer = known, answer

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        if scope["type"] != "http" or scope["method"] != "POST" or route_path(scope) != PATH:
            return Match.NONE, {}
        parameters = self._known.find(scope["query_string"])
        if parameters is None:
            return Match.NONE, {}
        return Match.FULL, {"route": self, PARAMETERS: parameters}

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive, send)
        check_scope(request, KeyScope.DETECT)
        response = await self._answer(request, scope[PARAMETERS])
        await response(scope, receive, send)

    def url_path_for(self, name: str, /, **path_params: Any) -> URLPath:
        raise NoMatchFound(name, path_params)
