"""Log lines that are written a moment later, together: each alone would wake whoever reads them."""

from __future__ import annotations

import io
import logging
import threading
from contextlib import suppress
from typing import TextIO

LONGEST_S = 0.2
"""That a line waits; when the process is killed, the lines of so long are lost."""
MOST_LINES = 1000


class GatheringHandler(logging.StreamHandler[TextIO]):
    """Keeps lines until there are many or some time has passed; a warning is written at once.

    A line is made when it is logged: later its time and the request that it is about would be others.
    """

    def __init__(self, stream: TextIO) -> None:
        self._out, self._kept = stream, io.StringIO()
        super().__init__(self._kept)
        assert self.lock is not None, "every handler has made one by now"
        self._lock = self.lock
        self._num_lines = 0
        self._is_keeping = False
        self._timer: threading.Timer | None = None

    def emit(self, record: logging.LogRecord) -> None:
        """Keep the line of a record; the caller holds the handler's lock."""
        self._is_keeping = True
        try:
            super().emit(record)  # which calls `flush`
        finally:
            self._is_keeping = False
        self._count(record.levelno)

    def keep(self, line: str) -> None:
        """Keep a line that was made elsewhere, of level INFO."""
        with self._lock:
            self._kept.write(f"{line}\n")
            self._count(logging.INFO)

    def _count(self, level: int) -> None:
        self._num_lines += 1
        if level >= logging.WARNING or self._num_lines >= MOST_LINES:
            self.flush()
        elif self._timer is None:
            self._timer = threading.Timer(LONGEST_S, self.flush)
            self._timer.daemon = True
            self._timer.start()

    def flush(self) -> None:
        """Write what has been kept, in its order."""
        with self._lock:
            if self._is_keeping:
                return
            if self._timer is not None:
                self._timer.cancel()
            lines, self._num_lines, self._timer = self._kept.getvalue(), 0, None
            self.stream = self._kept = io.StringIO()
            with suppress(OSError):  # nobody can be told, and who logs must not fail
                self._out.write(lines)
                self._out.flush()
