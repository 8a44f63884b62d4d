"""Compare how long models take for one picture, on whatever executes them.

Shape suffixes: B = images, H W = input pixels.
"""

from __future__ import annotations

import logging
import statistics
from collections.abc import Callable, Mapping

import torch

from detection.analysis.profiler import WARM_UP_RUNS, Now
from detection.clock import synchronised_time
from detection.inference.backends import Backend

logger = logging.getLogger(__name__)


def median_latencies_ms(
    backends: Mapping[str, Backend],
    input_size_hw: tuple[int, int],
    *,
    runs: int = 15,
    now: Now = synchronised_time,
    ran: Callable[[], None] = lambda: None,
) -> dict[str, float]:
    """Return by name the median time that a backend takes for one picture, from pixels to boxes.

    The backends take turns, so that whatever else the machine does slows all of them.

    Args:
        ran: called after every run.
    """
    picture_BCHW = 255 * torch.rand(1, 3, *input_size_hw, generator=torch.Generator().manual_seed(0))
    times: dict[str, list[float]] = {name: [] for name in backends}
    for run in range(WARM_UP_RUNS + runs):
        for name, backend in backends.items():
            began = now(backend.device)
            backend.run(picture_BCHW)
            if run >= WARM_UP_RUNS:
                times[name].append(1000 * (now(backend.device) - began))
            ran()
    medians = {name: statistics.median(each) for name, each in times.items()}
    logger.info("medians of %d runs: %s", runs, medians)
    return medians
