"""HEAD: what GET would answer, without the body; balancers and download tools ask for it."""

from __future__ import annotations

from fastapi import Response
from fastapi.responses import StreamingResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from app.errors import MethodNotAllowedError

EVENT_STREAM = "text/event-stream"
MARK = "harrier.head"


class EventStream(StreamingResponse):
    """An answer that never ends, so that nothing can be said about it beforehand."""

    media_type = EVENT_STREAM


class Head:
    """Lets the routes see a GET; the server leaves out the body of the answer."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "HEAD":
            await self.app(scope, receive, send)
            return
        # The standard knows ranges for GET only.
        headers = [(name, value) for name, value in scope["headers"] if name != b"range"]
        asked = {**scope, "method": "GET", "headers": headers, MARK: True}
        try:
            await self.app(asked, receive, send)
        finally:
            if "route" in asked:
                scope["route"] = asked["route"]


def refuse_head(scope: Scope, kind: object) -> None:
    """Refuse HEAD for answers of a kind that never ends.

    Raises:
        MethodNotAllowedError: it is one.
    """
    if MARK in scope and kind is EventStream:
        raise MethodNotAllowedError("this path knows GET", headers={"Allow": "GET"})


def without_body(scope: Scope, answer: Response) -> Response:
    """Return the answer to HEAD; one that would be read piece by piece is not even begun."""
    if MARK not in scope or not isinstance(answer, StreamingResponse):
        return answer
    bare = Response(status_code=answer.status_code, background=answer.background)
    bare.raw_headers = answer.raw_headers
    return bare
