"""Ends a process that was well before and is silent now, where only health checks look after it.

Compose calls a container unhealthy and leaves it running. A health check can do what `harrier serve` does:
kill the process, whose container is then started again.
"""

from __future__ import annotations

import os
import platform
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from app.settings import Settings

MOST_SILENT = 3
"""Checks in a row; a busy process answers late, a frozen one never."""
STACKS_S = 1.0
"""Time for a hung process to write down where it hangs."""
OLD_S = 24 * 3600.0
"""Notes that nobody has written for so long are of a container that is gone."""
START_TIME = 19
"""Of the fields that follow a process's name in its `stat`."""


def note_check(
    settings: Settings,
    program: str,
    *,
    is_well: bool,
    find: Callable[[], int],
    is_silent: Callable[[int], bool],
) -> None:
    """Note how a check of a program went, and kill its process when that was silent for too many in a row.

    One that was not well yet is only starting, and one in another container cannot be killed from here.

    Args:
        find: returns the process that is well, or 0 for one in another container.
        is_silent: whether it is this process's own doing that the program is not well.
    """
    # The containers share the home, and number their processes each for itself.
    notes = settings.home_path / "run" / f"{program}@{platform.node()}.checks"
    if is_well:
        pid, silent = find(), 0
        _remove_old(notes)
    else:
        pid, started, silent = _read(notes)
        if not pid or started != _start_of(pid):  # to signal process 0 is to signal one's own group
            return
        silent = silent + 1 if is_silent(pid) else 0
    if silent < MOST_SILENT:
        _write(notes, f"{pid} {_start_of(pid)} {silent}")
    else:
        end_hung(pid)


def end_hung(pid: int) -> None:
    """Have a process write the stacks of its threads to its log, if it still can, and kill it."""
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGUSR1)
        time.sleep(STACKS_S)
        os.kill(pid, signal.SIGKILL)  # one that is frozen hears nothing else


def _start_of(pid: int) -> str:
    """Return when a process began: in a container each new one may get the same number. `-` for none."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[START_TIME]
    except OSError:
        return "-"


def _read(notes: Path) -> tuple[int, str, int]:
    try:
        pid, started, silent = notes.read_text().split()
        return int(pid), started, int(silent)
    except (OSError, ValueError):  # none yet, or only half of one on a full disk
        return 0, "", 0


def _write(notes: Path, text: str) -> None:
    with suppress(OSError):  # a full disk makes nobody ill
        notes.parent.mkdir(parents=True, exist_ok=True)
        notes.write_text(text)


def _remove_old(notes: Path) -> None:
    with suppress(OSError):
        for each in notes.parent.glob(f"*{notes.suffix}"):
            if time.time() - each.stat().st_mtime > OLD_S:
                each.unlink(missing_ok=True)
