"""What surrounds every request: its id, the security headers, one log line, the counters."""

from __future__ import annotations

import re
import time

import structlog
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.api.measures import Measures
from app.database.tables import new_id
from app.logs import log_often

REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
SECURITY_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
}
"""For every answer; a page brings a policy of its own."""
RAW_SECURITY_HEADERS = tuple(
    (name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in SECURITY_HEADERS.items()
)
REQUEST_ID_HEADER = b"x-request-id"
UNLOGGED = frozenset({"/livez", "/readyz", "/v2/health/live", "/v2/health/ready", "/metrics"})
"""Asked for every few seconds by machines."""
CLIENT_GONE = 499
"""What the log says about a request whose client left before the answer; never sent."""


def request_id_of(scope: Scope) -> str:
    """Return the id of a request: the client's own when it is harmless, else a fresh one."""
    state: dict[str, str] = scope.setdefault("state", {})
    if "request_id" not in state:
        given = Headers(scope=scope).get("x-request-id", "")
        state["request_id"] = given if REQUEST_ID.fullmatch(given) else new_id()
    return state["request_id"]


def route_path(scope: Scope) -> str:
    """Return the path as the routes know it, without a proxy's prefix; never taken from the Host header."""
    path: str = scope["path"]
    root: str = scope.get("root_path", "").rstrip("/")
    if root and (path == root or path.startswith(root + "/")):
        return path[len(root) :] or "/"
    return path


class RequestContext:
    def __init__(self, app: ASGIApp, *, measures: Measures) -> None:
        self.app, self.measures = app, measures

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        request_id, started, status = request_id_of(scope), time.perf_counter(), CLIENT_GONE

        async def send_with_headers(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                add_security_headers(message, request_id)
            await send(message)

        with structlog.contextvars.bound_contextvars(request_id=request_id):
            try:
                await self.app(scope, receive, send_with_headers)
            finally:
                self._record(scope, request_id, status, time.perf_counter() - started)

    def _record(self, scope: Scope, request_id: str, status: int, seconds: float) -> None:
        route = getattr(scope.get("route"), "path", "unknown")
        self.measures.note_request(scope["method"], route, status, seconds)
        path = route_path(scope)
        if path not in UNLOGGED:
            ms = round(seconds * 1000, 1)
            client, _ = scope["client"] or (None, 0)
            log_often(
                __name__,
                "request",
                method=scope["method"],
                path=path,
                status=status,
                ms=ms,
                client=client,
                request_id=request_id,
            )


def add_security_headers(message: Message, request_id: str) -> None:
    """Add the request's id, and those of the security headers that the answer has not chosen itself."""
    headers = [(name, value) for name, value in message["headers"] if name.lower() != REQUEST_ID_HEADER]
    chosen = {name.lower() for name, _ in headers}
    headers.append((REQUEST_ID_HEADER, request_id.encode("latin-1")))
    headers.extend(each for each in RAW_SECURITY_HEADERS if each[0] not in chosen)
    message["headers"] = headers
