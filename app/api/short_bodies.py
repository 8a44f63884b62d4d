"""Short bodies, gathered before their request begins: to wake somebody for each piece would cost more."""

from __future__ import annotations

from asyncio import TimerHandle
from dataclasses import dataclass, field
from typing import Any, cast

from starlette.types import Scope
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

SHORT_BODY_BYTES = 1024 * 1024
"""Most pictures are no longer."""
GATHERING_S = 0.05
"""So long a body is waited for; one that comes more slowly is read as it comes."""
MOST_GATHERED_BYTES = 64 * 1024 * 1024
"""Of all bodies of a process that are being gathered, as announced."""
WHOLE = "harrier.whole_body"
"""Where in the scope of a request."""


@dataclass(slots=True)
class Gathered:
    """What the bodies come to that are being gathered, of all connections of a process."""

    num_bytes: int = 0

    def has_room(self, num_bytes: int) -> bool:
        return self.num_bytes + num_bytes <= MOST_GATHERED_BYTES


@dataclass(frozen=True, slots=True)
class Gathering:
    """A request that waits for its body."""

    cycle: RequestResponseCycle
    app: Any
    length: int
    """Of the body in bytes, as announced."""
    timer: TimerHandle
    pieces: list[bytes] = field(default_factory=list)

    def put_together(self, *, is_whole: bool) -> None:
        """Hand what has come to the request, as the body that it reads."""
        body = self.pieces[0] if len(self.pieces) == 1 else b"".join(self.pieces)
        if is_whole:
            self.cycle.body = cast(bytearray, body)  # nothing is added to it: `receive` need not copy it
            cast(Scope, self.cycle.scope)[WHOLE] = body
        else:
            self.cycle.body += body


def short_length(cycle: RequestResponseCycle) -> int | None:
    """Return how many bytes a body will have that is short and comes unasked; None of any other."""
    lengths = [value for name, value in cycle.scope["headers"] if name == b"content-length"]
    if len(lengths) != 1 or cycle.waiting_for_100_continue:
        return None
    num_bytes = int(lengths[0])  # the parser has read it as a number
    return num_bytes if num_bytes <= SHORT_BODY_BYTES else None


def whole_body(scope: Scope) -> bytes | None:
    """Return the body of a request that began when all of it was there; None of any other."""
    body: bytes | None = scope.get(WHOLE)
    return body
