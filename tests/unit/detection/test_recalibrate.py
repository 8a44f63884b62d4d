"""Statistics of batch norms that are measured again."""

from __future__ import annotations

import logging

import pytest
import torch
from torch import nn

from detection.analysis.recalibrate import recalibrate_norms


def network() -> nn.Sequential:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4, momentum=0.03)).eval()
    model[1].running_var.fill_(1e-6)
    return model


def test_norms_get_the_mean_over_all_batches() -> None:
    model, batches = network(), [torch.rand(2, 3, 5, 5), 3 * torch.rand(2, 3, 5, 5)]
    weights = {name: value.clone() for name, value in model.state_dict().items() if "running" not in name}
    assert recalibrate_norms(model, batches) == 4
    assert float(model[1].running_var.min()) > 0
    maps = [model[0](batch).detach() for batch in batches]
    norm = model[1]
    torch.testing.assert_close(norm.running_mean, torch.cat(maps).mean(dim=(0, 2, 3)))
    torch.testing.assert_close(norm.running_var, sum(each.var(dim=(0, 2, 3)) for each in maps) / 2)
    assert (norm.momentum, norm.training) == (0.03, False)
    for name in ("0.weight", "0.bias", "1.weight", "1.bias"):
        assert torch.equal(model.state_dict()[name], weights[name])
        assert model.get_parameter(name).grad is None


def test_a_channel_that_hardly_varies_any_more_is_not_blown_up() -> None:
    model = network()
    model[1].running_var.fill_(8)
    recalibrate_norms(model, [torch.rand(2, 3, 4, 4)])
    assert model[1].running_var.tolist() == [2, 2, 2, 2]


def test_without_pictures_everything_stays() -> None:
    model = network()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    assert recalibrate_norms(model, []) == 0
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert model[1].momentum == 0.03


def test_the_log_says_on_how_many_pictures(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        recalibrate_norms(network(), [torch.rand(2, 3, 4, 4)])
    assert caplog.messages == ["1 batch norms measured again on 2 pictures"]
