"""What a loss is divided by, in one process and in several."""

from __future__ import annotations

import pytest
import torch
from torch import distributed

from detection.losses.normaliser import global_mean


def test_alone_it_is_the_count_and_at_least_one() -> None:
    assert global_mean(torch.tensor(0.0)) == 1
    assert global_mean(torch.tensor(0.25)) == 1
    assert global_mean(torch.tensor(7.0)) == 7


def test_it_has_no_gradient() -> None:
    assert not global_mean(torch.tensor(7.0, requires_grad=True)).requires_grad


@pytest.mark.parametrize(("everywhere", "expected"), [(9.0, 3.0), (0.0, 1 / 3)])
def test_ranks_share_one_of_the_global_batch(
    monkeypatch: pytest.MonkeyPatch, everywhere: float, expected: float
) -> None:
    monkeypatch.setattr(distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(distributed, "get_world_size", lambda: 3)
    monkeypatch.setattr(distributed, "all_reduce", lambda count: count.fill_(everywhere))
    own = torch.tensor(2.0)
    assert global_mean(own) == pytest.approx(expected)
    assert own == 2, "the caller's count is not the place for the sum"
