"""How fast a predictor serves: from picture bytes to boxes, again and again, on as many streams as asked."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass

from detection.inference.predictor import Predictor

PULSE_S = 1.0


@dataclass(frozen=True, slots=True)
class Speed:
    """What was measured."""

    pictures_per_s: float
    p50_ms: float
    """Of a batch, from its bytes to its boxes."""
    p95_ms: float


def measure_speed(
    predictor: Predictor,
    pictures: Sequence[bytes],
    *,
    streams: int = 1,
    batch_size: int = 1,
    seconds: float = 2.0,
    ran: Callable[[], None] = lambda: None,
) -> Speed:
    """Keep so many streams busy for a while, each with one batch after the other, and time every batch.

    Args:
        predictor: its backend takes calls side by side when there are several streams.
        pictures: they take turns; damaged ones are answered quickly and spoil the figures.
        seconds: every stream finishes the batch that it is at then.
        ran: called about once a second, in the calling thread.
    """
    predictor.warm_up(batch_size)
    predictor.predict(_batch(pictures, 0, batch_size))
    began = time.perf_counter()
    ends = began + seconds
    with ThreadPoolExecutor(streams, thread_name_prefix="stream") as pool:
        running = {
            pool.submit(_run_stream, predictor, pictures, stream, batch_size, ends)
            for stream in range(streams)
        }
        while wait(running, timeout=PULSE_S).not_done:
            ran()
    took_s = time.perf_counter() - began
    times_ms = [1000 * each for stream in running for each in stream.result()]
    return Speed(
        pictures_per_s=batch_size * len(times_ms) / took_s,
        p50_ms=statistics.median(times_ms),
        p95_ms=percentile(times_ms, 0.95),
    )


def percentile(values: Sequence[float], share: float) -> float:
    """Return the smallest value that at least such a share of the values does not exceed."""
    in_order = sorted(values)
    return in_order[max(0, math.ceil(share * len(in_order)) - 1)]


def _run_stream(
    predictor: Predictor, pictures: Sequence[bytes], first: int, batch_size: int, ends: float
) -> list[float]:
    times: list[float] = []
    while not times or time.perf_counter() < ends:
        batch = _batch(pictures, first + batch_size * len(times), batch_size)
        began = time.perf_counter()
        predictor.predict(batch)
        times.append(time.perf_counter() - began)
    return times


def _batch(pictures: Sequence[bytes], first: int, batch_size: int) -> list[bytes]:
    return [pictures[(first + index) % len(pictures)] for index in range(batch_size)]
