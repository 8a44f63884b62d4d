"""Why one request to the engine fails, in the words of the wire."""

from __future__ import annotations

from app.detect.wire import Refusal


class RefusedError(Exception):
    """This request cannot be served; the others can."""

    def __init__(self, reason: Refusal, message: str) -> None:
        self.reason, self.message = reason, message
        super().__init__(message)
