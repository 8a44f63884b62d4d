"""How long models take for one picture, by a clock that a test can read."""

from __future__ import annotations

import logging

import pytest
import torch
from torch import Tensor

from detection.analysis.latency import median_latencies_ms
from detection.analysis.profiler import WARM_UP_RUNS
from detection.devices import CPU


class Slow:
    """A backend whose runs take so many milliseconds, one after the other."""

    device = CPU

    def __init__(self, clock: list[float], took_ms: list[int]) -> None:
        self._clock, self._took_ms = clock, took_ms
        self.shapes: list[tuple[int, ...]] = []

    def run(self, images_BCHW: Tensor) -> tuple[Tensor, Tensor]:
        self.shapes.append(tuple(images_BCHW.shape))
        self._clock[0] += self._took_ms[len(self.shapes) - 1] / 1000
        return torch.zeros(1, 0, 4), torch.zeros(1, 0, 1)


def test_medians_are_those_of_the_runs_after_the_first(caplog: pytest.LogCaptureFixture) -> None:
    clock, ran = [0.0], list[None]()
    warm_up = [900] * WARM_UP_RUNS
    one, other = (Slow(clock, [*warm_up, *times]) for times in ([5, 1, 3], [20, 40, 10]))
    with caplog.at_level(logging.INFO):
        medians = median_latencies_ms(
            {"one": one, "other": other},
            (64, 96),
            runs=3,
            now=lambda device: clock[0],
            ran=lambda: ran.append(None),
        )
    assert medians == {"one": pytest.approx(3), "other": pytest.approx(20)}
    assert set(one.shapes) == {(1, 3, 64, 96)}
    assert len(ran) == 2 * (WARM_UP_RUNS + 3)
    assert caplog.messages[0].startswith("medians of 3 runs: {'one': ")
