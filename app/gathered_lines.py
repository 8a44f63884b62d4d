"""Log lines that are written a moment later, together: each alone would wake whoever reads them."""

from __future__ import annotations

import io
import logging
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import TextIO

LONGEST_S = 0.2
"""That a line waits; when the process is killed, the lines of so long are lost."""
MOST_LINES = 1000

Line = Callable[[], str]
"""Makes a line when it is written. All that it says is decided before."""


class GatheringHandler(logging.StreamHandler[TextIO]):
    """Keeps lines until there are many or some time has passed; a warning is written at once.

    The line of a record is made when it is logged: later its values and the request that it is about would be
    others.
    """

    def __init__(self, stream: TextIO) -> None:
        self._out, self._made = stream, io.StringIO()
        super().__init__(self._made)
        assert self.lock is not None, "every handler has made one by now"
        self._lock = self.lock
        self._unmade: list[Line] = []
        """What has been kept after all that is made."""
        self._num_lines = 0
        self._is_keeping = False
        self._writer: threading.Thread | None = None
        self._are_some = threading.Event()

    def emit(self, record: logging.LogRecord) -> None:
        """Keep the line of a record; the caller holds the handler's lock."""
        self._make_lines()
        self._is_keeping = True
        try:
            super().emit(record)  # which calls `flush`
        finally:
            self._is_keeping = False
        self._count(record.levelno)

    def keep(self, line: Line) -> None:
        """Keep a line of level INFO, which is made when it is written, as many others then are.

        To make it is mostly a matter of caches: alone, between pictures, it takes several times as long.
        """
        with self._lock:
            self._unmade.append(line)
            self._count(logging.INFO)

    def flush(self) -> None:
        """Write what has been kept, in its order."""
        with self._lock:
            if self._is_keeping:
                return
            self._make_lines()
            lines, self._num_lines = self._made.getvalue(), 0
            self.stream = self._made = io.StringIO()
            if not self._out.closed:
                with suppress(OSError):  # nobody can be told, and who logs must not fail
                    self._out.write(lines)
                    self._out.flush()

    def _make_lines(self) -> None:
        unmade, self._unmade = self._unmade, []
        self._made.writelines(f"{make()}\n" for make in unmade)

    def _count(self, level: int) -> None:
        self._num_lines += 1
        if level >= logging.WARNING or self._num_lines >= MOST_LINES:
            self.flush()
        elif self._num_lines == 1:
            self._wake_writer()

    def _wake_writer(self) -> None:
        if self._writer is None:
            self._writer = threading.Thread(target=self._write_now_and_then, name="log", daemon=True)
            self._writer.start()
        self._are_some.set()

    def _write_now_and_then(self) -> None:
        while self._are_some.wait():
            self._are_some.clear()
            time.sleep(LONGEST_S)
            self.flush()
