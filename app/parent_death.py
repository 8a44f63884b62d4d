"""Die with the parent: however it ends, even by SIGKILL, the processes that it started end too."""

from __future__ import annotations

import ctypes
import os
import signal

PR_SET_PDEATHSIG = 1


def die_with_parent(with_signal: signal.Signals = signal.SIGTERM, *, parent_pid: int | None = None) -> None:
    """Let the kernel send us `with_signal` when the thread that started us ends.

    Args:
        parent_pid: who started us, when that is known: a parent that died before this call is noticed.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_PDEATHSIG, int(with_signal), 0, 0, 0) != 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))
    if parent_pid is not None and os.getppid() != parent_pid:
        os.kill(os.getpid(), with_signal)
