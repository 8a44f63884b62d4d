"""Optimizers: who is in which group, who decays, who is left out."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn, optim

from detection.training.config import OptimizerConfig, OptimizerKind
from detection.training.optimizers import build_optimizer, parameter_groups, set_learning_rate


def model() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.GroupNorm(2, 4), nn.Linear(4, 2, bias=False)
    )


def config(**changes: Any) -> OptimizerConfig:
    return OptimizerConfig(**({"lr": 0.1, "momentum": 0.9, "weight_decay": 5e-4} | changes))


def test_only_weights_that_are_no_normalisation_decay() -> None:
    network = model()
    optimizer = build_optimizer(network, config(weight_decay=0.01))
    groups = {group["name"]: group for group in optimizer.param_groups}
    conv, batch_norm, group_norm, linear = network
    assert [id(each) for each in groups["norm"]["params"]] == [id(batch_norm.weight), id(group_norm.weight)]
    assert [id(each) for each in groups["weight"]["params"]] == [id(conv.weight), id(linear.weight)]
    biases = [id(layer.bias) for layer in (conv, batch_norm, group_norm)]
    assert [id(each) for each in groups["bias"]["params"]] == biases
    assert {name: group["weight_decay"] for name, group in groups.items()} == {
        "norm": 0,
        "weight": 0.01,
        "bias": 0,
    }


@pytest.mark.parametrize(("norms", "biases"), [(True, False), (False, True), (True, True)])
def test_norms_and_biases_may_decay_too(norms: bool, biases: bool) -> None:
    chosen = config(weight_decay=0.01, decay_norms=norms, decay_biases=biases)
    decays = {group["name"]: group["weight_decay"] for group in build_optimizer(model(), chosen).param_groups}
    assert decays == {"norm": 0.01 * norms, "weight": 0.01, "bias": 0.01 * biases}


def test_a_parameter_of_its_own_decays_like_a_weight() -> None:
    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.ones(()))

    assert [len(each) for each in parameter_groups(Scaled()).values()] == [0, 1, 0]


def test_frozen_parameters_are_left_out() -> None:
    network = model()
    network[0].requires_grad_(False)
    optimizer = build_optimizer(network, config())
    held = {id(each) for group in optimizer.param_groups for each in group["params"]}
    assert held == {id(each) for each in network.parameters() if each.requires_grad}


@pytest.mark.parametrize(
    ("kind", "built"), [("sgd", optim.SGD), ("adam", optim.Adam), ("adamw", optim.AdamW)]
)
def test_every_kind_is_built_with_its_momentum(kind: str, built: type[optim.Optimizer]) -> None:
    optimizer = build_optimizer(model(), config(kind=OptimizerKind(kind), momentum=0.8))
    assert type(optimizer) is built
    group = optimizer.param_groups[0]
    assert (group["momentum"] if kind == "sgd" else group["betas"][0]) == 0.8
    assert group["lr"] == 0.1


@pytest.mark.parametrize("nesterov", [True, False])
def test_two_steps_of_sgd_by_hand(nesterov: bool) -> None:
    weight = nn.Linear(1, 1, bias=False)
    nn.init.ones_(weight.weight)
    optimizer = build_optimizer(weight, config(weight_decay=0.5, nesterov=nesterov))
    value, velocity = 1.0, 0.0
    for _ in range(2):
        weight.weight.grad = torch.full((1, 1), 2.0)
        optimizer.step()
        gradient = 2.0 + 0.5 * value
        velocity = 0.9 * velocity + gradient
        value -= 0.1 * (gradient + 0.9 * velocity if nesterov else velocity)
    assert float(weight.weight.detach()) == pytest.approx(value, rel=1e-6)


def test_one_rate_for_all_groups() -> None:
    optimizer = build_optimizer(model(), config())
    set_learning_rate(optimizer, 0.003)
    assert [group["lr"] for group in optimizer.param_groups] == [0.003] * 3


@pytest.mark.parametrize("missing", ["lr", "momentum"])
def test_an_unresolved_configuration_is_refused(missing: str) -> None:
    with pytest.raises(ValueError, match="not resolved"):
        build_optimizer(model(), config(**{missing: None}))
