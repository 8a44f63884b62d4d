"""Ends an engine that has answered before and answers no more, where only health checks look after it.

Compose calls a container unhealthy and leaves it running. A health check can do what `harrier serve` does:
kill the process, whose container is then started again.
"""

from __future__ import annotations

import os
import signal
import socket
import struct
import time
from contextlib import suppress
from pathlib import Path

from app.settings import Settings

MOST_UNANSWERED = 3
"""Checks in a row; a busy engine answers late, a frozen one never."""
STACKS_S = 1.0
"""Time for a hung process to write down where it hangs."""
CREDENTIALS = struct.Struct("3i")
"""Process, user and group, as the kernel tells them of who listens on a socket."""
START_TIME = 19
"""Of the fields that follow a process's name in its `stat`."""


def note_check(settings: Settings, *, answers: bool) -> None:
    """Note how a check of the engine went, and kill the engine when it was silent for too many in a row.

    One that has not answered yet is only starting, and one in another container cannot be killed from here.
    """
    notes = settings.engine_socket.with_suffix(".checks")
    if answers:
        pid, unanswered = _listener(settings.engine_socket), 0
    else:
        pid, started, unanswered = _read(notes)
        unanswered += 1
        if not pid or started != _start_of(pid):  # to signal process 0 is to signal one's own group
            return
    if unanswered < MOST_UNANSWERED:
        notes.write_text(f"{pid} {_start_of(pid)} {unanswered}")
    else:
        end_hung(pid)


def end_hung(pid: int) -> None:
    """Have a process write the stacks of its threads to its log, if it still can, and kill it."""
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGUSR1)
        time.sleep(STACKS_S)
        os.kill(pid, signal.SIGKILL)  # one that is frozen hears nothing else


def _listener(path: Path) -> int:
    """Return who listens on a socket; 0 when nobody does, or somebody in another container."""
    with socket.socket(socket.AF_UNIX) as probe:
        if probe.connect_ex(str(path)):
            return 0
        told = probe.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, CREDENTIALS.size)
    pid: int = CREDENTIALS.unpack(told)[0]
    return pid


def _start_of(pid: int) -> str:
    """Return when a process began: in a container every engine may get the same number. `-` for none."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[START_TIME]
    except OSError:
        return "-"


def _read(notes: Path) -> tuple[int, str, int]:
    try:
        pid, started, unanswered = notes.read_text().split()
        return int(pid), started, int(unanswered)
    except (OSError, ValueError):  # none yet, or only half of one on a full disk
        return 0, "", 0
