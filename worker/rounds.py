"""A thread that does chores, each every so often; when it fails, the worker ends and is started anew."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Sequence

from app.logs import get_logger
from worker.lease import DATABASE_AWAY

log = get_logger(__name__)


class Chore:
    """Something to do every so often; the first time at once."""

    def __init__(self, do: Callable[[], None], *, every_s: float) -> None:
        self._do, self._every_s = do, every_s
        self._due_at = time.monotonic()

    def do_if_due(self) -> None:
        """Do it when it is time; a database or storage that is away is tried again the next time."""
        if self.due_in_s() > 0:
            return
        self._due_at = time.monotonic() + self._every_s
        try:
            self._do()
        except DATABASE_AWAY as error:
            log.warning("database_away", error=str(error.orig))
        except OSError as error:
            log.warning("files_away", error=str(error))

    def due_in_s(self) -> float:
        return max(self._due_at - time.monotonic(), 0.0)


class Rounds(threading.Thread):
    """Does its chores until it is stopped."""

    def __init__(self, name: str, chores: Sequence[Chore]) -> None:
        super().__init__(name=name, daemon=True)
        self._chores = chores
        self._stopping = threading.Event()

    def run(self) -> None:
        try:
            while not self._stopping.wait(min(chore.due_in_s() for chore in self._chores)):
                for chore in self._chores:
                    chore.do_if_due()
        finally:
            if not self._stopping.is_set():
                os.kill(os.getpid(), signal.SIGTERM)

    def stop(self, *, timeout_s: float) -> None:
        """Begin no further chore, and wait a while for the one at hand."""
        self._stopping.set()
        self.join(timeout_s)
