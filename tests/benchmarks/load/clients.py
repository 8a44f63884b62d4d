"""The clients of a load generator: good ones, and such as reset their connection."""

from __future__ import annotations

import select
import socket
import struct
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

from tests.benchmarks.load.answers import Answer, AnswerReader, UnreadableAnswerError
from tests.benchmarks.load.plan import ADDRESS, Tally

if TYPE_CHECKING:
    from tests.benchmarks.load.generator import Load

SEND_BUFFER_BYTES = 4 * 1024 * 1024
PIECE_BYTES = 256 * 1024
RESET = struct.pack("ii", 1, 0)
"""SO_LINGER with no time: closing resets the connection."""
AGAIN_S = 0.01
"""Pause after a connection that failed."""


class Client:
    """One connection in a closed loop."""

    def __init__(self, load: Load, tally: Tally, requests: Iterator[bytes]) -> None:
        self.load, self.tally = load, tally
        self._requests = requests
        self._socket: socket.socket | None = None
        self._reader = AnswerReader()
        self._unsent = memoryview(b"")
        self._began = 0.0
        self._paused = False
        self.busy = False
        """It owes the counts an answer or a failure."""

    def begin(self, due: float | None = None) -> None:
        """Send the next request; its time runs from `due`."""
        self.busy = True
        self._began = time.perf_counter() if due is None else due
        self._unsent = memoryview(next(self._requests))
        try:
            if self._socket is None:
                self._connect()
            self._send()
        except OSError as error:
            self.fail(type(error).__name__)

    def happened(self, events: int) -> None:
        """Go on after the kernel said that the socket can be read or written."""
        try:
            if events & select.EPOLLOUT:
                self._send()
                if not self._unsent and self._socket is not None:
                    self.load.watch(self._socket, select.EPOLLIN)
            if events & ~select.EPOLLOUT and self._socket is not None:
                self._receive()
        except (OSError, UnreadableAnswerError) as error:
            self.fail(type(error).__name__)

    def answered(self, answer: Answer) -> None:
        """Count the answer and go on."""
        self.busy = False
        self.load.note(self.tally, answer, (time.perf_counter() - self._began) * 1000)
        if answer.closes:
            self.close()
        self.load.free(self)

    def sent(self) -> None:
        """Wait for the answer."""

    def fail(self, how: str) -> None:
        """Count a connection that ended while an answer was due, and try again in a moment."""
        self.close()
        if self.busy:
            self.load.note_failure(self.tally, how)
            self.pause(AGAIN_S)

    def pause(self, seconds: float) -> None:
        """Call `resume` after so long, once."""
        if not self._paused:
            self._paused = True
            self.load.later(seconds, self)

    def resume(self) -> None:
        """Go on after a pause."""
        self._paused = self.busy = False
        self.load.free(self)

    def close(self, *, reset: bool = False) -> None:
        """Hang up, in order or by a reset."""
        if self._socket is not None:
            if reset:
                self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            self.load.forget(self._socket)
            self._socket.close()
        self._socket, self._reader = None, AnswerReader()

    def _connect(self) -> None:
        self._socket = socket.socket()
        self._socket.setblocking(False)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)
        self._socket.connect_ex((ADDRESS, self.load.plan.port))
        self.load.begin_to_watch(self._socket, self)

    def _send(self) -> None:
        assert self._socket is not None
        try:
            while self._unsent:
                self._unsent = self._unsent[self._socket.send(self._unsent) :]
        except BlockingIOError:
            self.load.watch(self._socket, select.EPOLLIN | select.EPOLLOUT)
            return
        self.sent()

    def _receive(self) -> None:
        assert self._socket is not None
        try:
            piece = self._socket.recv(PIECE_BYTES)
        except BlockingIOError:
            return
        if not piece:
            self.fail("ended without an answer")
            return
        answer = self._reader.feed(piece)
        if answer is not None:
            self.answered(answer)


class ResettingClient(Client):
    """Sends a whole picture, gives the server time to begin, and resets the connection."""

    def sent(self) -> None:
        self.pause(self.load.plan.reset_after_s)

    def answered(self, answer: Answer) -> None:
        """Be too late with the reset; it comes all the same."""
        self.load.note(self.tally, answer, 0.0)

    def resume(self) -> None:
        if self._socket is not None:
            self.close(reset=True)
            self.load.note_failure(self.tally, "reset")
        super().resume()
