"""What a connection writes: at once, from whichever thread has it, and in the order in which it was written.

A transport writes when its loop gets round to it, and belongs to that loop. A thread that has a result would
have to wake the loop first, which costs more than the write. So the socket is written to directly; only what
the other side does not take at once is left to the transport, and what comes behind it as well.
"""

from __future__ import annotations

import asyncio
import os
import socket
import threading
from collections.abc import Sequence
from typing import cast

Parts = Sequence[bytes | memoryview]


class Outgoing:
    """The writing side of one connection. All but `write` is for its loop alone."""

    def __init__(self, transport: asyncio.Transport) -> None:
        held = cast(socket.socket, transport.get_extra_info("socket"))
        self._transport, self._loop = transport, asyncio.get_running_loop()
        # A number of its own: the transport's may belong to another connection by the time a thread writes.
        self._socket = socket.socket(fileno=os.dup(held.fileno()))
        self._lock = threading.Lock()
        self._left: list[bytes | memoryview] = []
        self._is_over = False

    def write(self, parts: Parts) -> None:
        """Write these one behind the other; on a connection that is over they go nowhere."""
        with self._lock:
            if self._is_over:
                return
            is_clear = not self._left and not self._transport.get_write_buffer_size()
            rest = _without(parts, self._offer(parts)) if is_clear else list(parts)
            if rest:
                self._left += rest
                self._loop.call_soon_threadsafe(self.pass_on)

    def pass_on(self) -> None:
        """Give the transport what was left to it."""
        with self._lock:  # until the transport has it: nothing may overtake it
            left, self._left = self._left, []
            if left:
                self._transport.writelines(left)

    def end(self) -> None:
        """Write no more: the connection is over."""
        with self._lock:
            self._is_over = True
            self._left.clear()
            self._socket.close()

    def _offer(self, parts: Parts) -> int:
        """Return how many bytes the other side has room for, and now has."""
        try:
            return self._socket.sendmsg(parts, (), socket.MSG_DONTWAIT)
        except OSError:  # nothing, just now or ever: the transport will know
            return 0


def _without(parts: Parts, num_bytes: int) -> list[bytes | memoryview]:
    """Return what is left of some parts behind so many bytes."""
    rest: list[bytes | memoryview] = []
    for part in parts:
        if num_bytes < len(part):
            rest.append(memoryview(part)[num_bytes:] if num_bytes else part)
        num_bytes = max(num_bytes - len(part), 0)
    return rest
