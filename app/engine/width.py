"""How many threads a picture gets that is alone: all, as long as that is the quicker way.

On a machine that is idle all cores are. Beside a training they are not: threads that belong together then
wait for each other, and a single one is quicker.
"""

from __future__ import annotations

SLOWER = 1.3
"""Times the best: when all threads together have become so slow, one alone is tried."""
RETRY_WIDE_AFTER, RETRY_NARROW_AFTER = 16, 64
"""Pictures until the way that was the slower one is tried again: soon, whether the cores are free again;
seldom, whether one thread is quicker by now than all."""
WEIGHT = 0.3
"""Of the newest time in what is remembered, when it is the longer one. A shorter one is believed at once: the
longer ones before may have met something that has gone."""


class Width:
    """Remembers how long a lone picture took in either way."""

    def __init__(self) -> None:
        self._best_wide_s = float("inf")
        self._wide_s = 0.0
        self._narrow_s: float | None = None
        self._looks = 0

    def is_wide(self) -> bool:
        """Return whether the next picture that is alone gets all threads."""
        if self._wide_s <= SLOWER * self._best_wide_s:
            return True
        if self._narrow_s is None:
            return False
        self._looks += 1
        wide_is_quicker = self._wide_s <= self._narrow_s
        retry_after = RETRY_NARROW_AFTER if wide_is_quicker else RETRY_WIDE_AFTER
        return wide_is_quicker != (self._looks % retry_after == 0)

    def note(self, took_s: float, *, wide: bool) -> None:
        """Remember how long a picture took that was alone from beginning to end."""
        if wide:
            self._best_wide_s = min(self._best_wide_s, took_s)
            self._wide_s = _remembered(self._wide_s or took_s, took_s)
        else:
            self._narrow_s = _remembered(self._narrow_s or took_s, took_s)


def _remembered(before_s: float, now_s: float) -> float:
    return min((1 - WEIGHT) * before_s + WEIGHT * now_s, now_s)
