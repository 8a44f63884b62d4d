"""Log lines that are written a moment later, together: each alone would wake whoever reads them."""

from __future__ import annotations

import logging
import threading
from typing import TextIO

LONGEST_S = 0.2
"""That a line waits; when the process is killed, the lines of so long are lost."""
MOST_LINES = 1000


class GatheringHandler(logging.StreamHandler[TextIO]):
    """Keeps records until there are many or some time has passed; a warning is written at once."""

    def __init__(self, stream: TextIO) -> None:
        super().__init__(stream)
        self._records: list[logging.LogRecord] = []
        self._timer: threading.Timer | None = None

    def emit(self, record: logging.LogRecord) -> None:
        """Keep a record; the caller holds the handler's lock."""
        self._records.append(record)
        if record.levelno >= logging.WARNING or len(self._records) >= MOST_LINES:
            self.flush()
        elif self._timer is None:
            self._timer = threading.Timer(LONGEST_S, self.flush)
            self._timer.daemon = True
            self._timer.start()

    def flush(self) -> None:
        """Write what has been kept, in its order."""
        with self.lock or threading.Lock():
            if self._timer is not None:
                self._timer.cancel()
            records, self._records, self._timer = self._records, [], None
            if records:
                self.stream.write("".join(f"{self.format(record)}{self.terminator}" for record in records))
            super().flush()
