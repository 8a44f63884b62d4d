"""When each program does its work, and whether it still does.

Each is asked in a thread of its own, so that a silent one holds up no other.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Iterator
from queue import Empty, SimpleQueue

from app.supervisor.programs import Program

LOOK_S = 0.2
ASK_S = 5.0
"""How often a program that was ready is asked whether it still answers."""
MOST_UNANSWERED = 3
"""In a row; a busy program answers late, a frozen one never. Each question waits some seconds itself."""


class Readiness:
    """Tells of every process, once, that it has become ready, and once if it then falls silent."""

    def __init__(self, programs: Iterable[Program]) -> None:
        self._programs = {program.name: program for program in programs}
        self._pids: dict[str, int] = {}
        self._news: SimpleQueue[tuple[str, int]] = SimpleQueue()
        self._silent: SimpleQueue[tuple[str, int]] = SimpleQueue()
        self.waiting = sorted(self._programs)
        """The programs that are not ready, by name."""

    def watch(self, name: str, pid: int) -> None:
        """Wait for a process that has just been started; whatever the program was before is forgotten."""
        self._pids[name] = pid
        self.waiting = sorted({*self.waiting, name})
        threading.Thread(target=self._wait, args=(self._programs[name], pid), daemon=True).start()

    def news(self) -> Iterator[str]:
        """Yield the programs that have become ready since the last look."""
        for name, _ in self._newest(self._news):
            self.waiting.remove(name)
            yield name

    def silent(self) -> Iterator[tuple[str, int]]:
        """Yield the processes that have fallen silent since the last look, by program and id."""
        yield from self._newest(self._silent)

    def _newest(self, told: SimpleQueue[tuple[str, int]]) -> Iterator[tuple[str, int]]:
        """Yield what was told of processes that no other has taken the place of."""
        while True:
            try:
                name, pid = told.get_nowait()
            except Empty:
                return
            if self._pids[name] == pid:
                yield name, pid

    def _wait(self, program: Program, pid: int) -> None:
        while self._pids[program.name] == pid:
            if program.is_ready(pid):
                self._news.put((program.name, pid))
                if program.must_answer:
                    self._listen(program, pid)
                return
            time.sleep(LOOK_S)

    def _listen(self, program: Program, pid: int) -> None:
        """Questions are counted, not seconds: a machine that slept makes nobody silent."""
        unanswered = 0
        while self._pids[program.name] == pid and unanswered < MOST_UNANSWERED:
            time.sleep(ASK_S)
            unanswered = 0 if program.is_ready(pid) else unanswered + 1
        if unanswered:
            self._silent.put((program.name, pid))
