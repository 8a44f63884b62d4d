"""A job process as its keeper sees it: started in a session of its own, listened to, and surely ended."""

from __future__ import annotations

import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from detection.training.state import StopRequest
from worker.control import LAST_WORD, LETTERS

READ_BYTES = 4096
ENDING_S = 0.05
STACKS_S = 1.0
"""Time for a hung process to write down where it hangs."""


class Child:
    """One running job process, and everything that it started."""

    def __init__(self, process: subprocess.Popen[bytes], line: socket.socket) -> None:
        self._process, self._line = process, line
        self._told: set[StopRequest] = set()
        self._kill_at: float | None = None
        self.exit_code = 0
        """Once it is closed: negative for a signal."""
        self.has_last_word = False
        """Whether it has said that it ends its attempt itself."""
        self._line.setblocking(False)

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether it has not ended. It is not reaped here, so that its group's number stays its own."""
        options = os.WEXITED | os.WNOHANG | os.WNOWAIT
        return self._process.returncode is None and os.waitid(os.P_PID, self.pid, options) is None

    def wait(self, timeout_s: float) -> int:
        """Wait for signs of progress, for the end, or for `timeout_s`; return how many signs came."""
        readable, _, _ = select.select([self._line], [], [], timeout_s)
        if not readable:
            return 0
        with suppress(ConnectionError):
            if said := self._line.recv(READ_BYTES):
                self.has_last_word = self.has_last_word or LAST_WORD in said
                return len(said)
        time.sleep(min(timeout_s, ENDING_S))  # the line has ended: the process does, too
        return 0

    def tell(self, request: StopRequest) -> None:
        """Give an order, once; a process that has just ended hears no more."""
        if request not in self._told:
            self._told.add(request)
            with suppress(OSError):
                self._line.send(LETTERS[request])

    def stop(self, request: StopRequest, *, grace_s: float) -> None:
        """Give an order that ends the process; after `grace_s` `enforce` ends it by force."""
        self.tell(request)
        self.allow(grace_s)

    def allow(self, grace_s: float) -> None:
        """Let `enforce` end the process by force after `grace_s`, or earlier if that was said before."""
        kill_at = time.monotonic() + grace_s
        self._kill_at = kill_at if self._kill_at is None else min(self._kill_at, kill_at)

    def enforce(self) -> None:
        """Kill what has outlived its grace."""
        if self._kill_at is not None and time.monotonic() >= self._kill_at:
            self.kill()

    def interrupt_hung(self, *, grace_s: float) -> None:
        """Have the stacks of a process that gets nowhere written to its log, and ask it to stop."""
        self._signal(signal.SIGUSR1)
        time.sleep(STACKS_S)
        self._signal(signal.SIGTERM)
        self.stop(StopRequest.DRAIN, grace_s=grace_s)

    def kill(self) -> None:
        """End the process and all that it started, at once."""
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)

    def close(self) -> None:
        """Leave nothing of its session behind."""
        self._line.close()
        self.kill()
        self.exit_code = self._process.wait()

    def _signal(self, number: signal.Signals) -> None:
        if self.running:
            os.kill(self.pid, number)


def job_command(job_id: str, fence: int, device: str) -> list[str]:
    command = [sys.executable, "-m", "worker.process", job_id, str(fence)]
    return [*command, "--device", device, "--keeper", str(os.getpid())]


@contextmanager
def job_process(
    job_id: str, fence: int, *, device: str, log_file: Path, environment: Mapping[str, str]
) -> Iterator[Child]:
    """Run `python -m worker.process` for one attempt; it is gone when the block ends."""
    ours, theirs = socket.socketpair()
    log_file.parent.mkdir(parents=True, exist_ok=True)
    with ours, theirs, log_file.open("ab") as log:
        process = subprocess.Popen(
            job_command(job_id, fence, device),
            stdin=theirs.fileno(),
            stdout=log,
            stderr=log,
            env={**os.environ, **environment},
            start_new_session=True,
        )
        theirs.close()
        child = Child(process, ours)
        try:
            yield child
        finally:
            child.close()
