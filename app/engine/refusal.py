"""Why one request to the engine fails, in the words of the wire."""

from __future__ import annotations

from app.detect.wire import Refusal


class RefusedError(Exception):
    """This request cannot be served; the others can."""

    def __init__(self, reason: Refusal, message: str, *, retry_after_s: int | None = None) -> None:
        self.reason, self.message, self.retry_after_s = reason, message, retry_after_s
        super().__init__(message)
