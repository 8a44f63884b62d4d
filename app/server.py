"""The HTTP server: uvicorn with bounds on connections, headers, and the time that a stop may take."""

from __future__ import annotations

import asyncio
import faulthandler
import gc
import resource
import signal
import socket
from collections.abc import Collection
from contextlib import suppress
from types import FrameType

import uvicorn
from fastapi import FastAPI
from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.api.connection import LONGEST_SKIP_S, patient_protocol
from app.api.context import SECURITY_HEADERS, request_id_of
from app.api.head import EVENT_STREAM
from app.api.health import PATHS as HEALTH_PATHS
from app.api.refusals import refusal
from app.api.short_bodies import whole_body
from app.api.state import State
from app.errors import OverloadedError
from app.logs import configure_logging
from app.main import create_app
from app.settings import Settings, get_settings
from app.settings_faults import faults_end_the_process

MAX_REQUESTS = 512
"""At the same time; one more is told to come back."""
MAX_CONNECTIONS = 4 * MAX_REQUESTS
BACKLOG = 512
KEEP_ALIVE_S = 5
GRACE_S = 30
MOST_SKIPPED_BYTES = 4 * 1024 * 1024
ANNOUNCING = frozenset({b"content-length", b"transfer-encoding"})
"""Headers of a request that has a body."""


def run_api(settings: Settings) -> None:
    """Serve the API until SIGTERM or SIGINT, then finish what was accepted."""
    configure_logging(settings, gathered=True)
    faulthandler.register(signal.SIGUSR1)  # where it hangs: asked before it is killed for that
    _allow_many_files()
    app = create_app(settings)
    config = uvicorn.Config(
        limited(app, MAX_REQUESTS, settings),
        host=settings.host,
        port=settings.port,
        http=patient_protocol(settings.body_timeout_s, MAX_CONNECTIONS, limited(app, 0, settings)),
        ws="none",
        lifespan="on",
        log_config=None,
        log_level="warning",
        access_log=False,
        server_header=False,
        proxy_headers=False,  # the application does it, for the host as well
        backlog=BACKLOG,
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=GRACE_S,
    )
    ApiServer(config, app).run()


class ApiServer(uvicorn.Server):
    """Tells the application at once that it has to stop, so that its streams end."""

    def __init__(self, config: uvicorn.Config, app: FastAPI) -> None:
        super().__init__(config)
        self._state: State = app.state.service

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        # What was made until now lasts as long as the process: looking through it again finds nothing.
        gc.collect()
        gc.freeze()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self._state.drain()
        super().handle_exit(sig, frame)


def limited(app: ASGIApp, max_requests: int, settings: Settings) -> ASGIApp:
    """Return the application with a bound on its requests, which health is free of."""
    free = {prefix + path for path in HEALTH_PATHS for prefix in ("", settings.root_path)}
    return ReadToTheEnd(RequestLimit(app, max_requests, free=free))


class RequestLimit:
    """Answers 503 with Retry-After instead of beginning more requests than one process can finish.

    A stream of events is no longer counted once it has begun: it waits, and has bounds of its own. Requests
    whose bodies come while they are read are at most half: many slow ones keep out nobody else.
    """

    def __init__(self, app: ASGIApp, max_requests: int, *, free: Collection[str] = ()) -> None:
        self._app, self._max_requests, self._free = app, max_requests, frozenset(free)
        self._num_requests = self._num_coming = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] in self._free:
            await self._app(scope, receive, send)
            return
        is_coming = _is_coming(scope)
        if self._num_requests >= self._max_requests or (is_coming and self._num_coming >= self._most_coming):
            await _refusal(scope)(scope, receive, send)
            return
        self._num_coming += is_coming
        try:
            await self._count(scope, receive, send)
        finally:
            self._num_coming -= is_coming

    @property
    def _most_coming(self) -> int:
        return max(self._max_requests // 2, 1)

    async def _count(self, scope: Scope, receive: Receive, send: Send) -> None:
        counted = 1
        self._num_requests += 1

        async def send_counting(message: Message) -> None:
            nonlocal counted
            if counted and message["type"] == "http.response.start" and _is_stream(message):
                counted = 0
                self._num_requests -= 1
            await send(message)

        try:
            await self._app(scope, receive, send_counting)
        finally:
            self._num_requests -= counted


def _is_coming(scope: Scope) -> bool:
    """Return whether a request has a body that was not there as a whole when it began."""
    return whole_body(scope) is None and any(name in ANNOUNCING for name, _ in scope["headers"])


def _refusal(scope: Scope) -> Response:
    """Return the answer to one request too many, with what the application would have added."""
    answer = refusal(OverloadedError("too many requests are under way"), scope, close=True)
    answer.headers.update({"X-Request-ID": request_id_of(scope), **SECURITY_HEADERS})
    return answer


def _is_stream(message: Message) -> bool:
    return Headers(raw=message["headers"]).get("content-type", "").startswith(EVENT_STREAM)


class ReadToTheEnd:
    """Reads what is left of a body before an early answer goes out, or for a moment after it.

    Closing a connection on which the client still sends would make it lose the answer that says why. A client
    that was never told to go on, after `Expect: 100-continue`, sends nothing. Who comes when there is no room
    hears so at once: what is then still on its way is dropped by the connection, which has a deadline for it.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or whole_body(scope) is not None:
            await self._app(scope, receive, send)
            return
        body, comes_early = _Body(scope, receive), False

        async def send_after_reading(message: Message) -> None:
            nonlocal comes_early
            if message["type"] == "http.response.start":
                comes_early = message["status"] == OverloadedError.status and body.can_be_dropped
                if not comes_early:
                    await body.skip_rest()
                    if not body.is_complete:
                        MutableHeaders(scope=message)["Connection"] = "close"
            if body.is_on_its_way and _is_last(message) and not comes_early:
                await send({**message, "more_body": True})
                await body.read_on()
                message = {"type": "http.response.body"}
            await send(message)

        await self._app(scope, body.receive, send_after_reading)


def _is_last(message: Message) -> bool:
    return message["type"] == "http.response.body" and not message.get("more_body", False)


class _Body:
    def __init__(self, scope: Scope, receive: Receive) -> None:
        headers = Headers(scope=scope)
        self._receive = receive
        self._announced = int(headers.get("content-length", "0"))
        self._client_waits = "expect" in headers
        self._num_bytes = 0
        self.is_complete = False

    @property
    def is_on_its_way(self) -> bool:
        """Whether the client may be sending."""
        return not self.is_complete and not self._client_waits

    @property
    def can_be_dropped(self) -> bool:
        """Whether the connection may take the rest after the answer, and the client go on using it."""
        return self.is_on_its_way and self._announced - self._num_bytes <= MOST_SKIPPED_BYTES

    async def receive(self) -> Message:
        self._client_waits = False  # the server tells it to go on
        message = await self._receive()
        self._num_bytes += len(message.get("body", b""))
        self.is_complete = not message.get("more_body", False)
        return message

    async def skip_rest(self) -> None:
        if self.is_complete or self._client_waits or self._announced - self._num_bytes > MOST_SKIPPED_BYTES:
            return
        most = self._num_bytes + MOST_SKIPPED_BYTES
        with suppress(TimeoutError):
            async with asyncio.timeout(LONGEST_SKIP_S):
                while not self.is_complete and self._num_bytes < most:
                    await self.receive()

    async def read_on(self) -> None:
        """Give a client that has its answer the time to notice it and to stop."""
        with suppress(TimeoutError):
            async with asyncio.timeout(LONGEST_SKIP_S):
                while not self.is_complete:
                    await self.receive()


def _allow_many_files() -> None:
    """Raise the limit of open files to what the system allows: every connection is one."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 2 * MAX_CONNECTIONS if hard == resource.RLIM_INFINITY else min(2 * MAX_CONNECTIONS, hard)
    if soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


if __name__ == "__main__":
    with faults_end_the_process():
        found = get_settings()
    run_api(found)
