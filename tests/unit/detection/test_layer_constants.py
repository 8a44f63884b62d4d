"""The constants that a network's makers chose for its layers."""

from __future__ import annotations

import logging

import pytest
import torch
from torch import nn

from detection.models.layer_constants import initialise_layers, work_in_place


def test_norms_get_their_constants_activations_work_in_place_and_convolutions_stay() -> None:
    activations = [nn.Hardswish(), nn.LeakyReLU(0.1), nn.ReLU(), nn.ReLU6()]
    others = [nn.SiLU(), nn.BatchNorm1d(2)]
    model = nn.Sequential(nn.Conv2d(2, 2, 1), nn.BatchNorm2d(2), nn.Sequential(*activations), *others)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    initialise_layers(model)
    assert (model[1].eps, model[1].momentum) == (1e-3, 0.03)
    assert all(each.inplace for each in activations)
    assert not others[0].inplace
    assert (others[1].eps, others[1].momentum) == (1e-5, 0.1)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_working_in_place_changes_no_output_and_no_gradient() -> None:
    def answers(*, in_place: bool) -> tuple[torch.Tensor, torch.Tensor]:
        torch.manual_seed(0)
        model = nn.Sequential(nn.Conv2d(2, 3, 1), nn.BatchNorm2d(3), nn.LeakyReLU(0.1), nn.Conv2d(3, 2, 1))
        if in_place:
            assert work_in_place(model) == 1
        output = model(torch.rand(2, 2, 4, 4, generator=torch.Generator().manual_seed(1)))
        output.square().sum().backward()
        return output.detach(), model[0].weight.grad

    for one, other in zip(answers(in_place=False), answers(in_place=True), strict=True):
        assert torch.equal(one, other)


def test_the_log_counts_what_was_set(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        initialise_layers(nn.Sequential(nn.BatchNorm2d(2), nn.ReLU()))
    assert caplog.messages == [
        "layers initialised: 1 batch norms with eps 0.001 and momentum 0.03, 1 activations in place"
    ]
