"""How many pictures a batch has on an accelerator: found out once, when a model is loaded."""

from __future__ import annotations

import time
from collections.abc import Callable

from detection.inference.out_of_memory import ALLOCATION_ERRORS, MemoryLimit, is_out_of_memory

WORTH = 1.08
"""A batch twice as large is only worth its longer wait when so many times as many pictures get through."""
RUNS = 3


def learn_batch_size(
    run: Callable[[int], None], *, most: int, clock: Callable[[], float] = time.perf_counter
) -> int:
    """Return the batch size beyond which nothing is gained, or no memory is left.

    Args:
        run: computes one batch of so many pictures, and returns when it is through.
        most: the largest size to try.
    """
    best, best_rate, size = 1, 0.0, 1
    while size <= most:
        rate = _rate(run, size, clock)
        if rate < WORTH * best_rate:
            break
        best, best_rate, size = size, rate, size * 2
    return best


def fitting_batch_size(run: Callable[[int], None], *, wanted: int) -> int:
    """Return the batch size that was decided on elsewhere, halved until there is memory for it.

    Args:
        run: computes one batch of so many pictures, and returns when it is through.
    """
    limit = MemoryLimit(wanted)
    while limit.most > 1:
        try:
            run(limit.most)
        except ALLOCATION_ERRORS as error:
            if not is_out_of_memory(error):
                raise
            limit.halve(limit.most, error)
        else:
            break
    return limit.most


def _rate(run: Callable[[int], None], size: int, clock: Callable[[], float]) -> float:
    """Return pictures per second; 0 when there is no memory for so many."""
    try:
        run(size)
        took_s = []
        for _ in range(RUNS):
            begun = clock()
            run(size)
            took_s.append(clock() - begun)
    except ALLOCATION_ERRORS as error:
        if size > 1 and is_out_of_memory(error):
            return 0.0
        raise
    return size / max(min(took_s), 1e-9)
