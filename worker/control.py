"""The line between a job process and its keeper: orders one way, signs of progress and a last word the other.

The line is one socket, and the standard input of the process. Its end means stop.
"""

from __future__ import annotations

import os
import select
import signal
import socket
import threading
from contextlib import suppress
from types import FrameType

from app.logs import get_logger
from detection.training.state import StopRequest
from worker.exit_codes import ExitCode

ORDERS = {b"c": StopRequest.CANCEL, b"d": StopRequest.DRAIN, b"f": StopRequest.FINISH}
LETTERS = {request: letter for letter, request in ORDERS.items()}
STRENGTH = (StopRequest.FINISH, StopRequest.DRAIN, StopRequest.CANCEL)
"""A stronger order replaces a weaker one, never the other way round."""
IMMEDIATE = {StopRequest.CANCEL: ExitCode.CANCELLED, StopRequest.DRAIN: ExitCode.DRAINED}
"""How a process ends that has nothing to save."""
PULSE = b"."
LAST_WORD = b"e"
"""The process ends its attempt itself: from now on its lease may be gone without having been lost."""
WORD_PATIENCE_S = 1.0
"""How long the last word waits for room: unlike a pulse it is not said by those before it."""
ORPHAN_GRACE_S = 1.5
"""How long a process lives on when its keeper is gone: long enough for a small checkpoint."""

log = get_logger(__name__)


class StoppedError(Exception):
    """The process was told to stop, and has saved what there was."""

    def __init__(self, request: StopRequest) -> None:
        self.request = request
        super().__init__(request.value)


class Control:
    """The job process's end of the line."""

    def __init__(self, line: socket.socket) -> None:
        self._line = line
        self._order: StopRequest | None = None
        self._error: Exception | None = None
        self._obeys = False
        self._line.setblocking(True)

    def listen(self) -> None:
        """Take orders from now on: from the line in a thread, and a SIGTERM as a drain."""
        signal.signal(signal.SIGTERM, self._on_sigterm)
        threading.Thread(target=self._listen, name="control", daemon=True).start()

    def obey_yourself(self) -> None:
        """Have orders wait for `request` from now on: the job has something to save before it stops.

        Until then, and for jobs that never call this, an order to stop ends the process at once.
        """
        self._obeys = True
        if self._order in IMMEDIATE:
            raise StoppedError(self._order)

    def request(self) -> StopRequest | None:
        """Return what the process must do, and tell the keeper that it is getting on.

        Raises:
            Exception: whatever `lose` was told.
        """
        self.pulse()
        if self._error is not None:
            raise self._error
        return self._order

    def obey_now(self) -> None:
        """Stop at once if that was ordered: for a job that waits, and has nothing to save.

        Raises:
            StoppedError: it was.
            Exception: whatever `lose` was told.
        """
        if self._error is not None:
            raise self._error
        if self._order in IMMEDIATE:
            raise StoppedError(self._order)

    def pulse(self) -> None:
        """Tell the keeper that the process is getting on; a line that is full has said enough."""
        try:
            self._line.send(PULSE, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return
        except OSError:
            self._order_at_least(StopRequest.DRAIN)

    def last_word(self) -> None:
        """Tell the keeper, before the database hears of it, that the process itself ends its attempt."""
        select.select([], [self._line], [], WORD_PATIENCE_S)
        with suppress(OSError):  # nobody listens any more, or not to anything
            self._line.send(LAST_WORD, socket.MSG_DONTWAIT)

    def lose(self, error: Exception) -> None:
        """Stop at the next step, with the first such error: what this process does counts no longer."""
        self._error = self._error or error

    def _listen(self) -> None:
        while letters := self._receive():
            for letter in letters:
                self._order_at_least(ORDERS[bytes((letter,))])
        log.warning("keeper_gone")
        self._order_at_least(StopRequest.DRAIN)
        threading.Event().wait(ORPHAN_GRACE_S)
        os._exit(ExitCode.LOST_LEASE)

    def _receive(self) -> bytes:
        try:
            return self._line.recv(64)
        except OSError:
            return b""

    def _on_sigterm(self, number: int, frame: FrameType | None) -> None:
        self._order_at_least(StopRequest.DRAIN)

    def _order_at_least(self, request: StopRequest) -> None:
        if request in IMMEDIATE and not self._obeys:
            os._exit(IMMEDIATE[request])  # before the job hears of it and ends by itself, with another code
        if self._order is None or STRENGTH.index(request) > STRENGTH.index(self._order):
            self._order = request
