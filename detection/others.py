"""How much of the machine other processes used while something was measured on it. Plain Python."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

PROCESSOR_TIMES = Path("/proc/stat")
WORTH_SAYING = 0.1
TICKS_S = os.sysconf("SC_CLK_TCK")
USER, NICE, SYSTEM, IDLE, WAITING, INTERRUPTS, SOFT_INTERRUPTS, STEAL = range(8)
"""Columns of the line of all processors; those behind are counted as user time already."""


class Others:
    """Counts from when it is made until it is asked."""

    def __init__(self, times: Path = PROCESSOR_TIMES, own_s: Callable[[], float] = time.process_time) -> None:
        self._times, self._own_s = times, own_s
        self._begin = self._read()

    def share(self) -> float | None:
        """Return the share of the machine's processor time that others took; None where none has passed."""
        (before_s, busy_before_s), (now_s, busy_now_s) = self._begin, self._read()
        if now_s <= before_s:
            return None
        return min(max((busy_now_s - busy_before_s) / (now_s - before_s), 0.0), 1.0)

    def _read(self) -> tuple[float, float]:
        """Return the time of all processors, and what others did in it."""
        columns = self._times.read_text(encoding="ascii").splitlines()[0].split()[1 : STEAL + 2]
        seconds = [int(column) / TICKS_S for column in columns]
        busy_s = sum(seconds) - seconds[IDLE] - seconds[WAITING]
        return sum(seconds), busy_s - self._own_s()


def in_words(share: float | None) -> str | None:
    """Return what to know about figures that were measured beside others; None when these did little."""
    if share is None or share <= WORTH_SAYING:
        return None
    return (
        f"other processes used {share:.0%} of the machine's processor time meanwhile: without them the "
        "figures are better, and another way may be the best"
    )
