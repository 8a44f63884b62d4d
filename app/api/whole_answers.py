"""An answer's head waits for its body: two writes would wake the client twice, and cost twice."""

from __future__ import annotations

import asyncio

MOST_KEPT_BYTES = 64 * 1024
"""More goes out at once: whoever makes an answer in pieces has to learn when its client reads too slowly."""


class WholeAnswers:
    """The writing side of a transport; what is written in one turn of the loop goes out together."""

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport, self._loop = transport, loop
        self._kept: list[bytes] = []
        self._num_kept = 0

    def write(self, data: bytes) -> None:
        if not data:
            return
        if not self._kept:
            self._loop.call_soon(self.send)  # of an answer that goes on later
        self._kept.append(data)
        self._num_kept += len(data)
        if self._num_kept > MOST_KEPT_BYTES:
            self.send()

    def send(self) -> None:
        """Send what has been written; without it that happens before the loop waits."""
        kept, self._kept, self._num_kept = self._kept, [], 0
        if kept and not self._transport.is_closing():
            self._transport.writelines(kept)

    def close(self) -> None:
        self.send()
        self._transport.close()

    def abort(self) -> None:
        self._kept, self._num_kept = [], 0
        self._transport.abort()

    def is_closing(self) -> bool:
        return self._transport.is_closing()

    def get_write_buffer_size(self) -> int:
        """Return the bytes that the client has not taken yet; what is kept was not offered to it."""
        return self._transport.get_write_buffer_size()
