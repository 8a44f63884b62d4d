"""When each program does its work: asked in a thread of its own, so that a silent one holds up no other."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Iterator
from queue import Empty, SimpleQueue

from app.supervisor.programs import Program

LOOK_S = 0.2


class Readiness:
    """Tells of every process, once, that it has become ready."""

    def __init__(self, programs: Iterable[Program]) -> None:
        self._programs = {program.name: program for program in programs}
        self._pids: dict[str, int] = {}
        self._news: SimpleQueue[tuple[str, int]] = SimpleQueue()
        self.waiting = sorted(self._programs)
        """The programs that are not ready, by name."""

    def watch(self, name: str, pid: int) -> None:
        """Wait for a process that has just been started; whatever the program was before is forgotten."""
        self._pids[name] = pid
        self.waiting = sorted({*self.waiting, name})
        threading.Thread(target=self._wait, args=(self._programs[name], pid), daemon=True).start()

    def news(self) -> Iterator[str]:
        """Yield the programs that have become ready since the last look."""
        while True:
            try:
                name, pid = self._news.get_nowait()
            except Empty:
                return
            if self._pids[name] == pid:
                self.waiting.remove(name)
                yield name

    def _wait(self, program: Program, pid: int) -> None:
        while self._pids[program.name] == pid:
            if program.is_ready(pid):
                self._news.put((program.name, pid))
                return
            time.sleep(LOOK_S)
