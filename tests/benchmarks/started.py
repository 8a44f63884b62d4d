"""A server under measurement: its processes, told by a mark in their environment, stand still for the others.

Servers are started once and measured in turn, round after round. A frozen one takes no processor time; a
stopped one would have to be started and warmed for every round.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import httpx2
import psutil

MARK = "BENCH_MARK"
START_S = 120.0
STOP_S = 10.0
NOT_FOR_OTHERS = ("HARRIER_", "COVERAGE", "PYTEST", "OMP_WAIT_POLICY")
"""Beginnings of variables that belong to the tests and would change how a server computes."""


class NotStartedError(Exception):
    """A server did not answer in time; the message ends with what it printed last."""


@dataclass(frozen=True, kw_only=True)
class Server:
    """Something that answers `POST path` on a port."""

    name: str
    port: int
    path: str
    processes: Callable[[], list[psutil.Process]]

    def freeze(self) -> None:
        """Take the processor from it until `thaw`."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self._signal(signal.SIGCONT)

    def _signal(self, number: signal.Signals) -> None:
        for process in self.processes():
            try:
                process.send_signal(number)
            except psutil.NoSuchProcess:
                continue


class Started:
    """A command and everything that it starts, in whatever session; nothing of it is left afterwards."""

    def __init__(self, command: list[str], environment: dict[str, str], log: Path, cwd: Path) -> None:
        self.mark = uuid4().hex
        self._log = log
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(NOT_FOR_OTHERS)}
        with log.open("wb") as output:
            self._process = subprocess.Popen(
                command,
                env={**inherited, **environment, MARK: self.mark},
                cwd=cwd,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                # No session of its own: Linux shares the cores among sessions (sched_autogroup), and the
                # sender is to be beside every server in the same way.
            )

    def processes(self) -> list[psutil.Process]:
        """Return every process that has the mark."""
        mark = f"{MARK}={self.mark}\0".encode()
        return [process for process in psutil.process_iter() if mark in _environment(process.pid)]

    def wait_until_it_answers(self, url: str, picture: bytes) -> None:
        """Ask for a picture until the answer is 200.

        Raises:
            NotStartedError: it ended, or the time is over.
        """
        end = time.monotonic() + START_S
        with httpx2.Client(trust_env=False, timeout=START_S) as http:
            while time.monotonic() < end and self._process.poll() is None:
                try:
                    if http.post(url, content=picture, headers={"Content-Type": "image/jpeg"}).is_success:
                        return
                except httpx2.TransportError:
                    pass
                time.sleep(0.2)
        raise NotStartedError(f"no answer; it printed: {self._log.read_text(errors='replace')[-1500:]}")

    def stop(self) -> None:
        """End it in order, and what is left of it by force."""
        self._process.terminate()
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(STOP_S)
        while left := self.processes():
            for process in left:
                process.kill()
            psutil.wait_procs(left, timeout=STOP_S)
            self._process.poll()


def _environment(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:
        return b""


def rss_mb(processes: Iterable[psutil.Process]) -> float:
    """Return the resident memory of some processes together; one that ended has none."""
    return sum(_rss(process) for process in processes) / 1e6


def _rss(process: psutil.Process) -> int:
    try:
        return int(process.memory_info().rss)
    except psutil.NoSuchProcess:
        return 0
