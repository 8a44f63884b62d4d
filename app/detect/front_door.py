"""The shortest way to `/detect`: a plain request passes none of what could only let it through.

Most of what surrounds the routes looks for what is unusual: other web sites, bodies in pieces or compressed,
HEAD, queries that nobody has read yet. A body that is there as a whole, with nothing unusual about it, goes
straight to the function that answers it. Everything else goes through the house, to the same function.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping

from fastapi import Request, Response
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from app.api.context import route_path
from app.api.dependencies import check_scope
from app.api.error_handlers import FORESEEN, answer_error
from app.api.gate import Gate, secret_of
from app.api.refusals import refusal
from app.api.short_bodies import whole_body
from app.detect.known_queries import KnownQueries
from app.detect.schemas import DetectParameters
from app.errors import HarrierError
from app.keys.service import Scope as KeyScope
from app.settings import Settings

Answering = Callable[[Request, DetectParameters], Awaitable[Response]]

UNUSUAL = frozenset({b"origin", b"transfer-encoding", b"content-encoding"})
"""Headers that somebody in the house has a word to say about, as about one that comes twice."""
KEYS = frozenset({b"authorization", b"x-api-key"})


class FrontDoor:
    """Stands before the house, inside of what every request is counted and logged by."""

    path = "/detect"
    """What a request is counted under: here it is the route."""

    def __init__(
        self, app: ASGIApp, *, gate: Gate, settings: Settings, known: KnownQueries, answer: Answering
    ) -> None:
        self.app, self._gate, self._known, self._answer = app, gate, known, answer
        self._most_bytes = min(settings.max_detect_bytes, settings.max_video_bytes)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        parameters = self._parameters_of(scope)
        if parameters is None:
            await self.app(scope, receive, send)
            return
        caller = await self._gate.admit(scope, _secret(scope))
        if isinstance(caller, HarrierError):
            answer = refusal(caller, scope, close=True)
        else:
            scope["state"]["caller"], scope["route"] = caller, self
            request = Request(scope, receive, send)
            try:
                check_scope(request, KeyScope.DETECT)
                answer = await self._answer(request, parameters)
            except FORESEEN as error:
                answer = await answer_error(request, error)
        await answer(scope, receive, send)

    def _parameters_of(self, scope: Scope) -> DetectParameters | None:
        """Return what is asked for by a request that may pass; None of any other."""
        body = whole_body(scope)
        if body is None or scope["method"] != "POST" or route_path(scope) != self.path:
            return None
        headers = dict(scope["headers"])
        are_unusual = len(headers) < len(scope["headers"]) or not UNUSUAL.isdisjoint(headers)
        if are_unusual or len(body) > self._most_bytes:
            return None
        if not self._gate.answers_to(_host(headers)):
            return None
        return self._known.find(scope["query_string"])


def _host(headers: Mapping[bytes, bytes]) -> str:
    return headers.get(b"host", b"").decode("latin-1")


def _secret(scope: Scope) -> str | None:
    has_key = any(name in KEYS for name, _ in scope["headers"])
    return secret_of(Headers(scope=scope)) if has_key else None
