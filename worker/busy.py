"""Show progress for a long call that cannot do it itself: while bytes move, the process is not hung."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import psutil

from worker.control import Control

LOOK_S = 1.0


@contextmanager
def pulse_while_bytes_move(control: Control, *, look_s: float = LOOK_S) -> Iterator[None]:
    """Tell the keeper that the process is getting on whenever it has read or written something."""
    done = threading.Event()
    watch = threading.Thread(target=_watch, args=(control, done, look_s), name="busy", daemon=True)
    watch.start()
    try:
        yield
    finally:
        done.set()
        watch.join()


def _watch(control: Control, done: threading.Event, look_s: float) -> None:
    process = psutil.Process()
    moved = _bytes_moved(process)
    while not done.wait(look_s):
        before, moved = moved, _bytes_moved(process)
        if moved != before:
            control.pulse()


def _bytes_moved(process: psutil.Process) -> int:
    counters = process.io_counters()
    return int(counters.read_chars + counters.write_chars)
