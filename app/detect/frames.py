"""The bytes between the API and the engine: a small message and, behind it, a picture as it is.

A frame is two lengths, the message, the picture. The picture is never packed into the message nor taken out
of it: the socket is read into the memory that the frame lies in, out of which the picture is copied once, and
written from the memory it lies in.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Callable
from typing import cast

from app.detect.outgoing import Outgoing

LENGTHS = struct.Struct(">II")
"""Of the message and of the picture, bytes."""
SEND_BUFFER_BYTES = 1024 * 1024
"""Asked of the system, which may give less: a picture that goes out whole wakes each side once."""
SCRATCH_BYTES = 1024 * 1024
"""Frames that are no longer, which most pictures are, are read many at a time; each longer one into memory of
its own, which is cleared before it is filled."""

Frame = tuple[memoryview, bytes]
"""A message, which is gone after the call, and a picture, or nothing."""


class FrameProtocol(asyncio.BufferedProtocol):
    """One end of a connection: hands over frames as they become whole, and writes them."""

    def __init__(
        self, *, max_bytes: int, on_frame: Callable[[Frame], None], on_end: Callable[[], None]
    ) -> None:
        """Wait for a connection.

        Args:
            max_bytes: the connection ends when the other side announces a longer frame.
            on_end: called once, when the connection has ended for whatever reason.
        """
        self._max_bytes = max_bytes
        self._on_frame, self._on_end = on_frame, on_end
        self._scratch = bytearray(SCRATCH_BYTES)
        self._filled = 0
        self._long: _LongFrame | None = None
        self._transport: asyncio.Transport | None = None
        self._outgoing: Outgoing | None = None
        self._may_write = asyncio.Event()
        self._may_write.set()
        self.ended = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's has the methods, not the class
        held: socket.socket = transport.get_extra_info("socket")
        held.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)
        try:
            self._outgoing = Outgoing(self._transport)
        except OSError:  # too many files are open: who connects anew may have more luck
            self._transport.abort()

    def connection_lost(self, error: Exception | None) -> None:
        if self._outgoing is not None:
            self._outgoing.end()
        self._transport = self._outgoing = None
        self._may_write.set()
        self.ended.set()
        self._on_end()

    def pause_writing(self) -> None:
        self._may_write.clear()

    def resume_writing(self) -> None:
        self._may_write.set()

    def get_buffer(self, size_hint: int) -> memoryview:
        if self._long is not None:
            return self._long.rest
        return memoryview(self._scratch)[self._filled :]

    def buffer_updated(self, num_bytes: int) -> None:
        if self._long is None:
            self._filled += num_bytes
            self._take_apart()
        elif self._long.grow(num_bytes):
            frame, self._long = self._long.frame, None
            self._on_frame(frame)

    def send(self, message: bytes, picture: bytes = b"") -> None:
        """Write a frame, from any thread; without a connection it goes nowhere."""
        outgoing = self._outgoing
        if outgoing is not None:
            begin = LENGTHS.pack(len(message), len(picture)) + message
            outgoing.write([begin, picture] if picture else [begin])

    async def sent(self) -> None:
        """Return when the other side has taken most of what was written, or is gone."""
        await self._may_write.wait()

    def close(self) -> None:
        """Hang up when everything is written."""
        if self._transport is not None and self._outgoing is not None:
            self._outgoing.pass_on()
            self._transport.close()

    def abort(self) -> None:
        """Hang up now."""
        if self._transport is not None:
            self._transport.abort()

    def _take_apart(self) -> None:
        """Hand over the frames that lie whole in the scratch, and keep the beginning of the next."""
        view, start = memoryview(self._scratch)[: self._filled], 0
        while len(view) - start >= LENGTHS.size:
            message_bytes, picture_bytes = LENGTHS.unpack_from(view, start)
            if message_bytes + picture_bytes > self._max_bytes:
                self.abort()
                return
            begin = start + LENGTHS.size
            end = begin + message_bytes + picture_bytes
            if end - start > SCRATCH_BYTES:
                self._long = _LongFrame(message_bytes, picture_bytes, view[begin:])
                start = len(view)
            elif end > len(view):
                break
            else:
                start = end
                middle = begin + message_bytes
                self._on_frame((view[begin:middle], bytes(view[middle:end])))
        self._filled = len(view) - start
        if start:
            view[: self._filled] = view[start:]


class _LongFrame:
    """A frame in memory of its own, filled as its bytes arrive."""

    def __init__(self, message_bytes: int, picture_bytes: int, begun: memoryview) -> None:
        self._message_bytes = message_bytes
        self._content = memoryview(bytearray(message_bytes + picture_bytes))
        self._content[: len(begun)] = begun
        self._filled = len(begun)

    @property
    def rest(self) -> memoryview:
        return self._content[self._filled :]

    def grow(self, num_bytes: int) -> bool:
        """Count bytes that were written into the rest; return whether none is left."""
        self._filled += num_bytes
        return self._filled == len(self._content)

    @property
    def frame(self) -> Frame:
        return self._content[: self._message_bytes], bytes(self._content[self._message_bytes :])
