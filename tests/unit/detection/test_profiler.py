"""What the profiler counts and times, by a clock that a test can read, and how much memory a run needs."""

from __future__ import annotations

import logging
import math
from itertools import pairwise

import pytest
import torch
from torch import Tensor, nn

from detection.analysis.peak_memory import peak_memory
from detection.analysis.profiler import (
    WARM_UP_RUNS,
    profile,
    profile_parts,
    table_lines,
)
from detection.devices import CPU
from detection.models import create_served_model


class Clock:
    """Moves on by 1 ms, then by 2 ms, 3 ms, … each time it is read."""

    def __init__(self) -> None:
        self.step = self.time_ms = 0

    def __call__(self, device: torch.device) -> float:
        self.step += 1
        self.time_ms += self.step
        return self.time_ms / 1000


def test_a_row_says_what_an_op_costs() -> None:
    conv = nn.Conv2d(3, 8, 3, stride=2, padding=1)
    (row,) = profile(torch.rand(2, 3, 16, 20), conv, 4)
    assert (row.name, row.parameters) == ("Conv2d", 8 * 3 * 9 + 8)
    assert row.gflops == 2 * 2 * (8 * 10) * 8 * 3 * 9 / 1e9
    assert (row.input_shapes, row.output_shapes) == (((2, 3, 16, 20),), ((2, 8, 8, 10),))
    assert row.forward_ms > 0
    assert row.backward_ms > 0


def test_times_are_means_of_the_runs_after_those_that_warm_up() -> None:
    """Each run reads the clock three times: the n-th takes 3n + 2 ms forward and 3n + 3 ms backward."""
    clock, ran = Clock(), list[None]()
    (row,) = profile(torch.rand(1, 2, 4, 4), nn.Conv2d(2, 2, 1), 2, now=clock, ran=lambda: ran.append(None))
    first = 3 * WARM_UP_RUNS
    assert row.forward_ms == pytest.approx((first + 2 + first + 5) / 2)
    assert row.backward_ms == pytest.approx((first + 3 + first + 6) / 2)
    assert (row.forward_ms_std, row.backward_ms_std) == (pytest.approx(1.5), pytest.approx(1.5))
    assert len(ran) == WARM_UP_RUNS + 2


def test_several_ops_take_the_same_input_and_may_be_functions() -> None:
    def halve(maps: Tensor) -> Tensor:
        return maps / 2

    rows = profile(torch.rand(1, 4, 2, 2), [nn.ReLU(), halve], 1, names=["relu"])
    assert [(row.name, row.parameters, row.gflops) for row in rows] == [
        ("relu", 0, 0.0),
        ("function", 0, 0.0),
    ]


def test_what_nothing_can_be_learnt_through_has_no_backward_time() -> None:
    (row,) = profile(torch.rand(1, 4), lambda maps: maps.argmax(dim=1), 2)
    assert math.isnan(row.backward_ms)
    assert math.isnan(row.backward_ms_std)
    assert row.forward_ms > 0


def test_an_op_is_halved_with_its_input_and_stays_as_it_was() -> None:
    conv = nn.Conv2d(2, 2, 1)
    seen = list[torch.dtype]()
    conv.register_forward_hook(lambda module, given, made: seen.append(made.dtype))
    profile(torch.rand(1, 2, 4, 4).half(), conv, 1)
    assert set(seen) == {torch.float16}
    assert conv.weight.dtype is torch.float32
    assert conv.weight.grad is None


def test_runs_that_cannot_be_averaged_are_refused() -> None:
    with pytest.raises(ValueError, match="at least 1"):
        profile(torch.rand(1), nn.ReLU(), 0)


@pytest.mark.parametrize("architecture", ["yolox-nano", "nanodet-plus-m"])
def test_a_detector_has_a_row_per_part_and_they_add_up(architecture: str) -> None:
    detector = create_served_model(architecture, num_classes=2)
    *parts, whole = profile_parts(detector, torch.rand(1, 3, 64, 96), 1)
    assert [row.name for row in parts] == ["backbone", "neck", "head"]
    assert whole.name == "whole"
    assert sum(row.parameters for row in parts) == whole.parameters
    assert sum(row.gflops for row in parts) == pytest.approx(whole.gflops)
    for before, after in pairwise(parts):
        assert before.output_shapes == after.input_shapes
    assert parts[0].input_shapes == whole.input_shapes == ((1, 3, 64, 96),)
    assert parts[-1].output_shapes == whole.output_shapes
    assert not any(math.isnan(row.backward_ms) for row in (*parts, whole))


def test_the_log_has_the_table(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        rows = profile(torch.rand(1, 2, 4, 4), nn.Conv2d(2, 2, 1), 1, now=Clock())
    assert caplog.messages == table_lines(rows)
    headings, line = caplog.messages
    assert headings.split()[:3] == ["part", "parameters", "GFLOPs"]
    assert line.split()[:3] == ["Conv2d", "6", "0.000"]
    assert line.endswith("1x2x4x4  1x2x4x4")


def test_the_most_memory_that_was_held_at_a_time_is_told() -> None:
    kept = list[Tensor]()

    def run() -> None:
        for _ in range(3):
            torch.empty(1_000_000, dtype=torch.uint8)
        kept.append(torch.empty(500_000, dtype=torch.uint8))

    peak = peak_memory(run, CPU)
    assert peak.peak_bytes is not None
    assert 1_000_000 <= peak.peak_bytes < 1_600_000
    assert "CPU" in peak.measured
    assert peak_memory(lambda: None, CPU).peak_bytes is None


def test_a_single_run_has_no_deviation() -> None:
    (row,) = profile(torch.zeros(1, 3, 8, 8), nn.Conv2d(3, 4, 1), runs=1)
    assert math.isnan(row.forward_ms_std)
    assert math.isnan(row.backward_ms_std)
    assert "±" not in table_lines([row])[1]
