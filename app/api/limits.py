"""Bounds on what a client may send: how much, how slowly, in which characters and encoding. Pure ASGI."""

from __future__ import annotations

import asyncio
import time

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.api.context import route_path
from app.api.error_handlers import RefusedError
from app.api.refusals import refusal
from app.api.short_bodies import whole_body
from app.errors import (
    BadRequestError,
    HarrierError,
    PayloadTooLargeError,
    RequestTimeoutError,
    UnsupportedMediaError,
)
from app.settings import MIB, Settings

FORM_BYTES = 1 * MIB
"""What a form may need besides its file."""
MODELS, INFER = "/v2/models/", "/infer"
"""Of a path to which pictures are sent by the Open Inference Protocol."""
SLOWEST_BYTES_PER_S = 1024
"""A body that comes more slowly than this over `body_timeout_s` is given up."""


class RequestLimits:
    """Refuses a body by its announced length before a byte is read, by its real length while it comes."""

    def __init__(self, app: ASGIApp, *, settings: Settings) -> None:
        self.app = app
        self.timeout_s = settings.body_timeout_s
        self.max_other_bytes = settings.max_json_bytes
        self.max_bytes = {
            "/datasets": settings.max_upload_bytes + FORM_BYTES,
            "/models/import": settings.max_weights_bytes + FORM_BYTES,
            "/detect": settings.max_detect_bytes,
        }
        self.max_video_bytes = {
            "video/": settings.max_video_bytes,
            "multip": max(settings.max_video_bytes + FORM_BYTES, settings.max_detect_bytes),
        }
        """By how the kind of a body to `/detect` begins; of a form that holds pictures less is read."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        limit = self._limit(route_path(scope), headers)
        refused = _address_refusal(scope) or _refusal(headers, limit)
        if refused is not None:
            answer = refusal(refused, scope, close=True)
            await answer(scope, receive, send)
            return
        if whole_body(scope) is not None:  # as long as announced, and here already
            await self.app(scope, receive, send)
            return
        await self.app(scope, BoundedBody(receive, limit, self.timeout_s).receive, send)

    def _limit(self, path: str, headers: Headers) -> int:
        if path.startswith(MODELS) and path.endswith(INFER):
            return self.max_bytes["/detect"]
        limit = self.max_bytes.get(path, self.max_other_bytes)
        if path != "/detect":
            return limit
        return self.max_video_bytes.get(headers.get("content-type", "")[:6].lower(), limit)


class BoundedBody:
    """A request body that may be neither too long nor too slow. Only the time spent waiting is counted."""

    def __init__(self, receive: Receive, limit: int, timeout_s: float) -> None:
        self._receive, self._limit, self._timeout_s = receive, limit, timeout_s
        self._total = self._window_bytes = 0
        self._patience_s = timeout_s
        self._complete = False

    async def receive(self) -> Message:
        if self._complete:
            return await self._receive()  # only news of the client's leaving can come
        message = await self._wait()
        if message["type"] == "http.request":
            self._complete = not message.get("more_body", False)
            self._count(len(message.get("body", b"")))
        return message

    async def _wait(self) -> Message:
        started = time.monotonic()
        try:
            async with asyncio.timeout(self._patience_s):
                return await self._receive()
        except TimeoutError:
            slow = RequestTimeoutError(
                f"fewer than {SLOWEST_BYTES_PER_S} bytes a second came for {self._timeout_s:g} s"
            )
            raise RefusedError(slow, close=True) from None
        finally:
            self._patience_s = max(self._patience_s - (time.monotonic() - started), 0.001)

    def _count(self, num_bytes: int) -> None:
        self._total += num_bytes
        if self._total > self._limit:
            raise RefusedError(_too_large(self._limit), close=True)
        self._window_bytes += num_bytes
        if self._window_bytes >= SLOWEST_BYTES_PER_S * self._timeout_s:
            self._window_bytes, self._patience_s = 0, self._timeout_s


def _address_refusal(scope: Scope) -> HarrierError | None:
    """Refuse NUL, which no text of ours holds and no database takes; JSON and forms refuse it, too."""
    if "\0" in scope["path"] or b"%00" in scope["query_string"]:
        return BadRequestError("the address holds NUL (%00)")
    return None


def _refusal(headers: Headers, limit: int) -> HarrierError | None:
    if "transfer-encoding" in headers and "content-length" in headers:
        return BadRequestError("Content-Length and Transfer-Encoding contradict each other")
    if headers.get("content-encoding", "identity").lower() != "identity":
        return UnsupportedMediaError("a request body must not be compressed as a whole (Content-Encoding)")
    length = headers.get("content-length", "0")
    if length.isascii() and length.isdigit() and int(length[:20]) > limit:
        return _too_large(limit)
    return None


def _too_large(limit: int) -> PayloadTooLargeError:
    return PayloadTooLargeError(f"at most {limit:,} bytes may be sent here".replace(",", " "))
