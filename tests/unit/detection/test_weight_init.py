"""The five ways to start: what each draws, and what none of them touches."""

from __future__ import annotations

import logging
import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from detection.errors import UnknownNameError
from detection.models import create_model
from detection.models.weight_init import initialise
from detection.training.config import WeightInitConfig, WeightInitKind


def fresh(kind: str, gain: float = 0.02) -> tuple[nn.Module, dict[str, Tensor]]:
    """Return a freshly initialised detector and its state before."""
    torch.manual_seed(0)
    model = create_model("yolox-tiny", num_classes=2)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    initialise(model, WeightInitConfig(kind=WeightInitKind(kind), gain=gain))
    return model, before


def weight_of(model: nn.Module) -> Tensor:
    """A convolution of 192 x 192 x 3 x 3."""
    return model.get_parameter("backbone.backbone.dark5.2.m.0.conv2.conv.weight").detach()


def test_the_default_changes_nothing() -> None:
    model, before = fresh("default")
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize(
    ("kind", "gain", "deviation"),
    [
        ("normal", 0.02, 0.02),
        ("normal", 0.1, 0.1),
        ("xavier", 0.02, 0.02 * math.sqrt(2 / (9 * 192 + 9 * 192))),
        ("kaiming", 0.02, math.sqrt(2 / (9 * 192))),
    ],
)
def test_normal_kinds_have_their_deviation(kind: str, gain: float, deviation: float) -> None:
    weight = weight_of(fresh(kind, gain)[0])
    assert float(weight.std()) == pytest.approx(deviation, rel=0.01)
    assert abs(float(weight.mean())) < deviation / 100


def test_orthogonal_filters_are_orthogonal() -> None:
    rows = weight_of(fresh("orthogonal", 0.5)[0]).flatten(1)
    torch.testing.assert_close(rows @ rows.T, 0.25 * torch.eye(192), rtol=0, atol=1e-5)


@pytest.mark.parametrize("kind", ["normal", "xavier", "kaiming", "orthogonal"])
def test_norms_are_drawn_and_biases_of_convolutions_stay(kind: str) -> None:
    model, before = fresh(kind)
    norm = model.get_parameter("backbone.backbone.dark5.2.conv3.bn.weight").detach()
    assert float(norm.mean()) == pytest.approx(1.0, abs=0.005)
    assert float(norm.std()) == pytest.approx(0.02, rel=0.2)
    for name, value in model.state_dict().items():
        if "preds" in name and name.endswith("bias"):
            assert torch.equal(value, before[name])
        if name.endswith("bn.bias"):
            assert not value.any()


def test_the_log_names_the_kind(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        initialise(nn.Conv2d(1, 1, 1), WeightInitConfig(kind=WeightInitKind.XAVIER))
    assert caplog.messages == ["weights initialised: xavier"]


def test_an_unknown_kind_is_an_error() -> None:
    kind: Any = "zeros"
    with pytest.raises(UnknownNameError, match="orthogonal"):
        initialise(nn.Conv2d(1, 1, 1), WeightInitConfig(kind=kind))
