"""The batch size of an accelerator: as large as it pays, as small as the memory wants it."""

from __future__ import annotations

import pytest
import torch

from app.engine.batch_probe import learn_batch_size


class Accelerator:
    """Takes a fixed time per batch and some per picture; from a size on they only queue up, or do not fit."""

    def __init__(self, *, side_by_side: int, fits: int = 1000) -> None:
        self.now, self.tried = 0.0, list[int]()
        self._side_by_side, self._fits = side_by_side, fits

    def run(self, size: int) -> None:
        self.tried.append(size)
        if size > self._fits:
            raise torch.OutOfMemoryError("CUDA out of memory")
        self.now += 0.010 * max(size / self._side_by_side, 1)

    def learn(self, most: int = 64) -> int:
        return learn_batch_size(self.run, most=most, clock=lambda: self.now)


@pytest.mark.parametrize(("side_by_side", "learnt"), [(1, 1), (8, 8), (12, 16), (1000, 64)])
def test_it_grows_while_that_pays(side_by_side: int, learnt: int) -> None:
    assert Accelerator(side_by_side=side_by_side).learn() == learnt


def test_it_stops_where_the_memory_ends() -> None:
    small = Accelerator(side_by_side=1000, fits=20)
    assert small.learn() == 16
    assert max(small.tried) == 32


def test_no_more_is_tried_than_allowed() -> None:
    accelerator = Accelerator(side_by_side=1000)
    assert accelerator.learn(most=5) == 4
    assert max(accelerator.tried) == 4


def test_a_model_that_does_not_fit_at_all_is_an_error() -> None:
    with pytest.raises(torch.OutOfMemoryError):
        Accelerator(side_by_side=1, fits=0).learn()
