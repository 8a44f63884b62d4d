"""Answers that wait for a client which does not read: it is given up, for each takes memory."""

from __future__ import annotations

from asyncio import AbstractEventLoop, TimerHandle, Transport

from app.api.limits import SLOWEST_BYTES_PER_S


class UnreadAnswers:
    """Watches one connection for as long as something waits to be taken by its client."""

    def __init__(self, transport: Transport, loop: AbstractEventLoop, timeout_s: float) -> None:
        self._transport, self._loop, self._timeout_s = transport, loop, timeout_s
        self._deadline: TimerHandle | None = None

    def watch(self) -> None:
        """Begin to watch whether the client takes what waits for it; until then nothing is added to it."""
        self.stop()
        waiting = self._transport.get_write_buffer_size()
        if waiting:
            self._deadline = self._loop.call_later(self._timeout_s, self._check, waiting)

    def stop(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _check(self, waited: int) -> None:
        waiting = self._transport.get_write_buffer_size()
        if waiting and waited - waiting < SLOWEST_BYTES_PER_S * self._timeout_s:
            self._transport.abort()  # to close would wait for the client
        else:
            self.watch()
