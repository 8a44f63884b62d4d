"""Serving is timed on as many streams as asked, and every stream does at least one batch."""

from __future__ import annotations

import threading

import pytest
import torch
from torch import Tensor

from detection.analysis.serving_speed import measure_speed, percentile
from detection.devices import CPU
from detection.inference.predictor import Predictor
from detection.model_record import ModelRecord
from tests.pictures import jpeg, noise

RECORD = ModelRecord(architecture="yolox-nano", classes=("a",), input_size_hw=(64, 64))


class Counting:
    """A backend that sees nothing, and remembers who asked for how much."""

    device = CPU

    def __init__(self) -> None:
        self.batches: list[int] = []
        self.threads: set[str] = set()

    def run(self, images_BCHW: Tensor) -> tuple[Tensor, ...]:
        self.batches.append(len(images_BCHW))
        self.threads.add(threading.current_thread().name)
        return torch.zeros(len(images_BCHW), 1, 4), torch.zeros(len(images_BCHW), 1, 1)


def test_every_stream_works_in_a_thread_of_its_own_on_whole_batches() -> None:
    backend = Counting()
    speed = measure_speed(
        Predictor(backend, RECORD), [jpeg(noise(40, 40))], streams=2, batch_size=3, seconds=0.05
    )
    assert set(backend.batches) == {3}
    assert len([name for name in backend.threads if name.startswith("stream")]) == 2
    assert speed.pictures_per_s > 0
    assert 0 < speed.p50_ms <= speed.p95_ms


@pytest.mark.parametrize(("count", "expected"), [(1, 1), (2, 2), (20, 19), (100, 95), (101, 96)])
def test_of_so_many_in_a_hundred(count: int, expected: int) -> None:
    assert percentile(range(count, 0, -1), 0.95) == expected
