"""Counting parameters and operations."""

from __future__ import annotations

import pytest
from torch import nn

from detection.analysis.complexity import count_complexity, count_flops
from detection.models import create_model


def test_a_convolution_by_hand() -> None:
    conv = nn.Conv2d(3, 8, 3, stride=2, padding=1, bias=False)
    assert count_flops(conv, (16, 20)) == 2 * (8 * 10) * 8 * 3 * 3 * 3


def test_the_published_size_of_yolox_nano() -> None:
    """Of the original's count only the convolutions are counted here: algorithms.md 1.11 gives 1.045."""
    model = create_model("yolox-nano", num_classes=80)
    complexity = count_complexity(model, (416, 416))
    assert complexity.parameters == complexity.gradients == 912_159
    assert complexity.gflops == pytest.approx(1.045, rel=0.03)
    assert model.training


def test_what_does_not_learn_is_counted_apart() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU(), nn.Conv2d(4, 4, 1)).requires_grad_(False)
    model[0].requires_grad_(True)
    complexity = count_complexity(model.eval(), (8, 8))
    assert (complexity.layers, complexity.parameters, complexity.gradients) == (4, 36, 16)
    assert complexity.summary() == "Model Summary: 4 layers, 36 parameters, 16 gradients, 0.00 GFLOPs"
    assert not model.training
