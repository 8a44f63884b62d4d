"""Sparsity, and unstructured pruning by the original's numbers and by an obvious implementation."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from detection.analysis.prune import Pruned, prune_globally, prune_layers
from detection.analysis.sparsity import sparsity
from tests.npz import read_npz

Prune = Callable[[nn.Module, float], Pruned]


def golden_network() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(3, 7, 3), nn.BatchNorm2d(7), nn.ReLU(), nn.Conv2d(7, 5, 1), nn.Linear(4, 3)
    )


def convolutions() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 16, 3))


def test_pruned_weights_and_sparsity_are_the_originals(numbers: Path) -> None:
    case = read_npz(numbers / "prune_sparsity.npz")
    names = [name.removesuffix("_amount") for name in case if name.endswith("_amount")]
    assert names
    for name in names:
        model = golden_network()
        before, after = (
            {
                key.removeprefix(f"{name}_{when}_"): torch.from_numpy(value)
                for key, value in case.items()
                if key.startswith(f"{name}_{when}_")
            }
            for when in ("before", "after")
        )
        model.load_state_dict(before, strict=False)
        expected = case[f"{name}_sparsity_before_after"]
        assert sparsity(model) == pytest.approx(expected[0], abs=1e-6)
        pruned = prune_layers(model, float(case[f"{name}_amount"]))
        assert pruned.sparsity == sparsity(model) == pytest.approx(expected[1], abs=1e-6)
        for entry, value in after.items():
            np.testing.assert_array_equal(model.state_dict()[entry], value)


@pytest.mark.parametrize("amount", [0.0, 0.3, 0.77])
def test_each_convolution_loses_its_smallest_weights(amount: float) -> None:
    model = convolutions()
    weights = {name: value.clone() for name, value in model.state_dict().items()}
    pruned = prune_layers(model, amount)
    for name in ("0", "3"):
        before, after = weights[f"{name}.weight"].flatten(), model.state_dict()[f"{name}.weight"].flatten()
        gone = sorted(range(len(before)), key=lambda index: abs(float(before[index])))
        before[gone[: round(amount * len(before))]] = 0
        torch.testing.assert_close(after, before, rtol=0, atol=0)
        assert pruned.layers[name] == pytest.approx(round(amount * len(before)) / len(before))


def test_all_convolutions_have_one_threshold() -> None:
    model = convolutions()
    with torch.no_grad():
        model[3].weight.mul_(10)
    all_weights = torch.cat([model[index].weight.detach().flatten().abs() for index in (0, 3)])
    threshold = all_weights.sort().values[round(0.2 * len(all_weights)) - 1]
    pruned = prune_globally(model, 0.2)
    for index in (0, 3):
        kept = model[index].weight[model[index].weight != 0]
        assert float(kept.detach().abs().min()) > float(threshold)
    assert pruned.layers["0"] > 0.7 > 0.2 > pruned.layers["3"]
    zeros = sum(int((each == 0).sum()) for each in (model[0].weight, model[3].weight))
    assert zeros == round(0.2 * len(all_weights))


@pytest.mark.parametrize("prune", [prune_layers, prune_globally])
def test_pruning_leaves_everything_else_and_is_permanent(prune: Prune) -> None:
    model = convolutions()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    pruned = prune(model, 0.3)
    after = model.state_dict()
    assert after.keys() == before.keys()
    for name, value in after.items():
        if name not in ("0.weight", "3.weight"):
            assert torch.equal(value, before[name])
    assert pruned.sparsity == sparsity(model) < 0.3
    assert all(isinstance(each, nn.Parameter) and each.requires_grad for each in model.parameters())


@pytest.mark.parametrize("prune", [prune_layers, prune_globally])
@pytest.mark.parametrize("amount", [-0.1, 1.0, float("nan")])
def test_an_amount_that_is_no_fraction_is_refused(prune: Prune, amount: float) -> None:
    with pytest.raises(ValueError, match="no fraction"):
        prune(convolutions(), amount)


def test_a_network_without_convolutions_stays_as_it_is() -> None:
    model = nn.Linear(2, 2)
    assert prune_layers(model, 0.5).layers == prune_globally(model, 0.5).layers == {}


def test_sparsity_counts_all_parameters() -> None:
    model = nn.Linear(3, 2)
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[0.0, 1.0, -0.0], [2.0, 3.0, 4.0]]))
        model.bias.zero_()
    assert sparsity(model) == 0.5
    assert sparsity(nn.ReLU()) == 0.0


def test_the_log_says_what_was_achieved(caplog: pytest.LogCaptureFixture) -> None:
    model = nn.Conv2d(1, 1, (1, 4), bias=False)
    with caplog.at_level(logging.INFO, logger="detection.analysis.prune"):
        prune_layers(model, 0.5)
        prune_globally(model, 0.5)
    assert caplog.messages[-1] == (
        "pruned 0.5 of all convolutions together: 0.5000 of all parameters are zero"
    )
    assert "pruned 0.5 of each convolution: 0.5000 of all parameters are zero" in caplog.messages
