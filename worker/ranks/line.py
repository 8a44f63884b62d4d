"""The line between a job process and the ranks of its training: one socket, the standard input of all ranks.

The first rank calls the job process, which alone speaks to the database, and waits for each answer. Any rank
may say why it ends, and torchrun which rank it was that ended. A message is one packet: many may write.
"""

from __future__ import annotations

import select
import socket
from typing import Any

import msgspec

from detection.error_record import ErrorRecord, record_of
from detection.errors import DetectionError

LONGEST_TEXT = 20_000
"""Characters of one text; a packet holds some 200 kB."""
PACKET_BYTES = 1 << 20


class Call(msgspec.Struct, frozen=True, tag="call"):
    """The first rank tells or asks something."""

    method: str
    arguments: list[Any]


class Failed(msgspec.Struct, frozen=True, tag="failed"):
    """A rank ends with an error of the library."""

    rank: int
    error: ErrorRecord


class Crashed(msgspec.Struct, frozen=True, tag="crashed"):
    """A rank ends with an error that nobody foresaw."""

    rank: int
    line: str
    """For the job's log."""


class Died(msgspec.Struct, frozen=True, tag="died"):
    """Torchrun has seen a rank end before its time, and has ended the others."""

    rank: int
    code: int
    """As its parent sees it: negative for a signal."""


Message = Call | Failed | Crashed | Died


def line_pair() -> tuple[socket.socket, socket.socket]:
    """Return both ends of a new line: the job process's, and that of everybody else."""
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)


class JobEnd:
    """The job process's end."""

    def __init__(self, line: socket.socket) -> None:
        self._line = line
        self.ended = False
        """Whether nobody is left at the other end."""
        self.starter_code: int | None = None
        """How torchrun ended, if it did so by itself: negative for a signal."""

    def has_news(self, timeout_s: float) -> bool:
        """Wait for a message, or for the line's end; return whether there is one of them."""
        readable, _, _ = select.select([self._line], [], [], timeout_s)
        return bool(readable)

    def receive(self) -> Message | None:
        """Return the next message; None when nobody is left at the other end."""
        try:
            packet = self._line.recv(PACKET_BYTES)
        except ConnectionError:
            packet = b""
        self.ended = not packet
        return msgspec.msgpack.decode(packet, type=Message) if packet else None

    def answer(self, value: object) -> None:
        """Answer the call that came last; a rank that has died since then does not hear it."""
        try:
            self._line.send(msgspec.msgpack.encode(value))
        except OSError:
            return  # the next thing that is received is the line's end


class RankEnd:
    """The end of a rank, or of torchrun."""

    def __init__(self, line: socket.socket) -> None:
        self._line = line

    def call(self, method: str, *arguments: object) -> Any:
        """Have the job process do something and return its answer; for the first rank only.

        Raises:
            ConnectionError: the job process is gone.
        """
        self._send(Call(method, [msgspec.to_builtins(each) for each in arguments]))
        packet = self._line.recv(PACKET_BYTES)
        if not packet:
            raise ConnectionResetError("the job process is gone")
        return msgspec.msgpack.decode(packet)

    def fail(self, rank: int, error: DetectionError) -> None:
        self._send(Failed(rank, record_of(error)))

    def crash(self, rank: int, line: str) -> None:
        self._send(Crashed(rank, line[:LONGEST_TEXT]))

    def died(self, rank: int, code: int) -> None:
        self._send(Died(rank, code))

    def _send(self, message: Message) -> None:
        self._line.send(msgspec.msgpack.encode(message))
