"""Nothing passes that the gate has not let in."""

from __future__ import annotations

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from app.api.gate import Gate
from app.api.refusals import refusal
from app.errors import HarrierError


class Guard:
    """Turns away who may not come in, and notes who came in in `scope["state"]["caller"]`."""

    def __init__(self, app: ASGIApp, *, gate: Gate) -> None:
        self.app, self.gate = app, gate

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        caller = await self.gate.judge(scope, Headers(scope=scope))
        if isinstance(caller, HarrierError):
            answer = refusal(caller, scope, close=True)
            await answer(scope, receive, send)
            return
        scope["state"]["caller"] = caller
        await self.app(scope, receive, send)
