"""One seed for every generator."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch

from detection.training.seeds import seed_everything


def _draw() -> tuple[float, float, float]:
    return random.random(), float(np.random.rand()), float(torch.rand(()))


def test_the_same_seed_gives_the_same_draws_everywhere() -> None:
    seed_everything(7, deterministic=True)
    first = _draw()
    seed_everything(7, deterministic=False)
    assert _draw() == first
    seed_everything(8, deterministic=False)
    assert all(other != one for other, one in zip(_draw(), first, strict=True))


@pytest.mark.parametrize("deterministic", [True, False])
@pytest.mark.parametrize("accelerated", [True, False])
def test_deterministic_chooses_the_kernels_of_accelerators(
    monkeypatch: pytest.MonkeyPatch, deterministic: bool, accelerated: bool
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: accelerated)
    seed_everything(0, deterministic=deterministic)
    assert torch.are_deterministic_algorithms_enabled() is (deterministic and accelerated)
    assert torch.backends.cudnn.benchmark is not deterministic
