"""The HTTP server: uvicorn with bounds on connections, headers, and the time that a stop may take."""

from __future__ import annotations

import asyncio
import resource
from contextlib import suppress
from types import FrameType
from typing import Any, ClassVar

import h11
import uvicorn
from fastapi import FastAPI
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

from app.api.connection import FrugalConnection, bad_request
from app.api.context import request_id_of
from app.api.problems import problem_response
from app.api.state import State
from app.errors import OverloadedError
from app.logs import configure_logging
from app.main import create_app
from app.settings import Settings, get_settings

MAX_REQUESTS = 512
"""At the same time; one more is told to come back."""
MAX_CONNECTIONS = 4 * MAX_REQUESTS
BACKLOG = 512
KEEP_ALIVE_S = 5
GRACE_S = 30
HEADER_BYTES = 16 * 1024
MOST_SKIPPED_BYTES = 4 * 1024 * 1024
LONGEST_SKIP_S = 2.0


def run_api(settings: Settings) -> None:
    """Serve the API until SIGTERM or SIGINT, then finish what was accepted."""
    configure_logging(settings)
    _allow_many_files()
    app = create_app(settings)
    config = uvicorn.Config(
        ReadToTheEnd(RequestLimit(app, MAX_REQUESTS)),
        host=settings.host,
        port=settings.port,
        http=patient_protocol(settings.body_timeout_s),
        ws="none",
        lifespan="on",
        log_config=None,
        log_level="warning",
        access_log=False,
        server_header=False,
        proxy_headers=False,  # the application does it, for the host as well
        backlog=BACKLOG,
        limit_concurrency=MAX_CONNECTIONS,
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=GRACE_S,
        h11_max_incomplete_event_size=HEADER_BYTES,
    )
    ApiServer(config, app).run()


class ApiServer(uvicorn.Server):
    """Tells the application at once that it has to stop, so that its streams end."""

    def __init__(self, config: uvicorn.Config, app: FastAPI) -> None:
        super().__init__(config)
        self._state: State = app.state.service

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self._state.drain()
        super().handle_exit(sig, frame)


class RequestLimit:
    """Answers 503 with Retry-After instead of beginning more requests than one process can finish."""

    def __init__(self, app: ASGIApp, max_requests: int) -> None:
        self._app, self._max_requests = app, max_requests
        self._num_requests = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and self._num_requests >= self._max_requests:
            refused = OverloadedError("too many requests are under way already")
            await problem_response(refused, request_id_of(scope), close=True)(scope, receive, send)
            return
        self._num_requests += 1
        try:
            await self._app(scope, receive, send)
        finally:
            self._num_requests -= 1


class ReadToTheEnd:
    """Reads what is left of a body before an early answer goes out.

    Closing a connection on which the client still sends would make it lose the answer that says why. What is
    announced to be large is not read: such clients ask first, by `Expect: 100-continue`.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        body = _Body(scope, receive)

        async def send_after_reading(message: Message) -> None:
            if message["type"] == "http.response.start":
                await body.skip_rest()
                if not body.is_complete:
                    MutableHeaders(scope=message)["Connection"] = "close"
            await send(message)

        await self._app(scope, body.receive, send_after_reading)


class _Body:
    def __init__(self, scope: Scope, receive: Receive) -> None:
        headers = Headers(scope=scope)
        self._receive = receive
        self._announced = int(headers.get("content-length", "0"))
        self._client_waits = "expect" in headers
        self._num_bytes = 0
        self.is_complete = False

    async def receive(self) -> Message:
        message = await self._receive()
        self._num_bytes += len(message.get("body", b""))
        self.is_complete = not message.get("more_body", False)
        return message

    async def skip_rest(self) -> None:
        if self._client_waits or self._announced - self._num_bytes > MOST_SKIPPED_BYTES:
            return
        most = self._num_bytes + MOST_SKIPPED_BYTES
        with suppress(TimeoutError):
            async with asyncio.timeout(LONGEST_SKIP_S):
                while not self.is_complete and self._num_bytes < most:
                    await self.receive()


class PatientProtocol(H11Protocol):
    """uvicorn's HTTP, but with an end to its patience for request headers and tiny chunks."""

    header_timeout_s: ClassVar[float]
    _header_deadline: asyncio.TimerHandle | None = None

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.conn = FrugalConnection(h11.SERVER, HEADER_BYTES)

    def send_400_response(self, msg: str) -> None:
        self.transport.write(bad_request(self.conn, msg))
        self.transport.close()

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._expect_header()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self.conn.their_state is h11.IDLE:
            self._expect_header()
        else:
            self._header_came()

    def connection_lost(self, exc: Exception | None) -> None:
        self._header_came()
        super().connection_lost(exc)

    def _expect_header(self) -> None:
        if self._header_deadline is None:
            self._header_deadline = self.loop.call_later(self.header_timeout_s, self.transport.close)

    def _header_came(self) -> None:
        if self._header_deadline is not None:
            self._header_deadline.cancel()
            self._header_deadline = None


def patient_protocol(timeout_s: float) -> type[PatientProtocol]:
    """Return the protocol with this timeout: uvicorn makes its instances itself."""
    return type("TimedProtocol", (PatientProtocol,), {"header_timeout_s": timeout_s})


def _allow_many_files() -> None:
    """Raise the limit of open files to what the system allows: every connection is one."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 2 * MAX_CONNECTIONS if hard == resource.RLIM_INFINITY else min(2 * MAX_CONNECTIONS, hard)
    if soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


if __name__ == "__main__":
    run_api(get_settings())
